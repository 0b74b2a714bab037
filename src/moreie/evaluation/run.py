"""A trained recipe scored on a split: every expert alone, the mixture, and what each of them said."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from moreie.errors import DataFormatError, RecipeError
from moreie.evaluation.calibration import Reliability, reliability
from moreie.evaluation.ner import mention_counts, mention_scores
from moreie.evaluation.relation import accuracy, relation_counts, relation_scores
from moreie.evaluation.scores import Counts, Scores
from moreie.models.expert import Expert
from moreie.models.gate import Gate
from moreie.models.mixture import decode_tags, decode_tags_per_position, span_confidence
from moreie.models.ner import NerExpert
from moreie.models.outputs import ExpertOutputs, Rows, mean_weights, run_experts
from moreie.training.data import Split, cases, load_split, within_limit
from moreie.training.gate import cross_validated_weights, gate_data
from moreie.training.recipe import Recipe
from moreie.training.run import load_experts, seed_folder

BASELINE = "baseline"
MIXTURE, MIXTURE_PER_POSITION, MEAN = "mixture", "mixture (arg-max per position)", "mean of experts"


@dataclass(frozen=True)
class Evaluation:
    """One seed on one split. `predictions[variant][n]` and `gold[n]`: spans of a post, or the relation of a pair.

    `gate` [N, M]: the weights of the experts `names` (means over the words where the gate weighs words).
    `confidences[n]`: of the mixture's spans, or of its relation.
    """

    task: str
    seed: int
    ids: list[str]
    gold: list[Any]
    predictions: dict[str, list[Any]]
    names: tuple[str, ...]
    gate: Tensor
    confidences: list[list[float]]

    def scores(self, variant: str) -> dict[str, Scores]:
        """Per type and `micro`."""
        return (mention_scores if self.task == "ner" else relation_scores)(self.gold, self.predictions[variant])

    def counts(self, variant: str) -> Counts:
        """[N, 3] right, guessed, gold."""
        return (mention_counts if self.task == "ner" else relation_counts)(self.gold, self.predictions[variant])

    def flips(self, variant: str) -> tuple[int, int] | None:
        """(spoilt, mended): gold answers the baseline has right and the variant wrong, and the other way round.

        Answers are gold mentions, or the labels of pairs, `None` among them. None without a baseline.
        """
        if BASELINE not in self.predictions:
            return None
        was, now = self._right(BASELINE), self._right(variant)
        pairs = list(zip(was, now, strict=True))
        return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)

    def _right(self, variant: str) -> list[bool]:
        answers = zip(self.gold, self.predictions[variant], strict=True)
        if self.task == "ner":
            return [span in set(spans) for gold, spans in answers for span in gold]
        return [gold == label for gold, label in answers]

    @property
    def reliability(self) -> Reliability:
        """The mixture's confidences against what is right."""
        confidences = [c for row in self.confidences for c in row]
        if self.task == "ner":
            answers = zip(self.gold, self.predictions[MIXTURE], strict=True)
            right = [span in set(gold) for gold, spans in answers for span in spans]
        else:
            right = [a == b for a, b in zip(self.gold, self.predictions[MIXTURE], strict=True)]
        return reliability(confidences, right)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the mixture's confidences."""
        return self.reliability.expected_error

    def accuracy(self, variant: str) -> float:
        """RE only: share of right labels, `None` included."""
        return accuracy(self.gold, self.predictions[variant])


def evaluate_seed(recipe: Recipe, split_name: str, seed: int) -> Evaluation:
    """Score the experts, alone and with their evidence taken away or exchanged, and the mixture of one seed.

    On the validation split with a gate that was fitted there, each post's gate weights are cross-validated: they
    come from a gate that has not seen the post.
    """
    files = {"validation": recipe.data.validation, "test": recipe.data.test}.get(split_name)
    if files is None:
        raise RecipeError(f"the recipe has no {split_name} split")
    folder = seed_folder(recipe, seed)
    experts = load_experts(recipe, folder, recipe.members)
    split: Split = within_limit(load_split(files), experts[0].encoder)
    data = gate_data(recipe, experts, split)
    outputs = data.outputs
    task_cases, evidence, gold = cases(recipe.task, split)
    if len(experts) == 1:
        rows = torch.zeros(len(data.features), 1)
    elif split_name == "validation" and recipe.gate.from_validation:
        rows = cross_validated_weights(recipe, data)
    else:
        rows = Gate.load(folder).weigh(data.features, data.available)
    log_weights = outputs.per_case(rows, data.spec.level)
    mean = torch.log_softmax(torch.zeros(outputs.available.shape).masked_fill(~outputs.available, -torch.inf), dim=1)
    distributions: dict[str, list[Tensor]] = {}
    others = [e for e in load_experts(recipe, folder) if e.spec.name not in recipe.members]
    for own, fallback in ((run_experts(others, task_cases, evidence) if others else None, None), (outputs, mean)):
        if own is not None:
            distributions.update(_alone(own, fallback))
    distributions = {e.name: distributions[e.name] for e in recipe.experts}
    for expert in (*others, *experts):
        if expert.spec.view.retriever is not None:
            distributions.update(_ablated(expert, task_cases, evidence[expert.spec.view.retriever]))
    distributions[MEAN] = outputs.mix(mean)
    distributions[MIXTURE] = outputs.mix(log_weights)
    predictions: dict[str, list[Any]] = {}
    first = experts[0]
    for variant, log_p in distributions.items():
        if isinstance(first, NerExpert):
            predictions[variant] = [first.tagset.spans(path) for path in decode_tags(first.tagset, log_p)]
        else:
            predictions[variant] = [first.spec.labels[int(p.argmax())] for p in log_p]
    mixed = distributions[MIXTURE]
    if isinstance(first, NerExpert):
        paths = decode_tags(first.tagset, mixed)
        confidences = [
            [span_confidence(p, path, a, b) for _, a, b in first.tagset.spans(path)]
            for p, path in zip(mixed, paths, strict=True)
        ]
        per_position = decode_tags_per_position(mixed)
        predictions[MIXTURE_PER_POSITION] = [first.tagset.spans(path) for path in per_position]
    else:
        confidences = [[float(p.max().exp())] for p in mixed]
    ids = [first.post_of(case).id for case in task_cases]
    weights = mean_weights(log_weights, len(experts))
    return Evaluation(recipe.task, seed, ids, gold, predictions, outputs.names, weights, confidences)


def _alone(outputs: ExpertOutputs, fallback: Tensor | None) -> dict[str, list[Tensor]]:
    """Each expert's own distributions. Where it has no evidence, `fallback` weights let the others speak."""
    alone = {}
    for m, name in enumerate(outputs.names):
        weights = torch.full(outputs.available.shape, -torch.inf)
        weights[:, m] = 0
        silent = ~outputs.available[:, m]
        if silent.any() and fallback is not None:
            weights[silent] = fallback[silent]
        alone[name] = outputs.mix(weights)
    return alone


def _ablated(expert: Expert, task_cases: Sequence[Any], rows: Rows) -> dict[str, list[Tensor]]:
    """What an expert says without its evidence, and with that of another post: does it read it at all?"""
    order = np.random.default_rng(0).permutation(len(rows))
    name = expert.spec.name
    return {
        f"{name}, no evidence": expert.log_probabilities(expert.assemble(task_cases, [()] * len(rows))),
        f"{name}, another post's evidence": expert.log_probabilities(
            expert.assemble(task_cases, [rows[i] for i in order])
        ),
    }


def save_predictions(evaluation: Evaluation, path: Path) -> None:
    """One line a case: id, gold, what each variant said, the gate's weights. The file is there when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file, zstandard.ZstdCompressor(19).stream_writer(file) as out:
        for n, id in enumerate(evaluation.ids):
            row = {
                "id": id,
                "gold": evaluation.gold[n],
                "predicted": {variant: rows[n] for variant, rows in evaluation.predictions.items()},
                "confidence": [round(c, 4) for c in evaluation.confidences[n]],
                "gate": dict(zip(evaluation.names, [round(w, 4) for w in evaluation.gate[n].tolist()], strict=True)),
            }
            out.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    os.replace(temporary, path)


def load_predictions(path: Path, task: str, seed: int) -> Evaluation:
    """What `save_predictions` wrote.

    Raises:
        DataFormatError: the file is missing or damaged.
    """
    from moreie.knowledge.sources.articles import open_text

    def typed(value: Any) -> Any:
        return [tuple(span) for span in value] if task == "ner" else value

    if not path.is_file():
        raise DataFormatError("no such file", path)
    try:
        with open_text(path) as lines:
            rows = [json.loads(line) for line in lines]
        names = tuple(rows[0]["gate"])
        return Evaluation(
            task,
            seed,
            [row["id"] for row in rows],
            [typed(row["gold"]) for row in rows],
            {variant: [typed(row["predicted"][variant]) for row in rows] for variant in rows[0]["predicted"]},
            names,
            torch.tensor([[row["gate"][name] for name in names] for row in rows]),
            [row["confidence"] for row in rows],
        )
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zstandard.ZstdError) as problem:
        raise DataFormatError(f"damaged predictions ({problem})", path) from problem


def mean_flips(evaluations: Sequence[Evaluation], variant: str) -> tuple[float, float] | None:
    """Mean flips of a variant over seeds; None for the baseline itself, or where there is none."""
    counts = [flips for e in evaluations if (flips := e.flips(variant)) is not None]
    if variant == BASELINE or not counts:
        return None
    spoilt, mended = np.mean(counts, axis=0).round(1).tolist()
    return spoilt, mended


def mean_gate(evaluations: Sequence[Evaluation]) -> Mapping[str, float]:
    """Mean gate weight of each expert over cases and seeds."""
    stacked = torch.cat([e.gate for e in evaluations])
    return dict(zip(evaluations[0].names, stacked.mean(0).tolist(), strict=True))
