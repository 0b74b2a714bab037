"""A conditional logit over a mention's candidates and none of them, its weights shipped as JSON.

With f(c) the features of candidate c and g those of the mention, p(c) = exp(w·f(c)) / Z and p(none) = exp(v·g) / Z.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moreie.errors import MoreieError
from moreie.linking.features import ARTICLE, NIL

SHIPPED_WEIGHTS = Path(__file__).with_name("weights.json")


class LinkingWeights(BaseModel):
    """Weights by feature, the probability below which an article is not the answer, and how they were made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    article: dict[str, float]
    nil: dict[str, float]
    threshold: float = Field(ge=0, le=1)
    made: dict[str, str | int | float] = {}

    @field_validator("article", "nil")
    @classmethod
    def _complete(cls, weights: dict[str, float], about: object) -> dict[str, float]:
        wanted = ARTICLE if getattr(about, "field_name", "") == "article" else NIL
        if set(weights) != set(wanted):
            raise ValueError(f"weights are needed for {', '.join(wanted)}, not for {', '.join(weights)}")
        return weights

    @classmethod
    def read(cls, path: Path = SHIPPED_WEIGHTS) -> LinkingWeights:
        """Raises `MoreieError` where the file is absent or holds no such weights."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as problem:
            said = problem.errors()[0]["msg"] if isinstance(problem, ValidationError) else problem.strerror
            raise MoreieError(f"{path}: no weights for linking ({said})") from problem

    def probabilities(self, articles: NDArray[np.float64], nil: NDArray[np.float64]) -> NDArray[np.float64]:
        """[C + 1]: of each candidate (rows of [C, F]), and last of none (features [G])."""
        scores = np.append(articles @ [self.article[n] for n in ARTICLE], nil @ [self.nil[n] for n in NIL])
        powers: NDArray[np.float64] = np.exp(scores - scores.max())
        shares: NDArray[np.float64] = powers / powers.sum()
        return shares
