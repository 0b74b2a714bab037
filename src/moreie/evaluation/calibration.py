"""Does a confidence of 0.8 mean right four times in five?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over equally wide bins, weighted by their size (Guo et al., 2017)."""
    if not len(confidences):
        return 0.0
    p, hit = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    place = np.minimum((p * bins).astype(int), bins - 1)
    size = np.bincount(place, minlength=bins)
    gaps = np.abs(np.bincount(place, p, bins) - np.bincount(place, hit, bins))
    return float(gaps.sum() / size.sum())
