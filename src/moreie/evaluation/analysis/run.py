"""A recipe analysed on a split: from recorded predictions where there are any, else from its trained experts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moreie.evaluation.analysis.breakdown import breakdowns, decided, errors, flips
from moreie.evaluation.analysis.cost import costs
from moreie.evaluation.analysis.figures import (
    Analysis,
    Costs,
    predictions_digest,
    read_analysis,
    write_analysis,
)
from moreie.evaluation.analysis.scored import Scored, known, scored_cases
from moreie.evaluation.predictions import Evaluation
from moreie.evaluation.recompute import load_evaluations
from moreie.evaluation.run import evaluate_seed
from moreie.evaluation.summary import read_summary
from moreie.models.expert import CONFIG_FILE
from moreie.models.mixture import MIXTURE_FILE
from moreie.training.pictures import GatePictures
from moreie.training.recipe import Recipe
from moreie.training.run import seed_folder


def recorded_or_made(results: Path, name: str, recipe: Recipe, split: str) -> list[Evaluation]:
    """The predictions recorded of a recipe on a split; where there are none, those of its trained experts.

    Raises:
        MoreieError: recorded files are damaged; or nothing is recorded and the recipe is not trained.
    """
    for row in read_summary(results):
        if (row.recipe, row.split) == (name, split):
            return load_evaluations(results, row)
    pictures = GatePictures(recipe)
    return [evaluate_seed(recipe, split, seed, pictures) for seed in recipe.seeds]


def analysed(
    name: str, recipe: Recipe, split: str, evaluations: Sequence[Evaluation], scored: Sequence[Scored]
) -> Analysis:
    """All figures; costs only where the experts and their evidence lie at hand.

    Raises:
        DataFormatError: evidence is damaged, or the posts are not those of the predictions.
    """
    return Analysis(
        recipe=name,
        split=split,
        task=recipe.task,
        seeds=tuple(e.seed for e in evaluations),
        made_from=predictions_digest(evaluations),
        errors=errors(evaluations),
        flips=flips(evaluations),
        decided=decided(evaluations),
        breakdowns=breakdowns(evaluations, scored, known(recipe)),
        costs=costs_if_trained(recipe, split),
    )


def costs_if_trained(recipe: Recipe, split: str) -> Costs | None:
    """Of the first seed that is at hand; None where each lacks an expert or the mixture, or evidence is missing."""
    if not all(path.is_file() for path in recipe.splits[split].evidence.values()):
        return None
    parts = (MIXTURE_FILE, *(f"{e.name}/{CONFIG_FILE}" for e in recipe.experts))
    folders = (seed_folder(recipe, seed) for seed in recipe.seeds)
    trained = next((folder for folder in folders if all((folder / part).is_file() for part in parts)), None)
    return costs(recipe, split, trained) if trained else None


def first_scored(recipe: Recipe, split: str, evaluations: Sequence[Evaluation]) -> list[Scored]:
    """The cases of the split; every seed was scored on the same."""
    return scored_cases(recipe, split, evaluations[0].ids, evaluations[0].gold)


def ensure_analysis(results: Path, name: str, recipe: Recipe, split: str) -> Path | None:
    """Write the analysis of recorded predictions; None where that of the same predictions is there already."""
    evaluations = recorded_or_made(results, name, recipe, split)
    there = read_analysis(results, name, split)
    if there is not None and there.made_from == predictions_digest(evaluations):
        return None
    scored = first_scored(recipe, split, evaluations)
    return write_analysis(analysed(name, recipe, split, evaluations, scored), results)
