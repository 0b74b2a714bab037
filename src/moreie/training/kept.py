"""Experts that are trained already: by this run before it was stopped, or by another run beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from moreie.models.expert import CONFIG_FILE
from moreie.training import configuration
from moreie.training.recipe import ExpertRecipe, Recipe
from moreie.training.trainer import CHECKPOINTS

SCORE_FILE = "validation.json"
JOINT, GATES = "joint", "gates"


def is_trained(folder: Path) -> bool:
    """Is an expert there, trained to its end?"""
    return (folder / CONFIG_FILE).exists() and (folder / SCORE_FILE).exists()


def are_trained_together(folder: Path, members: Sequence[str]) -> bool:
    """Are experts there that were trained together, to the end?"""
    return all((folder / name / CONFIG_FILE).exists() for name in members) and not (folder / CHECKPOINTS).exists()


def take_over(recipe: Recipe, seed: int, folder: Path, say: Callable[[str], None]) -> None:
    """Copy into a seed's `folder` the experts that another run beside `recipe.output` has trained with this seed.

    They are those that depend on the same posts, evidence, settings and encoder: runs with another k, gate or mixture
    have experts in common. An expert that is there, finished or not, is left as it is.
    """
    for expert in recipe.experts:
        target = folder / expert.name
        if target.exists():
            continue
        if source := _same(recipe, expert, seed):
            _copy(source, target, say)


def take_over_joint(recipe: Recipe, seed: int, target: Path, say: Callable[[str], None]) -> None:
    """Copy to `target` experts that another run, or another gate of this one, has trained together with this seed.

    As `take_over`: the same experts alone, gone on in the same way under the same gate.
    """
    if target.exists():
        return
    current = configuration.joint_configuration(recipe)
    runs = recipe.output.parent
    for source in sorted((*runs.glob(f"*/seed-{seed}/{JOINT}"), *runs.glob(f"*/seed-{seed}/{GATES}/*/{JOINT}"))):
        if are_trained_together(source, recipe.members) and configuration.read(source) == current:
            _copy(source, target, say)
            return


def _copy(source: Path, target: Path, say: Callable[[str], None]) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.rename(target)
    say(f"{target}: trained as {source}, copied")


def _same(recipe: Recipe, expert: ExpertRecipe, seed: int) -> Path | None:
    current = configuration.expert_configuration(recipe, expert)
    sources = sorted(recipe.output.parent.glob(f"*/seed-{seed}/{expert.name}"))
    return next((s for s in sources if is_trained(s) and configuration.read(s) == current), None)
