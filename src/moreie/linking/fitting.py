"""Weights fitted to links whose targets are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from moreie.errors import MoreieError
from moreie.linking.features import ARTICLE, NIL
from moreie.linking.model import LinkingWeights

# Strength of the Gaussian prior on the weights, in examples.
PRIOR = 1.0


@dataclass(frozen=True, slots=True)
class Example:
    """One mention: features of its C candidates [C, F] and of none of them [G], and the place of the right one; C where
    none is right."""

    articles: NDArray[np.float64]
    nil: NDArray[np.float64]
    right: int


def fit_weights(examples: Sequence[Example]) -> LinkingWeights:
    """Weights of the greatest likelihood of the right answers, with a weak prior, none of a candidate's below 0; the
    threshold is 0.

    Raises:
        MoreieError: there are no examples with a candidate.
    """
    examples = [e for e in examples if len(e.articles)]
    if not examples:
        raise MoreieError("no links with candidates to fit weights to")
    rows = np.concatenate([e.articles for e in examples])
    nils = np.stack([e.nil for e in examples])
    sizes = np.array([len(e.articles) for e in examples])
    owner = np.repeat(np.arange(len(examples)), sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    isnil = np.array([e.right == len(e.articles) for e in examples])
    rights = np.array([s + e.right for s, e in zip(starts, examples, strict=True)])[~isnil]
    split = len(ARTICLE)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores, none = rows @ weights[:split], nils @ weights[split:]
        top = np.maximum(np.maximum.reduceat(scores, starts), none)
        powers, none_powers = np.exp(scores - top[owner]), np.exp(none - top)
        total = np.bincount(owner, powers) + none_powers
        value = (np.log(total) + top).sum() - scores[rights].sum() - none[isnil].sum()
        gradient = np.concatenate(
            [
                (powers / total[owner]) @ rows - rows[rights].sum(0),
                (none_powers / total) @ nils - nils[isnil].sum(0),
            ]
        )
        return float(value + PRIOR / 2 * weights @ weights), gradient + PRIOR * weights

    bounds = [(0, None)] * split + [(None, None)] * len(NIL)
    start = np.zeros(split + len(NIL))
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1_000}).x
    return LinkingWeights(
        article=dict(zip(ARTICLE, best[:split].tolist(), strict=True)),
        nil=dict(zip(NIL, best[split:].tolist(), strict=True)),
        threshold=0.0,
    )


def best_threshold(weights: LinkingWeights, examples: Sequence[Example]) -> float:
    """The probability from which on the likeliest article is to be the answer, so that most answers are right."""
    outcomes = []
    for example in examples:
        if len(example.articles):
            sure = weights.probabilities(example.articles, example.nil)[:-1]
            outcomes.append((float(sure.max()), int(sure.argmax()) == example.right, example.right == len(sure)))
    thresholds = np.linspace(0.05, 0.95, 91)
    right = [sum(hit if p >= t else none for p, hit, none in outcomes) for t in thresholds]
    return float(round(thresholds[int(np.argmax(right))], 2))
