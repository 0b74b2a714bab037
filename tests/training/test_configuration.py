"""What is noted of a result, and of an expert."""

from __future__ import annotations

from pathlib import Path

import pytest

from moreie.training.configuration import configuration, expert_configuration
from moreie.training.recipe import Recipe


@pytest.fixture
def recipe(data: Path) -> Recipe:
    files = {"posts": data / "mnre-sample.txt"}
    content = {
        "task": "re",
        "output": "runs",
        "encoder": "some/encoder",
        "data": {"train": files, "validation": files},
        "experts": [{"name": "baseline"}],
    }
    return Recipe.model_validate(content)


def test_a_setting_younger_than_trained_experts_is_noted_where_it_is_on(recipe: Recipe) -> None:
    on = recipe.model_copy(update={"training": recipe.training.model_copy(update={"adversarial": 0.5})})
    assert "adversarial" not in configuration(recipe)["training"]
    assert configuration(on)["training"]["adversarial"] == 0.5
    noted, off = (expert_configuration(r, r.experts[0])["expert"]["training"] for r in (on, recipe))
    assert noted == {**off, "adversarial": 0.5}


def test_pairs_learned_in_both_directions_make_another_expert(recipe: Recipe) -> None:
    both = recipe.model_copy(update={"swapped_none": True})
    noted, off = (expert_configuration(r, r.experts[0]) for r in (both, recipe))
    assert noted == {**off, "swapped_none": True}


def test_a_teacher_is_known_by_what_it_holds_and_not_by_its_name(data: Path, tmp_path: Path) -> None:
    files = {"posts": data / "twitter2017-sample.txt"}
    noted = []
    for place, weights in (("one", b"1"), ("two", b"2"), ("three", b"1")):
        expert = tmp_path / place / "baseline"
        expert.mkdir(parents=True)
        (expert / "head.safetensors").write_bytes(weights)
        recipe = Recipe.model_validate(
            {
                "task": "ner",
                "output": "runs",
                "encoder": "some/encoder",
                "data": {"train": files, "validation": files},
                "experts": [{"name": "student"}],
                "teacher": {"expert": expert},
            }
        )
        noted.append(expert_configuration(recipe, recipe.experts[0]))
    assert noted[0] != noted[1]
    assert noted[0] == noted[2]
