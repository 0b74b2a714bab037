"""The temperature and the threshold of a mixture, fitted on the validation split behind the gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from moreie.models.decoding import f1_threshold
from moreie.models.gate import fold_numbers
from moreie.models.limits import LOWEST_THRESHOLD
from moreie.models.mixture import Mixture
from moreie.models.tagset import TagSet
from moreie.models.temperature import fit_on_cases
from moreie.training.gate import GateData, unseen_log_weights
from moreie.training.recipe import Recipe


def calibrated(recipe: Recipe, mixture: Mixture[Any], data: GateData) -> Mixture[Any]:
    """The mixture with a temperature, and for NER a threshold, that suit posts its gate has not seen.

    `data` of the validation split. A gate that was fitted there is too sure of it: its weights are cross-validated. No
    threshold where no mention is right.
    """
    log_weights = unseen_log_weights(recipe, data, mixture.gate, fitted_here=recipe.gate.from_validation)
    mixed = data.outputs.mix(log_weights)
    mixture = mixture.at_temperature(fit_on_cases(mixed, data.targets))
    if recipe.task != "ner":
        return mixture
    tagset = TagSet(mixture.labels)
    threshold = f1_threshold(tagset, mixed, [tagset.spans(gold.tolist()) for gold in data.targets])
    return mixture.at_threshold(max(threshold, LOWEST_THRESHOLD)) if threshold else mixture


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
