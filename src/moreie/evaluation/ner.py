"""NER scores: a mention counts when span and type are exactly right, as `seqeval` counts by default."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moreie.evaluation.scores import Counts, Scores, micro_scores
from moreie.models.tagset import Span


def mention_counts(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]) -> Counts:
    """[N, 3]: right, guessed, gold mentions of each post."""
    return np.array(
        [(len(set(a) & set(b)), len(set(b)), len(set(a))) for a, b in zip(gold, predicted, strict=True)],
        dtype=np.int64,
    ).reshape(-1, 3)


def mention_scores(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]) -> dict[str, Scores]:
    """Scores per type and, under `micro`, over all."""
    types = sorted({span[0] for rows in (gold, predicted) for row in rows for span in row})
    scores = {"micro": micro_scores(mention_counts(gold, predicted))}
    for type in types:
        own = [[[s for s in row if s[0] == type] for row in rows] for rows in (gold, predicted)]
        scores[type] = micro_scores(mention_counts(*own))
    return scores
