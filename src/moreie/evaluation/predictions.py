"""What each variant said of a split, in memory and on disk (`*.jsonl.zst`), and the scores that follow from it."""

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

from moreie.errors import DataFormatError
from moreie.evaluation.calibration import Reliability, reliability
from moreie.evaluation.ner import mention_counts, mention_scores
from moreie.evaluation.relation import accuracy, relation_counts, relation_scores
from moreie.evaluation.scores import Counts, Scores

BASELINE = "baseline"
MIXTURE, MIXTURE_PER_POSITION, MEAN = "mixture", "mixture (arg-max per position)", "mean of experts"
# RE, not a system: what would be left to get wrong if `None` were never in doubt.
MIXTURE_TOLD = "mixture, None known"
# Not a system either: each post or pair answered by the expert that holds its gold most probable. No gate over the same
# experts that trusts one of them can know more.
MIXTURE_BEST = "mixture, best expert known"
# Evidence read only where the first expert without any is less sure than this (`Mixture.selective`).
CERTAINTY = 0.9
MIXTURE_SELECTIVE = f"mixture, certainty {CERTAINTY}"

# Mentions as expected F1 asks for them in place of those of the best legal path (`models.decoding.decode_spans`).
FOR_F1 = "spans for F1"


@dataclass(frozen=True)
class Scaled:
    """Confidences of each case at a temperature that was fitted without it."""

    confidences: list[list[float]]
    temperatures: list[float]


@dataclass(frozen=True)
class Evaluation:
    """One seed on one split. `predictions[variant][n]` and `gold[n]`: spans of a post, or the relation of a pair.

    `gate` [N, M]: the weights of the experts `names` (means over the words where the gate weighs words).
    `confidences[n]`: of the mixture's spans, or of its relation, as its distributions have them; `scaled` is the same
    at a temperature, None where none was fitted.
    """

    task: str
    seed: int
    ids: list[str]
    gold: list[Any]
    predictions: dict[str, list[Any]]
    names: tuple[str, ...]
    gate: Tensor
    confidences: list[list[float]]
    scaled: Scaled | None = None

    def scores(self, variant: str) -> dict[str, Scores]:
        """Per type and `micro`."""
        return (mention_scores if self.task == "ner" else relation_scores)(self.gold, self.predictions[variant])

    def counts(self, variant: str) -> Counts:
        """[N, 3] right, guessed, gold."""
        return (mention_counts if self.task == "ner" else relation_counts)(self.gold, self.predictions[variant])

    def base_of(self, variant: str) -> str | None:
        """What a variant is set against: the baseline, decoded alike. None for the baseline itself, or without one."""
        alike = f"{BASELINE}, {FOR_F1}"
        base = alike if variant.endswith(FOR_F1) and variant != alike and alike in self.predictions else BASELINE
        return base if base in self.predictions and variant != base else None

    def flips(self, variant: str) -> tuple[int, int] | None:
        """(spoilt, mended): gold answers the baseline has right and the variant wrong, and the other way round.

        Answers are gold mentions, or the labels of pairs, `None` among them. None where `base_of` is.
        """
        if (base := self.base_of(variant)) is None:
            return None
        was, now = self.right(base), self.right(variant)
        pairs = list(zip(was, now, strict=True))
        return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)

    def right(self, variant: str) -> list[bool]:
        """Is each gold answer right? Those are the mentions one by one, or the labels of pairs, `None` among them."""
        answers = zip(self.gold, self.predictions[variant], strict=True)
        if self.task == "ner":
            return [span in set(spans) for gold, spans in answers for span in gold]
        return [gold == label for gold, label in answers]

    @property
    def reliability(self) -> Reliability:
        """The mixture's confidences against what is right."""
        return self.reliability_of(self.confidences)

    @property
    def scaled_reliability(self) -> Reliability | None:
        """The same for the confidences at a temperature; None where there are none."""
        return None if self.scaled is None else self.reliability_of(self.scaled.confidences)

    def reliability_of(self, rows: Sequence[Sequence[float]]) -> Reliability:
        """Confidences of each case's answers by the mixture, against what of them is right."""
        confidences = [c for row in rows for c in row]
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
                **_scaled_row(evaluation, n),
                "gate": dict(zip(evaluation.names, [round(w, 4) for w in evaluation.gate[n].tolist()], strict=True)),
            }
            out.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    os.replace(temporary, path)


def _scaled_row(evaluation: Evaluation, n: int) -> dict[str, Any]:
    if evaluation.scaled is None:
        return {}
    confidences = [round(c, 4) for c in evaluation.scaled.confidences[n]]
    return {"confidence_scaled": confidences, "temperature": evaluation.scaled.temperatures[n]}


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
        at_temperature = None
        if "temperature" in rows[0]:
            at_temperature = Scaled([row["confidence_scaled"] for row in rows], [row["temperature"] for row in rows])
        return Evaluation(
            task,
            seed,
            [row["id"] for row in rows],
            [typed(row["gold"]) for row in rows],
            {variant: [typed(row["predicted"][variant]) for row in rows] for variant in rows[0]["predicted"]},
            names,
            torch.tensor([[row["gate"][name] for name in names] for row in rows]),
            [row["confidence"] for row in rows],
            at_temperature,
        )
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zstandard.ZstdError) as problem:
        raise DataFormatError(f"damaged predictions ({problem})", path) from problem


def mean_flips(evaluations: Sequence[Evaluation], variant: str) -> tuple[float, float] | None:
    """Mean flips of a variant over seeds; None for the baseline itself, or where there is none."""
    counts = [flips for e in evaluations if (flips := e.flips(variant)) is not None]
    if not counts:
        return None
    spoilt, mended = np.mean(counts, axis=0).round(1).tolist()
    return spoilt, mended


def mean_gate(evaluations: Sequence[Evaluation]) -> Mapping[str, float]:
    """Mean gate weight of each expert over cases and seeds."""
    stacked = torch.cat([e.gate for e in evaluations])
    return dict(zip(evaluations[0].names, stacked.mean(0).tolist(), strict=True))


def scaled_error(evaluations: Sequence[Evaluation]) -> float | None:
    """Mean over seeds of the calibration error at a temperature; None where a seed has none."""
    bins = [e.scaled_reliability for e in evaluations]
    errors = [b.expected_error for b in bins if b is not None]
    return round(float(np.mean(errors)), 4) if len(errors) == len(evaluations) else None


def mean_temperature(evaluations: Sequence[Evaluation]) -> float | None:
    """Mean temperature over cases and seeds; None where a seed has none."""
    known = [t for e in evaluations if e.scaled is not None for t in e.scaled.temperatures]
    complete = known and all(e.scaled is not None for e in evaluations)
    return round(float(np.mean(known)), 4) if complete else None
