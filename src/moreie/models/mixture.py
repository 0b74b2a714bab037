"""The mixture of experts: p(y) = Σ_m g_m · p_m(y) over CRF marginals (NER) or class distributions (RE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from moreie.encoders.precision import autocast
from moreie.encoders.text import TextEncoder, batch_tensors
from moreie.errors import CheckpointError, MoreieError
from moreie.models.assembly import Assembled
from moreie.models.crf import IMPOSSIBLE, viterbi
from moreie.models.expert import EncoderPool, Expert, length_batches, load_expert
from moreie.models.gate import Gate, GateInput
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.models.tagset import TagSet
from moreie.schema import Evidence

MIXTURE_FILE = "mixture.json"
X = TypeVar("X", bound=Expert)
Rows = Sequence[Sequence[Evidence]]


class MixtureSpec(BaseModel):
    """`mixture.json`: the task and the experts' folders, in the gate's order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["ner", "re"]
    experts: tuple[str, ...]
    scores: dict[str, float] = {}
    format: Literal[1] = 1


@dataclass(frozen=True)
class ExpertOutputs:
    """What M experts say of N cases, before the gate.

    `log_probabilities[m][n]`: [T, L] or [C], None where the expert has no evidence. `available` [N, M] bool.
    `entropies` [N, M]: mean entropy in nats, 0 where not available. `dropped[m][n]`: passages that found no room.
    """

    names: tuple[str, ...]
    log_probabilities: tuple[tuple[Tensor | None, ...], ...]
    available: Tensor
    entropies: Tensor
    dropped: tuple[tuple[int, ...], ...]

    def mix(self, log_weights: Tensor) -> list[Tensor]:
        """log Σ_m g_m p_m of each case ([T, L] or [C]) under log-weights [N, M]."""
        mixed = []
        for n in range(len(self.available)):
            parts = [
                log_weights[n, m] + own[n]  # type: ignore[operator]
                for m, own in enumerate(self.log_probabilities)
                if self.available[n, m]
            ]
            mixed.append(torch.logsumexp(torch.stack(parts), dim=0))
        return mixed


@dataclass(frozen=True)
class Mixed:
    """The mixture's answer: log-distributions per case, gate weights [N, M], and the experts' own outputs."""

    log_probabilities: list[Tensor]
    weights: Tensor
    outputs: ExpertOutputs


class Mixture(Generic[X]):
    """Any number of experts of one task, and the gate over them (None for a single expert)."""

    def __init__(self, experts: Sequence[X], gate: Gate | None):
        if not experts:
            raise MoreieError("a mixture needs at least one expert")
        names = tuple(e.spec.name for e in experts)
        if len(experts) > 1 and (gate is None or gate.spec.experts != names):
            raise MoreieError(f"the gate weighs {gate.spec.experts if gate else 'nothing'}, the experts are {names}")
        if len({e.spec.labels for e in experts}) > 1:
            raise MoreieError(f"experts {', '.join(names)} do not share one label set")
        self.experts, self.gate, self.names = tuple(experts), gate, names

    @property
    def labels(self) -> tuple[str, ...]:
        return self.experts[0].spec.labels

    def outputs(self, cases: Sequence[Any], evidence: Mapping[str, Rows]) -> ExpertOutputs:
        """Run every expert on the cases it has evidence for; `evidence` maps a retriever to one row a case."""
        return run_experts(self.experts, cases, evidence)

    def gate_features(self, cases: Sequence[Any], outputs: ExpertOutputs, images: Tensor | None) -> Tensor:
        """[N, F] features of the gate's inputs; `images` [N, D] embeddings, rows of NaN where there is none."""
        if self.gate is None:
            return torch.empty(len(cases), 0)
        spec = self.gate.spec
        sizes = dict(zip(spec.inputs, spec.sizes, strict=True))
        return gate_features(spec.inputs, self.experts[0], cases, outputs, images, sizes)

    def __call__(self, cases: Sequence[Any], evidence: Mapping[str, Rows], images: Tensor | None = None) -> Mixed:
        outputs = self.outputs(cases, evidence)
        if self.gate is None:
            log_weights = torch.zeros(len(cases), 1)
        else:
            with torch.no_grad():
                log_weights = self.gate(self.gate_features(cases, outputs, images), outputs.available)
        return Mixed(outputs.mix(log_weights), log_weights.exp(), outputs)

    def save_spec(self, folder: Path, experts: Sequence[str], scores: Mapping[str, float]) -> None:
        """Write gate and `mixture.json` beside expert folders already saved under `folder`."""
        if self.gate is not None:
            self.gate.save(folder)
        task = self.experts[0].spec.task
        spec = MixtureSpec(task=task, experts=tuple(experts), scores=dict(scores))
        (folder / MIXTURE_FILE).write_text(spec.model_dump_json(indent=2) + "\n")


def run_experts(experts: Sequence[Expert], cases: Sequence[Any], evidence: Mapping[str, Rows]) -> ExpertOutputs:
    """Every expert on every case it can speak on (see `availability`)."""
    rows = {
        m: evidence.get(e.spec.view.retriever, [()] * len(cases)) if e.spec.view.retriever else [()] * len(cases)
        for m, e in enumerate(experts)
    }
    available = availability([e.spec.view.retriever for e in experts], rows)
    entropies = torch.zeros(len(cases), len(experts))
    distributions: list[tuple[Tensor | None, ...]] = []
    dropped: list[tuple[int, ...]] = []
    for m, expert in enumerate(experts):
        own = torch.nonzero(available[:, m])[:, 0].tolist()
        inputs: list[Assembled] = expert.assemble([cases[i] for i in own], [rows[m][i] for i in own])
        column: list[Tensor | None] = [None] * len(cases)
        out = [0] * len(cases)
        for i, assembled, log_p in zip(own, inputs, expert.log_probabilities(inputs), strict=True):
            column[i] = log_p
            out[i] = assembled.dropped
            entropies[i, m] = -(log_p.exp() * log_p.clamp_min(IMPOSSIBLE)).sum(-1).mean()
        distributions.append(tuple(column))
        dropped.append(tuple(out))
    return ExpertOutputs(
        tuple(e.spec.name for e in experts), tuple(distributions), available, entropies, tuple(dropped)
    )


def availability(retrievers: Sequence[str | None], rows: Mapping[int, Rows]) -> Tensor:
    """[N, M] bool: an expert speaks where it found evidence or needs none; where none may, all do."""
    columns = [
        [True] * len(rows[m]) if retriever is None else [len(row) > 0 for row in rows[m]]
        for m, retriever in enumerate(retrievers)
    ]
    available = torch.tensor(columns, dtype=torch.bool).T.reshape(-1, len(columns))
    return available | ~available.any(1, keepdim=True)


def gate_features(
    inputs: Sequence[GateInput],
    expert: Expert,
    cases: Sequence[Any],
    outputs: ExpertOutputs,
    images: Tensor | None,
    sizes: Mapping[GateInput, int],
) -> Tensor:
    """[N, F]: the chosen inputs side by side."""
    parts = []
    for kind in inputs:
        if kind == "post":
            parts.append(post_states(expert.encoder, [expert.post_of(case) for case in cases]))
        elif kind == "image":
            size = sizes[kind] - 1
            found = images if images is not None else torch.full((len(cases), size), torch.nan)
            present = ~found.isnan().any(1, keepdim=True)
            parts.append(torch.cat([torch.where(present, found, 0.0), present.float()], dim=1))
        else:
            parts.append(outputs.entropies)
    return torch.cat(parts, dim=1) if parts else torch.empty(len(cases), 0)


@torch.no_grad()
def post_states(encoder: TextEncoder, posts: Sequence[Any], tokens_per_batch: int = 4096) -> Tensor:
    """[N, H] mean states of the bare posts under the encoder without adapters; each distinct post is read once."""
    distinct = {post.id: post for post in posts}
    words = encoder.word_subtokens([[w.text for w in p.words] for p in distinct.values()])
    rows = [encoder.framed([i for piece in post for i in piece]) for post in words]
    encoder.eval().use_adapter(None)
    states = torch.zeros(len(rows), encoder.hidden_size)
    for indices in length_batches([len(r) for r in rows], tokens_per_batch):
        ids, mask = batch_tensors([rows[i] for i in indices], encoder.tokenizer.pad_token_id or 0)
        ids, mask = ids.to(encoder.device), mask.to(encoder.device)
        with autocast(encoder.device):
            hidden = encoder(ids, mask).float()
        states[indices] = ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).cpu()
    place = {id: i for i, id in enumerate(distinct)}
    return states[[place[post.id] for post in posts]]


def decode_tags(tagset: TagSet, log_marginals: Sequence[Tensor]) -> list[list[int]]:
    """Best legal BIOES path of each post under mixed log-marginals [T, L]: Viterbi with legality as transitions."""
    if not log_marginals:
        return []
    transitions = torch.zeros(len(tagset), len(tagset)).masked_fill(~tagset.transitions_allowed, IMPOSSIBLE)
    start = torch.zeros(len(tagset)).masked_fill(~tagset.start_allowed, IMPOSSIBLE)
    end = torch.zeros(len(tagset)).masked_fill(~tagset.end_allowed, IMPOSSIBLE)
    lengths = torch.tensor([len(p) for p in log_marginals])
    padded = torch.nn.utils.rnn.pad_sequence(list(log_marginals), batch_first=True).clamp_min(IMPOSSIBLE / 10)
    paths, _ = viterbi(padded, lengths, transitions, start, end)
    return [path[:length].tolist() for path, length in zip(paths, lengths.tolist(), strict=True)]


def decode_tags_per_position(log_marginals: Sequence[Tensor]) -> list[list[int]]:
    """The paper's decoding: the arg-max at each position, legal or not."""
    return [p.argmax(1).tolist() for p in log_marginals]


def span_confidence(log_marginals: Tensor, path: Sequence[int], first: int, last: int) -> float:
    """Geometric mean of the marginals of a span's tags: between 0 and 1, whatever the span's length."""
    tags = torch.as_tensor(path[first : last + 1])
    return float(log_marginals[first : last + 1].gather(1, tags[:, None]).mean().exp())


def load_mixture(folder: Path, pool: EncoderPool) -> Mixture[Any]:
    """Load a mixture saved by `Mixture.save_spec`.

    Raises:
        CheckpointError: the folder is incomplete.
    """
    path = folder / MIXTURE_FILE
    try:
        spec = MixtureSpec.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {MIXTURE_FILE}, so no mixture was saved here completely") from None
    except ValidationError as problem:
        raise CheckpointError(f"{path}: {problem.errors()[0]['msg']}") from problem
    kind: type[Expert] = NerExpert if spec.task == "ner" else RelationExpert
    experts = [load_expert(kind, folder / name, pool) for name in spec.experts]
    return Mixture(experts, Gate.load(folder) if len(experts) > 1 else None)
