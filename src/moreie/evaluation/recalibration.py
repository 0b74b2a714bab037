"""A temperature for a mixture that is there already, fitted on posts with gold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moreie.encoders.precision import default_device
from moreie.errors import RecipeError
from moreie.evaluation.predictions import MIXTURE, Evaluation
from moreie.evaluation.run import answers_of, confidences_of
from moreie.models.expert import EncoderPool
from moreie.models.folder import EXTRACTOR_FILE, read_extractor_spec
from moreie.models.mixture import load_mixture, save_temperature
from moreie.models.outputs import mean_weights
from moreie.models.temperature import fit_on_cases, scaled
from moreie.shipped import SHIPPED
from moreie.training.data import cases, load_split, within_limit
from moreie.training.gate import gate_data, unseen_log_weights
from moreie.training.recipe import Recipe
from moreie.training.temperature import cross_validated_temperatures


@dataclass(frozen=True)
class Recalibration:
    """The temperature of the mixture in `folder`, before (None: none was fitted) and after.

    Expected calibration errors on the posts: `error` at temperature 1, `scaled_error` at temperatures that have not
    seen their post.
    """

    folder: Path
    before: float | None
    after: float
    error: float
    scaled_error: float


def mixture_folder(model: Path, task: Literal["ner", "re"]) -> Path:
    """Where a model folder keeps its mixture of a task; the folder itself where it is a run of `moreie train`.

    Raises:
        CheckpointError: it is neither.
        RecipeError: the model has no mixture of that task, or none of its own.
    """
    if not (model / EXTRACTOR_FILE).is_file():
        return model
    spec = read_extractor_spec(model)
    if task == "re" and spec.relations is None:
        raise RecipeError(f"{model}: finds no relations, and the recipe is one of relations")
    place = spec.place(task, model)
    if place.is_relative_to(SHIPPED.resolve()) and not model.resolve().is_relative_to(SHIPPED.resolve()):
        raise RecipeError(f"{model}: its {task} mixture is the package's own, which other models use, too")
    return place


def recalibrated(recipe: Recipe, folder: Path) -> Recalibration:
    """Fit the temperature of the mixture in `folder` on the validation split of a recipe, and save it there.

    The posts, their evidence and whether the gate was fitted on these very posts (`gate.held_out`) are the recipe's;
    experts and gate are the folder's. Answers stay as they are, confidences change.

    Raises:
        RecipeError: the mixture is one of other experts, or of another task, than the recipe's.
        CheckpointError: there is no mixture.
    """
    mixture = load_mixture(folder, EncoderPool(default_device()))
    first = mixture.experts[0]
    if first.spec.task != recipe.task or mixture.names != recipe.members:
        raise RecipeError(
            f"{folder}: a mixture of {', '.join(mixture.names)} ({first.spec.task}), but the recipe's is of "
            f"{', '.join(recipe.members)} ({recipe.task}): give the recipe it was trained by"
        )
    split = within_limit(load_split(recipe.data.validation, mention_types=recipe.data.mention_types), first.encoder)
    data = gate_data(recipe, mixture.experts, split)
    task_cases, _, gold = cases(recipe.task, split)
    log_weights = unseen_log_weights(recipe, data, mixture.gate, fitted_here=recipe.gate.from_validation)
    mixed = data.outputs.mix(log_weights)
    after = fit_on_cases(mixed, data.targets)
    unseen = cross_validated_temperatures(recipe, data, mixed)
    softened = [scaled(p, t) for p, t in zip(mixed, unseen, strict=True)]
    answers = answers_of(first, mixed)
    confidences = confidences_of(first, answers, mixed)
    evaluation = Evaluation(
        recipe.task,
        0,
        [first.post_of(case).id for case in task_cases],
        gold,
        {MIXTURE: answers},
        mixture.names,
        mean_weights(log_weights, len(mixture.names)),
        confidences,
    )
    error = evaluation.calibration_error
    scaled_error = evaluation.reliability_of(confidences_of(first, answers, softened)).expected_error
    scores = {"calibration_error": round(error, 4), "calibration_error_scaled": round(scaled_error, 4)}
    save_temperature(folder, after, scores)
    return Recalibration(folder, mixture.fitted_temperature, after, error, scaled_error)
