"""A recipe as it is to be run here: another data folder, number of seeds or k, and no test split where none is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from moreie.errors import RecipeError
from moreie.training.recipe import DataFiles, Recipe, SplitFiles


def with_data_folder(recipe: Recipe, old: Path, new: Path) -> Recipe:
    """The recipe with every data file, and the corpus, under `old` looked for under `new`."""
    old, new = Path(os.path.normpath(old.absolute())), new.absolute()

    def moved(path: Path | None) -> Path | None:
        plain = Path(os.path.normpath(path.absolute())) if path else None
        return new / plain.relative_to(old) if plain and plain.is_relative_to(old) else plain

    def files(split: SplitFiles) -> SplitFiles:
        fields = {name: moved(getattr(split, name)) for name in ("posts", "captions", "images")}
        return split.model_copy(update={**fields, "evidence": {k: moved(v) for k, v in split.evidence.items()}})

    others = {name: moved(getattr(recipe.data, name)) for name in ("labels", "mention_types")}
    data = _each_split(recipe.data, files).model_copy(update=others)
    retrieval = recipe.retrieval
    if retrieval and retrieval.corpus and ":" not in retrieval.corpus:
        retrieval = retrieval.model_copy(update={"corpus": str(moved(Path(retrieval.corpus)))})
    if retrieval and retrieval.attached:
        attached = {
            name: own.model_copy(update={"texts": {split: moved(path) for split, path in own.texts.items()}})
            for name, own in retrieval.attached.items()
        }
        retrieval = retrieval.model_copy(update={"attached": attached})
    return recipe.model_copy(update={"data": data, "retrieval": retrieval})


def without_absent_test(recipe: Recipe) -> Recipe:
    """The recipe without its test split where the posts of that are not to be had."""
    if recipe.data.test is None or recipe.data.test.posts.exists():
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"test": None})})


def with_seeds(recipe: Recipe, number: int) -> Recipe:
    """Seeds 1 to `number`."""
    return recipe.model_copy(update={"seeds": tuple(range(1, number + 1))})


def with_k(recipe: Recipe, k: int) -> Recipe:
    """Every evidence expert reads k passages; trained in a folder of its own.

    Evidence files hold their first k passages already; where they hold fewer, others are made beside them.

    Raises:
        RecipeError: more passages than evidence files hold that the recipe does not say how to make.
    """
    experts = tuple(
        e.model_copy(update={"view": replace(e.view, k=k)}) if e.view.retriever else e for e in recipe.experts
    )
    changed: dict[str, object] = {"experts": experts, "output": recipe.output.with_name(f"{recipe.output.name}-k{k}")}
    if recipe.retrieval is None:
        raise RecipeError("-k needs a recipe that says how its evidence is retrieved")
    small = {name: s for name, s in recipe.retrieval.evidence.items() if s.k < k}
    evidence = {**recipe.retrieval.evidence, **{n: s.model_copy(update={"k": k}) for n, s in small.items()}}
    changed["retrieval"] = recipe.retrieval.model_copy(update={"evidence": evidence})

    def more(split: SplitFiles) -> SplitFiles:
        paths = {n: _beside(p, f"-k{k}") if n in small else p for n, p in split.evidence.items()}
        return split.model_copy(update={"evidence": paths})

    changed["data"] = _each_split(recipe.data, more)
    return recipe.model_copy(update=changed)


def _each_split(data: DataFiles, change: Callable[[SplitFiles], SplitFiles]) -> DataFiles:
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return data.model_copy(update={name: change(files) if files else None for name, files in splits.items()})


def _beside(path: Path, mark: str) -> Path:
    stem, dot, ending = path.name.partition(".")
    return path.with_name(f"{stem}{mark}{dot}{ending}")
