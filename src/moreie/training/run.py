"""A recipe carried out: every expert, then the gates, for every seed. What is already trained is kept."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moreie.models.outputs import ExpertOutputs, joined, load_outputs, save_outputs
from moreie.training import configuration
from moreie.training.data import (
    Split,
    hold_out,
    joined_splits,
    load_split,
    missing_reversed_none,
    recipe_labels,
    text_folds,
    with_swapped_none,
)
from moreie.training.experts import check_experts, load_experts, train_experts
from moreie.training.gate import GateData, expert_outputs, fit_mixture, fitted_gate, gate_data
from moreie.training.joint import joint_examples, train_jointly
from moreie.training.kept import GATES, JOINT, are_trained_together, take_over, take_over_joint
from moreie.training.pictures import GatePictures
from moreie.training.recipe import Joint, Recipe
from moreie.training.temperature import calibrated

log = logging.getLogger(__name__)
OUTPUTS_FILE, FOLDS = "outputs.safetensors", "folds"


def seed_folder(recipe: Recipe, seed: int) -> Path:
    return recipe.output / f"seed-{seed}"


def gate_folder(folder: Path, name: str) -> Path:
    """Where the mixture under another gate than the recipe's own lies in a seed's `folder`."""
    return folder / GATES / name


@dataclass(frozen=True)
class _Seed:
    """One seed of a recipe. `learned`: the training posts that experts learn from; `gate_posts`: those that a gate
    learns from which is not cross-fitted."""

    seed: int
    folder: Path
    labels: tuple[str, ...]
    train: Split
    learned: Split
    gate_posts: Split
    validation: Split
    reversed_none: float
    say: Callable[[str], None]


def train_recipe(recipe: Recipe, say: Callable[[str], None] = log.info, pictures: GatePictures | None = None) -> None:
    """Train all experts and the gates of a recipe; called again after a stop, it goes on where it stopped.

    An expert that is there is kept if nothing it depends on has changed, and one that another run beside this one has
    trained, alone or together with others, is copied (`kept`); gates are always fitted anew. `pictures` remembers
    embedded pictures between runs.

    Raises:
        RecipeError: an expert that is there depends on other settings, evidence or posts than the recipe says; one has
            typed markers and no mention a type; one scores spans, and a training mention is longer than any of
            them; a gate is to read pictures, and there are none.
        CheckpointError: the model that gives mentions their types is not there or damaged.
    """
    train = load_split(recipe.data.train, mention_types=recipe.data.mention_types)
    validation = load_split(recipe.data.validation, mention_types=recipe.data.mention_types)
    check_experts(recipe, train)
    labels = recipe_labels(recipe, train)
    learned, gate_posts = hold_out(train, recipe.gate.held_out) if recipe.gate.held_out else (train, validation)
    pictures = pictures or GatePictures(recipe)
    pairs = with_swapped_none(learned.posts) if recipe.swapped_none else learned.posts
    reversed_none = missing_reversed_none(pairs) if recipe.task == "re" else 0.0
    for seed in recipe.seeds:
        folder = seed_folder(recipe, seed)
        own = _Seed(seed, folder, labels, train, learned, gate_posts, validation, reversed_none, say)
        take_over(recipe, seed, folder, say)
        train_experts(recipe, recipe.experts, labels, learned, validation, seed, folder, say)
        experts = load_experts(recipe, folder, recipe.members)
        alone = expert_outputs(recipe, experts, gate_posts)
        _mix(own, recipe, experts, alone, folder, pictures)
        for name in recipe.gates:
            under = recipe.with_gate(name)
            _mix(own, under, experts, alone, gate_folder(folder, name), pictures.of(under))
        configuration.write(folder, configuration.configuration(recipe))


def _mix(
    own: _Seed,
    recipe: Recipe,
    experts: Sequence[Any],
    alone: ExpertOutputs,
    target: Path,
    pictures: GatePictures,
) -> None:
    """Fit the recipe's gate over the experts and save the mixture in `target`.

    `alone`: what the experts, trained alone, say of `own.gate_posts`.
    """
    posts, outputs = own.gate_posts, alone
    if recipe.gate.cross_fit and len(experts) > 1:
        posts, outputs = _out_of_fold(own, recipe)
    data = gate_data(recipe, experts, posts, outputs, pictures)
    if (joint := recipe.gate.joint) and trained_together(recipe):
        experts = _train_together(own, recipe, joint, data, target, pictures)
        data = gate_data(recipe, experts, posts, pictures=pictures)
    mixture, penalty = fit_mixture(recipe, experts, data, own.reversed_none)
    held = data
    if not recipe.gate.from_validation:
        held = gate_data(recipe, experts, own.validation, alone if recipe.gate.cross_fit else None, pictures)
    mixture = calibrated(recipe, mixture, held)
    place = _experts_folder(recipe, own.folder, target)
    target.mkdir(parents=True, exist_ok=True)
    mixture.save_spec(target, [os.path.relpath(place / name, target) for name in recipe.members], {})
    threshold = f", threshold {mixture.threshold:.3f}" if mixture.threshold is not None else ""
    own.say(
        f"{target}: mixture of {', '.join(recipe.members)} (gate penalty {penalty:g}, "
        f"temperature {mixture.temperature:g}{threshold})"
    )


def _train_together(
    own: _Seed,
    recipe: Recipe,
    joint: Joint,
    data: GateData,
    mixture: Path,
    pictures: GatePictures,
) -> list[Any]:
    """The experts of the mixture gone on together, from those trained alone; kept where they are there already.

    `data`: what the experts trained alone say of the posts that the gate is fitted on.
    """
    target = mixture / JOINT
    take_over_joint(recipe, own.seed, target, own.say)
    configuration.claim(target, configuration.joint_configuration(recipe))
    if are_trained_together(target, recipe.members):
        own.say(f"{target}: trained before, kept")
    else:
        experts = load_experts(recipe, own.folder, recipe.members)  # of its own: others weigh them as they are
        gate, _ = fitted_gate(recipe, data)
        examples = joint_examples(
            recipe.task, experts, own.learned, gate_data(recipe, experts, own.learned, pictures=pictures)
        )
        train_jointly(experts, gate, examples, joint, target, own.seed)
        own.say(f"{target}: {', '.join(recipe.members)} trained together")
    return mixture_experts(recipe, own.folder, mixture)


def _out_of_fold(own: _Seed, recipe: Recipe) -> tuple[Split, ExpertOutputs]:
    """The training posts fold by fold, and what experts say of each fold that were trained on the other folds.

    What they said is kept under `folder/folds`; they themselves are deleted then, for whole encoders fill a disk.
    """
    splits, spoken = [], []
    folds = own.folder / FOLDS
    current = {e.name: configuration.expert_configuration(recipe, e) for e in recipe.lineage}
    if configuration.read(folds) not in (None, current):
        own.say(f"{folds}: of other experts, made anew")
        shutil.rmtree(folds)
    configuration.write(folds, current)
    for place, (rest, held) in enumerate(text_folds(own.train, recipe.gate.folds), 1):
        fold = folds / f"{place}-of-{recipe.gate.folds}"
        outputs = load_outputs(fold / OUTPUTS_FILE) if (fold / OUTPUTS_FILE).exists() else None
        if outputs is None or outputs.names != recipe.members:
            train_experts(recipe, recipe.lineage, own.labels, rest, own.validation, own.seed, fold, own.say)
            outputs = expert_outputs(recipe, load_experts(recipe, fold, recipe.members), held)
            save_outputs(outputs, fold / OUTPUTS_FILE)
        for expert in recipe.lineage:
            shutil.rmtree(fold / expert.name, ignore_errors=True)
        splits.append(held)
        spoken.append(outputs)
    return joined_splits(splits), joined(spoken)


def trained_together(recipe: Recipe) -> bool:
    """Are the mixture's experts others than those trained alone?"""
    return recipe.gate.joint is not None and len(recipe.members) > 1


def mixture_experts(recipe: Recipe, folder: Path, mixture: Path) -> list[Any]:
    """The experts that the gate in `mixture` weighs, in the order of the recipe; `folder`: the seed's.

    Raises:
        MoreieError: an expert has not been trained yet.
    """
    return load_experts(recipe, _experts_folder(recipe, folder, mixture), recipe.members)


def _experts_folder(recipe: Recipe, folder: Path, mixture: Path) -> Path:
    return mixture / JOINT if trained_together(recipe) else folder
