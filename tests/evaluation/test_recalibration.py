"""Fitting a temperature to a mixture that is there already."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moreie.cli.app import app
from moreie.errors import CheckpointError, RecipeError
from moreie.evaluation.recalibration import mixture_folder, recalibrated
from moreie.evaluation.run import evaluate_seed
from moreie.models.mixture import read_spec
from moreie.shipped import MODEL
from moreie.training.recipe import load_recipe
from moreie.training.run import seed_folder, train_recipe


def test_a_temperature_is_fitted_anew_and_nothing_else_changes(
    recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = recipe_file(tmp_path / "recipe")
    recipe = load_recipe(path)
    train_recipe(recipe)
    folder = seed_folder(recipe, 1)
    trained, before = read_spec(folder), evaluate_seed(recipe, "validation", 1)
    spec = json.loads((folder / "mixture.json").read_text())
    (folder / "mixture.json").write_text(json.dumps({**spec, "temperature": None}))

    ran = CliRunner().invoke(app, ["calibrate", str(path), "--model", str(folder)])
    assert ran.exit_code == 0, ran.output
    fitted = read_spec(folder)
    assert fitted.temperature == trained.temperature, "on the same posts as behind the training"
    assert f"temperature {fitted.temperature:.3f} (was none)" in ran.output
    assert fitted.model_copy(update={"scores": {}}) == trained
    after = evaluate_seed(recipe, "validation", 1)
    assert after.predictions == before.predictions
    assert fitted.scores["calibration_error"] == round(before.calibration_error, 4)
    assert after.scaled_reliability is not None
    assert fitted.scores["calibration_error_scaled"] == round(after.scaled_reliability.expected_error, 4)

    other = load_recipe(recipe_file(tmp_path / "other", mixture=["baseline", "text"]))
    with pytest.raises(RecipeError, match=r"mixture of text, image \(ner\), but the recipe's is of baseline, text"):
        recalibrated(other, folder)
    assert read_spec(folder) == fitted
    with pytest.raises(CheckpointError, match="no mixture"):
        recalibrated(recipe, tmp_path)


def test_the_mixture_of_a_task_is_found_in_a_model_folder(tmp_path: Path) -> None:
    assert mixture_folder(MODEL, "re") == MODEL / "relations"
    assert mixture_folder(MODEL, "ner") == MODEL / "ner"
    assert mixture_folder(tmp_path, "ner") == tmp_path
    (tmp_path / "extractor.json").write_text(json.dumps({"name": "n", "ner": "."}))
    with pytest.raises(RecipeError, match="finds no relations"):
        mixture_folder(tmp_path, "re")
    (tmp_path / "extractor.json").write_text(json.dumps({"name": "n", "ner": "shipped:models/default/ner"}))
    with pytest.raises(RecipeError, match="the package's own"):
        mixture_folder(tmp_path, "ner")


@pytest.mark.parametrize("task", ["ner", "re"])
def test_the_shipped_model_has_temperatures_that_help(task: str) -> None:
    spec = read_spec(mixture_folder(MODEL, task))
    assert spec.temperature is not None
    assert spec.scores["calibration_error_scaled"] < spec.scores["calibration_error"]
