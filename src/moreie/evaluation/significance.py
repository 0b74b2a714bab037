"""Is one system better than another on the same cases, or was it luck?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

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
    if ours.shape != theirs.shape or (ours[:, 2] != theirs[:, 2]).any():
        raise MoreieError("the two systems were not scored on the same cases")
    if (ours == theirs).all():
        return 1.0
    table = np.concatenate([ours, theirs])

    def difference(a: NDArray[np.int64], b: NDArray[np.int64], axis: int) -> Any:
        return _f1(table[a], axis) - _f1(table[b], axis)

    # What is permuted are row numbers of the table: the library knows of one value a case, not of three.
    rows = np.arange(len(ours))
    result = permutation_test(
        (rows, rows + len(ours)),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=500,
        axis=0,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _f1(counts: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
    sums = counts.sum(axis=axis if axis >= 0 else axis - 1)
    scores: NDArray[np.float64] = 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)
    return scores
