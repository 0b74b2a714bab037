"""Experts that are trained already: by this run before it was stopped, or by another run beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from moreie.encoders.places import located
from moreie.models.expert import CONFIG_FILE, read_config
from moreie.training import configuration
from moreie.training.recipe import ExpertRecipe, Recipe

SCORE_FILE = "validation.json"


def is_trained(folder: Path) -> bool:
    """Is an expert there, trained to its end?"""
    return (folder / CONFIG_FILE).exists() and (folder / SCORE_FILE).exists()


def take_over(recipe: Recipe, seed: int, folder: Path, say: Callable[[str], None]) -> None:
    """Copy into a seed's `folder` the experts that another run beside `recipe.output` has trained with this seed.

    They are those that depend on the same posts, evidence, settings and encoder: runs with another k, gate or mixture
    have experts in common. An expert that is there, finished or not, is left as it is; one with a teacher is never
    copied, since a teacher is known by its name alone.
    """
    for expert in recipe.experts if recipe.teacher is None else ():
        target = folder / expert.name
        if target.exists():
            continue
        for source in _same(recipe, expert, seed):
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source, partial)
            partial.rename(target)
            say(f"{target}: trained as {source}, copied")
            break


def _same(recipe: Recipe, expert: ExpertRecipe, seed: int) -> Iterator[Path]:
    current = configuration.expert_configuration(recipe, expert)
    for source in sorted(recipe.output.parent.glob(f"*/seed-{seed}/{expert.name}")):
        if source.parent.parent == recipe.output or not is_trained(source) or configuration.read(source) != current:
            continue
        if recipe.adapter is None or read_config(source).encoder == located(recipe.encoder, Path()):
            yield source
