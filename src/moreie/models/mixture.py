"""The mixture of experts: p(y) = Σ_m g_m · p_m(y) over CRF marginals (NER) or class distributions (RE)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from moreie.encoders.batches import Batch
from moreie.encoders.pictures import embed_pictures
from moreie.errors import CheckpointError, MoreieError
from moreie.models.expert import EncoderPool, Expert, load_expert
from moreie.models.gate import Gate
from moreie.models.gate_inputs import PostStates, gate_features
from moreie.models.limits import LOWEST_THRESHOLD, checked_certainty, checked_threshold
from moreie.models.ner import NerExpert
from moreie.models.outputs import (
    ExpertOutputs,
    Rows,
    SaidAhead,
    first_without_evidence,
    mean_weights,
    run_experts,
    say_ahead,
)
from moreie.models.relation import RelationExpert
from moreie.whole_files import replace_file

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder

log = logging.getLogger(__name__)
MIXTURE_FILE = "mixture.json"
X = TypeVar("X", bound=Expert)


class MixtureSpec(BaseModel):
    """`mixture.json`: the task, the experts' folders in the gate's order, the temperature of its confidences.

    `scores`: what was measured of it (`moreie calibrate`: calibration errors at temperature 1 and at fitted ones).
    `titles`: by retriever, what experts read before each text that is attached to posts (`retrieval.attached`).
    `reversed_none` (RE): see `models.relation.against_the_text`. `threshold` (NER): what a mention has to exceed
    (`models.decoding.decode`); None where none was fitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["ner", "re"]
    experts: tuple[str, ...]
    scores: dict[str, float] = {}
    temperature: float | None = None
    titles: dict[str, str] = {}
    reversed_none: float = 0.0
    threshold: float | None = Field(default=None, ge=LOWEST_THRESHOLD, lt=1)
    format: Literal[1] = 1


@dataclass(frozen=True)
class Mixed:
    """The mixture's answer: log-distributions per case, gate weights [N, M], and the experts' own outputs.

    The weights of a token-level gate are given as their means over the words.
    """

    log_probabilities: list[Tensor]
    weights: Tensor
    outputs: ExpertOutputs


class Mixture(Generic[X]):
    """Any number of experts of one task, and the gate over them (None for a single expert).

    `temperature`: what confidences are read at (`models.temperature`), 1 where none was fitted; answers are given at 1.
    `image_encoder`: the one whose embeddings the gate reads, where it reads pictures. `titles`,
    `reversed_none`, `threshold`: see `MixtureSpec`. `certainty`: see `selective`.
    """

    def __init__(
        self,
        experts: Sequence[X],
        gate: Gate | None,
        temperature: float | None = None,
        *,
        image_encoder: ImageEncoder | None = None,
        titles: Mapping[str, str] | None = None,
        reversed_none: float = 0.0,
        threshold: float | None = None,
    ):
        if not experts:
            raise MoreieError("a mixture needs at least one expert")
        names = tuple(e.spec.name for e in experts)
        if len(experts) > 1 and (gate is None or gate.spec.experts != names):
            raise MoreieError(f"the gate weighs {gate.spec.experts if gate else 'nothing'}, the experts are {names}")
        if len({e.spec.labels for e in experts}) > 1:
            raise MoreieError(f"experts {', '.join(names)} do not share one label set")
        if gate is not None:
            gate.check_image_encoder(image_encoder)
        self.experts, self.gate, self.names = tuple(experts), gate, names
        self.image_encoder = image_encoder if gate is not None and "image" in gate.spec.inputs else None
        self.fitted_temperature = temperature
        self.titles = dict(titles or {})
        self.reversed_none = reversed_none
        self.threshold = threshold
        self.certainty: float | None = None

    @property
    def temperature(self) -> float:
        return 1.0 if self.fitted_temperature is None else self.fitted_temperature

    @property
    def labels(self) -> tuple[str, ...]:
        return self.experts[0].spec.labels

    def outputs(
        self, cases: Sequence[Any], evidence: Mapping[str, Rows], ahead: SaidAhead | None = None
    ) -> ExpertOutputs:
        """Run every expert on the cases it has evidence for; `evidence` maps a retriever to one row a case."""
        return run_experts(self.experts, cases, evidence, self.certainty, ahead)

    def ahead(self, cases: Sequence[Any], states: PostStates) -> SaidAhead:
        """What can be read of cases before their evidence is there: by experts without evidence, and of the posts by
        the gate, which `states` then remembers."""
        if not cases:
            return SaidAhead({}, {})
        asked: list[list[Batch[None]]] = []
        # Of a selective mixture's cases the gate will be asked of few.
        if self.gate is not None and "post" in self.gate.spec.inputs and self.certainty is None:
            posts = [self.experts[0].post_of(case) for case in cases]
            asked = [states.reading(self.experts[0].encoder, posts, words=self.gate.spec.level == "token")]
        return say_ahead(self.experts, cases, self.certainty, *asked)

    def __call__(
        self,
        cases: Sequence[Any],
        evidence: Mapping[str, Rows],
        images: Tensor | None = None,
        states: PostStates | None = None,
        ahead: SaidAhead | None = None,
    ) -> Mixed:
        """Answers to the cases.

        `images` [N, D]: their pictures under the gate's image encoder, rows of NaN where there is none; without it the
        pictures that the posts name are embedded here. `states` remembers what gates read of posts between calls,
        `ahead` is what has been said of the cases before their evidence was there.
        """
        return self.mix(cases, evidence, self.outputs(cases, evidence, ahead), images, states)

    def mix(
        self,
        cases: Sequence[Any],
        evidence: Mapping[str, Rows],
        outputs: ExpertOutputs,
        images: Tensor | None = None,
        states: PostStates | None = None,
    ) -> Mixed:
        """The same where it is known already what the experts say."""
        if self.gate is None or not len(cases):
            log_weights = [torch.zeros(len(self.names))] * len(cases)
        else:
            log_weights = self._weighed(self.gate, cases, evidence, outputs, images, states)
        return Mixed(outputs.mix(log_weights), mean_weights(log_weights, len(self.names)), outputs)

    def _weighed(
        self,
        gate: Gate,
        cases: Sequence[Any],
        evidence: Mapping[str, Rows],
        outputs: ExpertOutputs,
        images: Tensor | None,
        states: PostStates | None,
    ) -> list[Tensor]:
        """Log-weights of each case, [M] or [T, M]. The gate is asked where more than one expert speaks."""
        level = gate.spec.level
        contested = torch.nonzero(outputs.available.sum(1) > 1)[:, 0].tolist()
        log_weights = outputs.per_case(outputs.available_rows(level).float().log(), level)
        if contested:
            own, said = [cases[n] for n in contested], outputs.of(contested)
            rows = {name: [column[n] for n in contested] for name, column in evidence.items()}
            if images is not None:
                images = images[contested]
            elif self.image_encoder is not None:
                images = self._embedded(own, self.image_encoder)
            features = gate_features(gate.spec, self.experts, own, rows, said, images, states)
            weighed = said.per_case(gate.weigh(features, said.available_rows(level)), level)
            for n, row in zip(contested, weighed, strict=True):
                log_weights[n] = row
        return log_weights

    def _embedded(self, cases: Sequence[Any], encoder: ImageEncoder) -> Tensor:
        embedded = embed_pictures([self.experts[0].post_of(case) for case in cases], encoder)
        if embedded.shortfall:
            log.warning("the gate reads pictures: %s", embedded.shortfall)
        return torch.from_numpy(embedded.vectors)

    def at_temperature(self, temperature: float) -> Mixture[X]:
        """The same experts and gate, confidences read at another temperature."""
        other = copy.copy(self)
        other.fitted_temperature = temperature
        return other

    def at_threshold(self, threshold: float) -> Mixture[X]:
        """The same experts and gate, mentions being the spans that are more probable than `threshold` (NER).

        The lower, the more are found; the higher, the fewer are wrong.

        Raises:
            MoreieError: it is no probability.
        """
        other = copy.copy(self)
        other.threshold = checked_threshold(threshold)
        return other

    def selective(self, certainty: float) -> Mixture[X]:
        """The same, but cases of which the first expert without evidence is at least so sure are left to it alone, and
        no evidence is read for them: the probability of its answer, of a post's words that of the least certain.

        Raises:
            MoreieError: it is no probability, or all experts read evidence.
        """
        checked_certainty(certainty)
        if first_without_evidence(self.experts) is None:
            raise MoreieError(
                f"all experts read evidence ({', '.join(self.names)}): none can say when it is not needed"
            )
        other = copy.copy(self)
        other.certainty = certainty
        return other

    def save_spec(self, folder: Path, experts: Sequence[str], scores: Mapping[str, float]) -> None:
        """Write gate and `mixture.json` beside expert folders already saved under `folder`."""
        if self.gate is not None:
            self.gate.save(folder)
        task = self.experts[0].spec.task
        spec = MixtureSpec(
            task=task,
            experts=tuple(experts),
            scores=dict(scores),
            temperature=self.fitted_temperature,
            titles=self.titles,
            reversed_none=self.reversed_none,
            threshold=self.threshold,
        )
        (folder / MIXTURE_FILE).write_text(spec.model_dump_json(indent=2) + "\n")


def load_mixture(folder: Path, pool: EncoderPool) -> Mixture[Any]:
    """Load a mixture saved by `Mixture.save_spec`.

    Raises:
        CheckpointError: the folder is incomplete, or the gate's image encoder is not the one it was fitted with.
        EncoderError: that encoder cannot be loaded.
    """
    spec = read_spec(folder)
    kind: type[Expert] = NerExpert if spec.task == "ner" else RelationExpert
    experts = [load_expert(kind, folder / name, pool) for name in spec.experts]
    gate = Gate.load(folder) if len(experts) > 1 else None
    name = gate.spec.image_encoder if gate is not None else None
    encoder = pool.image_encoder(name) if name else None
    return Mixture(
        experts,
        gate,
        spec.temperature,
        image_encoder=encoder,
        titles=spec.titles,
        reversed_none=spec.reversed_none,
        threshold=spec.threshold,
    )


def save_temperature(folder: Path, temperature: float, scores: Mapping[str, float]) -> None:
    """Give the mixture saved in `folder` another temperature, and its `scores` these; nothing else of it changes.

    Raises:
        CheckpointError: `mixture.json` is not there, or damaged.
    """
    spec = read_spec(folder)
    spec = spec.model_copy(update={"temperature": temperature, "scores": {**spec.scores, **scores}})
    replace_file(folder / MIXTURE_FILE, spec.model_dump_json(indent=2).encode() + b"\n")


def read_spec(folder: Path) -> MixtureSpec:
    """What `Mixture.save_spec` wrote into `mixture.json`.

    Raises:
        CheckpointError: it is not there, or damaged.
    """
    path = folder / MIXTURE_FILE
    try:
        return MixtureSpec.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {MIXTURE_FILE}, so no mixture was saved here completely") from None
    except ValidationError as problem:
        raise CheckpointError(f"{path}: {problem.errors()[0]['msg']}") from problem
