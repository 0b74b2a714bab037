"""The temperature of a mixture's confidences, fitted on the validation split behind the gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from moreie.models.gate import fold_numbers
from moreie.models.mixture import Mixture
from moreie.models.temperature import fit_on_cases
from moreie.training.gate import GateData, unseen_log_weights
from moreie.training.recipe import Recipe


def with_temperature(recipe: Recipe, mixture: Mixture[Any], data: GateData) -> Mixture[Any]:
    """The mixture with a temperature that suits posts its gate has not seen; `data` of the validation split.

    A gate that was fitted on the validation split is too sure of it: there the weights are cross-validated.
    """
    log_weights = unseen_log_weights(recipe, data, mixture.gate, fitted_here=recipe.gate.from_validation)
    temperature = fit_on_cases(data.outputs.mix(log_weights), data.targets)
    return mixture.at_temperature(temperature)


def cross_validated_temperatures(recipe: Recipe, data: GateData, mixed: Sequence[Tensor]) -> list[float]:
    """For each case the temperature fitted without its fold; the folds are those of the gate, posts of a text in one.

    `mixed`: the mixture's log-distributions on the validation split, of weights that are cross-validated themselves.
    """
    fold = fold_numbers(data.case_groups, recipe.gate.folds)
    fitted = {}
    for own in set(fold.tolist()):
        others = np.flatnonzero(fold != own).tolist()
        fitted[own] = fit_on_cases([mixed[n] for n in others], [data.targets[n] for n in others])
    return [fitted[own] for own in fold.tolist()]
