"""Experts of one run that another beside it takes over, and those that it must not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moreie.training.kept import SCORE_FILE, is_trained, take_over
from moreie.training.recipe import Recipe, load_recipe
from moreie.training.run import seed_folder, train_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, recipe_file: Callable[..., Path]) -> Recipe:
    recipe = load_recipe(recipe_file(tmp_path_factory.mktemp("kept"), output="runs/first"))
    train_recipe(recipe)
    return recipe


@pytest.fixture
def beside(trained: Recipe) -> Iterator[Recipe]:
    """The same in a folder beside it."""
    output = trained.output.with_name("second")
    yield trained.model_copy(update={"output": output})
    shutil.rmtree(output, ignore_errors=True)


def _taken(recipe: Recipe) -> set[str]:
    folder = seed_folder(recipe, 1)
    take_over(recipe, 1, folder, [].append)
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_the_same_experts_are_copied_and_not_trained(trained: Recipe, beside: Recipe) -> None:
    said: list[str] = []
    train_recipe(beside.model_copy(update={"gate": beside.gate.model_copy(update={"folds": 3})}), said.append)
    assert sum(line.endswith(", copied") for line in said) == 3
    assert sum(line.endswith(": trained before, kept") for line in said) == 3
    for expert in trained.experts:
        own, other = (seed_folder(recipe, 1) / expert.name for recipe in (trained, beside))
        assert {p.name: p.read_bytes() for p in own.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}


def test_what_depends_on_other_settings_is_not_taken(beside: Recipe) -> None:
    first = beside.experts[0]
    training = beside.training.model_copy(update={"epochs": 3})
    other = beside.model_copy(
        update={"experts": (first.model_copy(update={"training": training}), *beside.experts[1:])}
    )
    assert _taken(other) == {"image"}, "text starts from the first"


def test_other_posts_in_a_file_of_the_same_name_are_not_taken_for_these(beside: Recipe, tmp_path: Path) -> None:
    posts = tmp_path / beside.data.train.posts.name
    posts.write_bytes(beside.data.train.posts.read_bytes() + b"IMGID:1\nParis\tB-LOC\n\n")
    files = beside.data.train.model_copy(update={"posts": posts})
    assert _taken(beside.model_copy(update={"data": beside.data.model_copy(update={"train": files})})) == set()


def test_an_unfinished_expert_is_neither_taken_nor_replaced(beside: Recipe, trained: Recipe) -> None:
    started = seed_folder(beside, 1) / "text" / "checkpoints"
    started.mkdir(parents=True)
    score = seed_folder(trained, 1) / "image" / SCORE_FILE
    kept = score.read_bytes()
    score.unlink()
    try:
        names = _taken(beside)
    finally:
        score.write_bytes(kept)
    assert names == {"baseline", "text"}
    assert is_trained(seed_folder(beside, 1) / "baseline")
    assert [path.name for path in started.parent.iterdir()] == ["checkpoints"]


def test_another_encoder_in_a_folder_of_the_same_name_is_not_taken_for_this(beside: Recipe, tmp_path: Path) -> None:
    other = tmp_path / Path(beside.encoder).name
    other.symlink_to(beside.encoder)
    assert _taken(beside.model_copy(update={"encoder": str(other)})) == {"baseline", "text", "image"}, "the same one"
    other.unlink()
    shutil.copytree(beside.encoder, other)
    (other / "config.json").write_bytes((other / "config.json").read_bytes() + b" ")
    shutil.rmtree(beside.output)
    assert _taken(beside.model_copy(update={"encoder": str(other)})) == set()
