"""Precision, recall and F1 from counts; the arithmetic that both tasks share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""[N, 3]: right, guessed, gold of each case."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Percentages, micro-averaged; 0 where a denominator is 0 (as `seqeval` and `scikit-learn` do)."""

    precision: float
    recall: float
    f1: float
    support: int


def micro_scores(counts: Counts) -> Scores:
    """Micro-averaged scores of per-case counts [N, 3]."""
    right, guessed, gold = (int(x) for x in np.asarray(counts).reshape(-1, 3).sum(0))
    precision = 100 * right / guessed if guessed else 0.0
    recall = 100 * right / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return Scores(precision, recall, f1, gold)
