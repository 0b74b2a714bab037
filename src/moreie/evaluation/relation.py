"""RE scores.

Micro-F1 over the real relations, `None` being no answer, is the paper's and ours. Accuracy over all pairs, `None`
included, stands beside it; most pairs are `None`, so the two must not be compared. `docs/experiments.md` says what lies
between the two regimes in the literature on MNRE (≈ 66 and ≥ 81).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moreie.evaluation.scores import Counts, Scores, micro_scores
from moreie.schema import NO_RELATION


def relation_counts(gold: Sequence[str], predicted: Sequence[str]) -> Counts:
    """[N, 3]: right, guessed, gold relations of each pair, `None` left out."""
    rows = [(a == b != NO_RELATION, b != NO_RELATION, a != NO_RELATION) for a, b in zip(gold, predicted, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def relation_scores(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, Scores]:
    """Scores per relation and, under `micro`, over all of them; `None` left out."""
    counts = relation_counts(gold, predicted)
    scores = {"micro": micro_scores(counts)}
    for label in sorted({*gold, *predicted} - {NO_RELATION}):
        own = np.array([(a == b == label, b == label, a == label) for a, b in zip(gold, predicted, strict=True)])
        scores[label] = micro_scores(own.astype(np.int64))
    return scores


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Share of pairs, `None` included, with the right label, in percent."""
    return 100 * float(np.mean([a == b for a, b in zip(gold, predicted, strict=True)]))
