"""Temperature scaling of a mixture's distributions (Guo et al., *On Calibration of Modern Neural Networks*, 2017).

One number T for all words or pairs: p_T(y) ∝ p(y)^(1/T). The order of the answers, and with it decoding, stays; T > 1
makes an over-confident mixture less sure. The negative log-likelihood is convex in 1/T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moreie.models.crf import IMPOSSIBLE

LOWEST, HIGHEST = 0.05, 20.0


def scaled(log_probabilities: Tensor, temperature: float) -> Tensor:
    """log p_T of log-distributions [..., L]."""
    if temperature == 1:
        return log_probabilities
    return torch.log_softmax(log_probabilities / temperature, dim=-1)


def negative_log_likelihood(log_probabilities: Tensor, gold: Tensor, temperature: float) -> float:
    """Mean over rows of −log p_T(gold) in nats; log-distributions [R, L], gold indices [R]."""
    rows = _finite(log_probabilities)
    return float(-scaled(rows, temperature).gather(1, gold[:, None]).mean())


def fit_temperature(log_probabilities: Tensor, gold: Tensor) -> float:
    """T with the least negative log-likelihood, between 0.05 and 20; 1 where there is nothing to fit on.

    Log-distributions [R, L] and gold indices [R]: a row a word or pair, each counting the same.
    """
    if not len(gold):
        return 1.0
    from scipy.optimize import minimize_scalar  # who only extracts need not wait for it

    rows = _finite(log_probabilities)
    own = rows.gather(1, gold[:, None])[:, 0]

    def loss(log_inverse: float) -> float:
        inverse = math.exp(log_inverse)
        return float((torch.logsumexp(rows * inverse, dim=1) - own * inverse).mean())

    bounds = (-math.log(HIGHEST), -math.log(LOWEST))
    found: Any = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    # Where T hardly matters the search may end a hair above what it was to improve on.
    return round(math.exp(-float(found.x)), 4) if found.fun < loss(0.0) else 1.0


def fit_on_cases(log_probabilities: Sequence[Tensor], gold: Sequence[Tensor]) -> float:
    """The same from distributions [T, L] or [C] of each case, and indices [T] or [1]."""
    if not gold:
        return 1.0
    rows = torch.cat([p.reshape(-1, p.shape[-1]) for p in log_probabilities])
    return fit_temperature(rows, torch.cat(list(gold)))


def _finite(log_probabilities: Tensor) -> Tensor:
    """In double precision, with what is impossible as the CRF writes it, so that no loss is infinite."""
    return log_probabilities.double().clamp_min(IMPOSSIBLE)
