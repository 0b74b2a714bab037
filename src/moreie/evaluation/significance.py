"""Is one system better than another on the same cases, or was it luck?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, permutation_test

from moreie.errors import MoreieError
from moreie.evaluation.scores import Counts

RESAMPLES = 9_999


def paired_randomisation(ours: Counts, theirs: Counts, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value for the difference of micro-F1 under swaps of the two systems' answers case by case.

    Approximate randomisation (Noreen, 1989; Yeh, 2000), by `scipy.stats.permutation_test`. `ours` and `theirs`
    [N, 3] hold right, guessed, gold; with several seeds they are the sums over the seeds, so that a case's answers
    are swapped together.

    Raises:
        MoreieError: the two do not score the same cases.
    """
    _same_cases(ours, theirs)
    own, change = ours.sum(0), (theirs - ours).astype(np.float64)
    total = own + theirs.sum(0)
    change = change[change.any(1)]  # a swap of equal answers changes nothing
    if len(change) < 2:
        return 1.0  # swapped, the only answer that differs is as far from 0

    def difference(a: NDArray[np.int64], b: NDArray[np.int64], axis: int) -> Any:
        swapped = np.moveaxis(a, axis, -1) >= len(change)
        sums = own + swapped @ change
        return _f1(sums) - _f1(total - sums)

    # What is permuted are row numbers, ours before theirs: the library knows of one value a case, not of three.
    rows = np.arange(len(change))
    result = permutation_test(
        (rows, rows + len(change)),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=500,
        axis=0,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


@dataclass(frozen=True, slots=True)
class Gain:
    """Two-sided p-value of a difference in F1, and its 95 % interval in points of F1."""

    p_value: float
    low: float
    high: float


def paired_bootstrap(
    ours: Sequence[Counts], theirs: Sequence[Counts], *, resamples: int = RESAMPLES, seed: int = 0
) -> Gain:
    """The difference of mean micro-F1 when both the seeds and the cases are drawn again, by `scipy.stats.bootstrap`.

    `ours[s]` and `theirs[s]` [N, 3] are one seed's counts. Every resample draws S seeds and N cases with replacement,
    the same for both systems; the interval is the percentile one, the p-value the level at which it reaches 0.

    Raises:
        MoreieError: the two do not score the same cases.
    """
    for a, b in zip(ours, theirs, strict=True):
        _same_cases(a, b)
    table = np.stack([np.stack(ours), np.stack(theirs)])  # [2, S, N, 3]
    systems, seeds, cases, _ = table.shape
    flat = table.transpose(2, 0, 1, 3).reshape(cases, -1).astype(np.float64)

    def difference(drawn_seeds: NDArray[np.int64], drawn: NDArray[np.int64], axis: int) -> Any:
        # How often each case was drawn, times its counts: much faster than to gather the counts.
        rows = np.atleast_2d(drawn)
        places = rows + cases * np.arange(len(rows))[:, None]
        times = np.bincount(places.ravel(), minlength=len(rows) * cases).reshape(len(rows), cases)
        sums = (times @ flat).reshape(*drawn.shape[:-1], systems, seeds, 3)
        f1 = 100 * _f1(sums)
        gains = f1[..., 0, :] - f1[..., 1, :]
        return np.take_along_axis(gains, drawn_seeds, axis=-1).mean(axis=-1)

    result = bootstrap(
        (np.arange(seeds), np.arange(cases)),
        difference,
        n_resamples=resamples,
        batch=500,
        vectorized=True,
        axis=-1,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    drawn = result.bootstrap_distribution
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    interval = result.confidence_interval
    return Gain(min(1.0, 2 * float(tail + 1) / (resamples + 1)), float(interval.low), float(interval.high))


def _same_cases(ours: Counts, theirs: Counts) -> None:
    if ours.shape != theirs.shape or (ours[:, 2] != theirs[:, 2]).any():
        raise MoreieError("the two systems were not scored on the same cases")


def _f1(sums: NDArray[Any]) -> NDArray[np.float64]:
    """Micro-F1 as a share of summed counts [..., 3]."""
    scores: NDArray[np.float64] = 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)
    return scores
