"""What is taken for what: confusion matrices of spans and of relations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moreie.models.tagset import Span

SPURIOUS, MISSED = "spurious", "missed"


@dataclass(frozen=True, slots=True)
class Confusion:
    """`counts` [R, C]: answers whose gold is `gold[r]` and that were called `predicted[c]`."""

    gold: tuple[str, ...]
    predicted: tuple[str, ...]
    counts: NDArray[np.int64]


def mention_confusion(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]) -> Confusion:
    """Types of spans with the very same words; a span that only one side has is missed, or spurious.

    A mention found with a wrong boundary is thus one that is missed and one that is spurious.
    """
    pairs = []
    for ours, theirs in zip(gold, predicted, strict=True):
        right = {(first, last): type for type, first, last in ours}
        guess = {(first, last): type for type, first, last in theirs}
        pairs += [(right.get(span, SPURIOUS), guess.get(span, MISSED)) for span in {**right, **guess}]
    types = sorted({label for pair in pairs for label in pair} - {SPURIOUS, MISSED})
    return _count(pairs, (*types, SPURIOUS), (*types, MISSED))


def relation_confusion(gold: Sequence[str], predicted: Sequence[str]) -> Confusion:
    """Relations, `None` among them."""
    labels = tuple(sorted({*gold, *predicted}))
    return _count(list(zip(gold, predicted, strict=True)), labels, labels)


def _count(pairs: Sequence[tuple[str, str]], rows: tuple[str, ...], columns: tuple[str, ...]) -> Confusion:
    counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for right, guess in pairs:
        counts[rows.index(right), columns.index(guess)] += 1
    return Confusion(rows, columns, counts)
