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
