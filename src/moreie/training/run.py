"""A recipe carried out: every expert, then the gate, for every seed. What is already trained is kept."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moreie.models.expert import CONFIG_FILE
from moreie.models.outputs import ExpertOutputs, joined, load_outputs, run_experts, save_outputs
from moreie.training import configuration
from moreie.training.data import (
    Split,
    cases,
    hold_out,
    joined_splits,
    load_split,
    missing_reversed_none,
    recipe_labels,
    text_folds,
    with_swapped_none,
    within_limit,
)
from moreie.training.experts import check_experts, load_experts, train_experts
from moreie.training.gate import GateData, fit_mixture, fitted_gate, gate_data
from moreie.training.joint import joint_examples, train_jointly
from moreie.training.kept import take_over
from moreie.training.pictures import GatePictures
from moreie.training.recipe import Joint, Recipe
from moreie.training.temperature import with_temperature
from moreie.training.trainer import CHECKPOINTS

log = logging.getLogger(__name__)
OUTPUTS_FILE, FOLDS, JOINT = "outputs.safetensors", "folds", "joint"


def seed_folder(recipe: Recipe, seed: int) -> Path:
    return recipe.output / f"seed-{seed}"


def train_recipe(recipe: Recipe, say: Callable[[str], None] = log.info, pictures: GatePictures | None = None) -> None:
    """Train all experts and the gate of a recipe; called again after a stop, it goes on where it stopped.

    An expert that is there is kept if nothing it depends on has changed, and one that another run beside this one has
    trained is copied (`kept.take_over`); the gate is always fitted anew. `pictures` remembers embedded pictures between
    runs.

    Raises:
        RecipeError: an expert that is there depends on other settings, evidence or posts than the recipe says; one has
            typed markers and no mention a type; one scores spans, and a training mention is longer than any of
            them; the gate is to read pictures, and there are none.
        CheckpointError: the model that gives mentions their types is not there or damaged.
    """
    train = load_split(recipe.data.train, mention_types=recipe.data.mention_types)
    validation = load_split(recipe.data.validation, mention_types=recipe.data.mention_types)
    check_experts(recipe, train)
    labels = recipe_labels(recipe, train)
    fit, gate_split = hold_out(train, recipe.gate.held_out) if recipe.gate.held_out else (train, validation)
    pictures = pictures or GatePictures(recipe)
    learned = with_swapped_none(fit.posts) if recipe.swapped_none else fit.posts
    reversed_none = missing_reversed_none(learned) if recipe.task == "re" else 0.0
    for seed in recipe.seeds:
        folder = seed_folder(recipe, seed)
        take_over(recipe, seed, folder, say)
        train_experts(recipe, recipe.experts, labels, fit, validation, seed, folder, say)
        experts = load_experts(recipe, folder, recipe.members)
        own, outputs = gate_split, None
        if recipe.gate.cross_fit and len(experts) > 1:
            own, outputs = _out_of_fold(recipe, labels, train, validation, seed, folder, say)
        data = gate_data(recipe, experts, own, outputs, pictures)
        if (joint := recipe.gate.joint) and trained_together(recipe):
            experts = _train_together(recipe, joint, experts, data, fit, seed, folder, pictures, say)
            data = gate_data(recipe, experts, own, pictures=pictures)
        mixture, penalty = fit_mixture(recipe, experts, data, reversed_none)
        held = data if recipe.gate.from_validation else gate_data(recipe, experts, validation, pictures=pictures)
        mixture = with_temperature(recipe, mixture, held)
        place = f"{JOINT}/" if trained_together(recipe) else ""
        mixture.save_spec(folder, [f"{place}{name}" for name in recipe.members], {})
        configuration.write(folder, configuration.configuration(recipe))
        say(
            f"{folder}: mixture of {', '.join(recipe.members)} (gate penalty {penalty:g}, "
            f"temperature {mixture.temperature:g})"
        )


def _train_together(
    recipe: Recipe,
    joint: Joint,
    experts: Sequence[Any],
    data: GateData,
    train: Split,
    seed: int,
    folder: Path,
    pictures: GatePictures,
    say: Callable[[str], None],
) -> list[Any]:
    """The experts of the mixture gone on together, from those trained alone; kept where they are there already.

    `data`: what the experts trained alone say of the posts that the gate is fitted on.
    """
    target = folder / JOINT
    configuration.claim(target, configuration.joint_configuration(recipe))
    done = all((target / name / CONFIG_FILE).exists() for name in recipe.members)
    if done and not (target / CHECKPOINTS).exists():
        say(f"{target}: trained before, kept")
    else:
        gate, _ = fitted_gate(recipe, data)
        examples = joint_examples(recipe.task, experts, train, gate_data(recipe, experts, train, pictures=pictures))
        train_jointly(experts, gate, examples, joint, target, seed)
        say(f"{target}: {', '.join(recipe.members)} trained together")
    return mixture_experts(recipe, folder)


def _out_of_fold(
    recipe: Recipe,
    labels: tuple[str, ...],
    train: Split,
    validation: Split,
    seed: int,
    folder: Path,
    say: Callable[[str], None],
) -> tuple[Split, ExpertOutputs]:
    """The training posts fold by fold, and what experts say of each fold that were trained on the other folds.

    What they said is kept under `folder/folds`; they themselves are deleted then, for whole encoders fill a disk.
    """
    splits, spoken = [], []
    current = {e.name: configuration.expert_configuration(recipe, e) for e in recipe.lineage}
    if configuration.read(folder / FOLDS) not in (None, current):
        say(f"{folder / FOLDS}: of other experts, made anew")
        shutil.rmtree(folder / FOLDS)
    configuration.write(folder / FOLDS, current)
    for place, (rest, own) in enumerate(text_folds(train, recipe.gate.folds), 1):
        fold = folder / FOLDS / f"{place}-of-{recipe.gate.folds}"
        outputs = load_outputs(fold / OUTPUTS_FILE) if (fold / OUTPUTS_FILE).exists() else None
        if outputs is None or outputs.names != recipe.members:
            train_experts(recipe, recipe.lineage, labels, rest, validation, seed, fold, say)
            experts = load_experts(recipe, fold, recipe.members)
            task_cases, evidence, _ = cases(recipe.task, within_limit(own, experts[0].encoder))
            outputs = run_experts(experts, task_cases, evidence)
            save_outputs(outputs, fold / OUTPUTS_FILE)
        for expert in recipe.lineage:
            shutil.rmtree(fold / expert.name, ignore_errors=True)
        splits.append(own)
        spoken.append(outputs)
    return joined_splits(splits), joined(spoken)


def trained_together(recipe: Recipe) -> bool:
    """Are the mixture's experts others than those trained alone?"""
    return recipe.gate.joint is not None and len(recipe.members) > 1


def mixture_experts(recipe: Recipe, folder: Path) -> list[Any]:
    """The experts that the mixture's gate weighs, in the order of the recipe.

    Raises:
        MoreieError: an expert has not been trained yet.
    """
    return load_experts(recipe, folder / JOINT if trained_together(recipe) else folder, recipe.members)
