"""Scores bucket by bucket, errors by category and what evidence decides, as means over seeds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moreie.evaluation.analysis.dimensions import Dimension, decides, dimensions
from moreie.evaluation.analysis.errors import Category, Item, category_counts, flip_counts, judge
from moreie.evaluation.analysis.figures import Breakdown, Bucket, BucketScores, Decided, Flip
from moreie.evaluation.analysis.scored import Known, Scored
from moreie.evaluation.predictions import BASELINE, MEAN, MIXTURE, MIXTURE_PER_POSITION, Evaluation
from moreie.evaluation.scores import micro_scores
from moreie.schema import NO_RELATION


def variants(evaluation: Evaluation) -> list[str]:
    """Every expert and the mixture, without the ablations."""
    return [v for v in evaluation.predictions if ", " not in v and v not in (MEAN, MIXTURE_PER_POSITION)]


def bucket_counts(
    gold: Sequence[Sequence[Item]], predicted: Sequence[Sequence[Item]], dimension: Dimension
) -> dict[str, tuple[int, int, int]]:
    """Right, guessed and gold items of each bucket; over all buckets they add up to those of the split."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for n, (ours, theirs) in enumerate(zip(gold, predicted, strict=True)):
        for place, items in enumerate((set(ours) & set(theirs), set(theirs), set(ours))):
            for item in items:
                counts[dimension.place(n, item)][place] += 1
    return {name: (own[0], own[1], own[2]) for name, own in counts.items()}


def breakdowns(evaluations: Sequence[Evaluation], scored: Sequence[Scored], known: Known) -> tuple[Breakdown, ...]:
    """Every dimension; a seed counts in the mean of a bucket where it has gold items there."""
    seeds = []
    for evaluation in evaluations:
        gold = _items(evaluation.gold)
        tables = {}
        for dimension in dimensions(evaluation, scored, known):
            own = {v: bucket_counts(gold, _items(evaluation.predictions[v]), dimension) for v in variants(evaluation)}
            tables[dimension.name] = dimension.buckets, own
        seeds.append(tables)
    found = []
    for name, (order, _) in seeds[0].items():
        rows = [_bucket(bucket, [tables[name][1] for tables in seeds]) for bucket in order]
        found.append(Breakdown(name=name, buckets=tuple(row for row in rows if row is not None)))
    return tuple(found)


def _bucket(name: str, seeds: Sequence[Mapping[str, Mapping[str, tuple[int, int, int]]]]) -> Bucket | None:
    scores: dict[str, BucketScores] = {}
    support = 0.0
    for variant in seeds[0]:
        counts = [seed[variant].get(name, (0, 0, 0)) for seed in seeds]
        support = float(np.mean([gold for _, _, gold in counts]))
        own = [micro_scores(np.array([c])) for c in counts if c[2]]
        if own:
            scores[variant] = BucketScores(
                precision=_mean([s.precision for s in own]),
                recall=_mean([s.recall for s in own]),
                f1=_mean([s.f1 for s in own]),
            )
    return Bucket(name=name, support=round(support, 1), scores=scores) if scores else None


def errors(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """Counts of each category by variant."""
    found = {}
    for variant in variants(evaluations[0]):
        counts = [category_counts(judge(e.task, e.gold, e.predictions[variant])) for e in evaluations]
        found[variant] = {category.value: _mean([c[category] for c in counts], 1) for category in Category}
    return found


def flips(evaluations: Sequence[Evaluation]) -> tuple[Flip, ...]:
    """From the baseline to the mixture; none where there is no baseline."""
    total: Counter[tuple[str, str]] = Counter()
    for e in evaluations:
        if BASELINE in e.predictions:
            was, now = (judge(e.task, e.gold, e.predictions[v]) for v in (BASELINE, MIXTURE))
            total += flip_counts(was, now)
    return tuple(
        Flip(before=a, after=b, count=round(count / len(evaluations), 1)) for (a, b), count in sorted(total.items())
    )


def decided(evaluations: Sequence[Evaluation]) -> tuple[Decided, ...]:
    """Each evidence expert of the mixture against the baseline."""
    first = evaluations[0]
    if BASELINE not in first.predictions:
        return ()
    found = []
    for expert in (name for name in first.names if name != BASELINE):
        rows = np.mean([_decided(e, expert) for e in evaluations], axis=0).round(1).tolist()
        names = ("mended", "mended_cases", "spoilt", "spoilt_cases", "alone", "kept")
        found.append(Decided(expert=expert, **dict(zip(names, rows, strict=True))))
    return tuple(found)


def _decided(evaluation: Evaluation, expert: str) -> tuple[int, ...]:
    names = {BASELINE, MIXTURE, *evaluation.names}
    judged = {v: judge(evaluation.task, evaluation.gold, evaluation.predictions[v]) for v in names}
    pairs = [decides(a, b) for a, b in zip(judged[BASELINE], judged[expert], strict=True)]
    alone = kept = 0
    others = [judged[v] for v in evaluation.names if v not in (BASELINE, expert)]
    for n, own in enumerate(judged[expert]):
        for place, (_, category) in enumerate(own.gold):
            if category is Category.right and judged[BASELINE][n].gold[place][1] is not Category.right:
                alone += all(other[n].gold[place][1] is not Category.right for other in others)
                kept += judged[MIXTURE][n].gold[place][1] is Category.right
    return (
        sum(m for _, m in pairs),
        sum(m > 0 for _, m in pairs),
        sum(s for s, _ in pairs),
        sum(s > 0 for s, _ in pairs),
        alone,
        kept,
    )


def _items(answers: Sequence[Any]) -> list[list[Item]]:
    """Spans as they are; a relation as the one item of its pair, `None` as no item."""
    return [[] if a == NO_RELATION else [a] if isinstance(a, str) else a for a in answers]


def _mean(values: Sequence[float], digits: int = 2) -> float:
    return round(float(np.mean(values)), digits)
