"""Does a confidence of 0.8 mean right four times in five?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Reliability:
    """Equally wide bins of confidence [B]: answers in each, their summed confidence, and how many are right."""

    size: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Mean distance of confidence and accuracy over the bins, weighted by their size (Guo et al., 2017)."""
        total = self.size.sum()
        return float(np.abs(self.confidence - self.right).sum() / total) if total else 0.0


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = 15) -> Reliability:
    """Answers sorted into bins by their confidence."""
    p, hit = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    place = np.minimum((p * bins).astype(int), bins - 1)
    size = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values, bins).astype(np.float64) for values in (p, hit)]
    return Reliability(size, *sums)


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """See `Reliability.expected_error`; 0 where there are no answers."""
    return reliability(confidences, right, bins).expected_error
