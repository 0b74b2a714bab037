"""Experts and gate trained together: one loss, gradients for all, and a run that keeps those trained alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moreie.errors import RecipeError
from moreie.evaluation.predictions import MIXTURE
from moreie.evaluation.run import evaluate_seed
from moreie.models.expert import EncoderPool
from moreie.models.gate import Gate
from moreie.models.mixture import load_mixture, read_spec
from moreie.training import trained_with
from moreie.training.data import load_split
from moreie.training.experts import load_experts
from moreie.training.gate import GateData, fit_mixture, gate_data
from moreie.training.joint import JointExample, JointMixture, _Collator, joint_examples
from moreie.training.recipe import Joint, Recipe, load_recipe
from moreie.training.run import seed_folder, train_recipe

FAST = {"epochs": 1, "batch_size": 4, "learning_rate": 5e-3, "head_learning_rate": 1e-2, "gate_learning_rate": 1e-2}


@pytest.fixture(scope="module", params=["ner", "re"])
def alone(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, recipe_file: Callable[..., Path]
) -> tuple[Path, Recipe]:
    path = recipe_file(tmp_path_factory.mktemp(request.param), task=request.param)
    recipe = load_recipe(path)
    train_recipe(recipe)
    return path, recipe


def joint(recipe: Recipe, **gate: Any) -> Recipe:
    return recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"joint": Joint(**FAST), **gate})})


def parts(recipe: Recipe) -> tuple[list[Any], Gate, GateData, list[JointExample]]:
    experts = load_experts(recipe, seed_folder(recipe, 1), recipe.members)
    split = load_split(recipe.data.validation)
    data = gate_data(recipe, experts, split)
    gate = fit_mixture(recipe, experts, data)[0].gate
    assert gate is not None
    return experts, gate, data, joint_examples(recipe.task, experts, split, data)


def test_the_loss_is_that_of_the_mixture_and_reaches_every_expert_and_the_gate(alone: tuple[Path, Recipe]) -> None:
    _, recipe = alone
    for level in ("sequence", "token") if recipe.task == "ner" else ("sequence",):
        check_loss(joint(recipe, level=level))


def check_loss(recipe: Recipe) -> None:
    experts, gate, data, examples = parts(recipe)
    model = JointMixture(experts, gate, Joint(**FAST)).eval()
    loss = model(**_Collator(experts)([{"example": e} for e in examples]))["loss"]
    log_weights = gate(data.features, data.available).detach()
    expected = data.negative_log_likelihood(log_weights, range(len(log_weights)))
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
    loss.backward()
    moved = [p for p in model.trained if p.grad is not None and p.grad.abs().sum() > 0]
    for expert in experts:
        expert.use()
        own = {id(p) for p in expert.parameters() if p.requires_grad}
        assert any(id(p) in own for p in moved), f"nothing reaches {expert.spec.name}"
    assert gate.linear.weight.grad is not None
    assert gate.linear.weight.grad.abs().sum() > 0
    assert len({id(p) for p in model.trained}) == len(model.trained) == len(model.state_dict())


def test_a_run_keeps_the_experts_trained_alone_and_mixes_those_trained_together(alone: tuple[Path, Recipe]) -> None:
    _, recipe = alone
    folder = seed_folder(recipe, 1)
    before = {name: (folder / name / "head.safetensors").read_bytes() for name in recipe.members}
    together = joint(recipe)
    said: list[str] = []
    train_recipe(together, said.append)
    assert any("text, image trained together" in line for line in said)
    for name in recipe.members:
        assert (folder / name / "head.safetensors").read_bytes() == before[name]
        assert (folder / "joint" / name / "head.safetensors").read_bytes() != before[name]
        assert json.loads((folder / "joint" / name / trained_with.FILE).read_bytes())["precision"] == "fp32"
    assert read_spec(folder).experts == ("joint/text", "joint/image")
    mixture = load_mixture(folder, EncoderPool())
    own = load_file(folder / "joint" / "text" / "head.safetensors")
    assert all(torch.equal(mixture.experts[0].head_state()[k], v) for k, v in own.items())
    evaluation = evaluate_seed(together, "validation", 1)
    assert list(evaluation.predictions)[:5] == [
        "baseline",
        "text",
        "image",
        "text, trained together",
        "image, trained together",
    ]
    split = load_split(recipe.data.validation)
    if recipe.task == "ner":
        assert len(mixture(split.posts, split.evidence).log_probabilities) == len(evaluation.predictions[MIXTURE])
    said.clear()
    train_recipe(together, said.append)
    assert any(f"{folder / 'joint'}: trained before, kept" in line for line in said)
    with pytest.raises(RecipeError, match="joint holds an expert of another configuration"):
        train_recipe(joint(recipe, inputs=("entropy",)))
    train_recipe(recipe)
    assert read_spec(folder).experts == ("text", "image"), (
        "without `joint` the mixture is that of experts trained alone"
    )


def test_joint_and_cross_fitted_training_exclude_each_other(tmp_path: Path, recipe_file: Callable[..., Path]) -> None:
    path = recipe_file(tmp_path, gate={"folds": 2, "cross_fit": True, "joint": {}})
    with pytest.raises(RecipeError, match="cross_fit and joint exclude each other"):
        load_recipe(path)


@pytest.mark.slow
def test_joint_training_goes_on_after_a_kill(
    tmp_path: Path, recipe_file: Callable[..., Path], train_until_killed: Callable[[Path, Path], list[str]]
) -> None:
    gate = {"folds": 2, "joint": {**FAST, "epochs": 3}}
    path = recipe_file(tmp_path, gate=gate)
    folder = tmp_path / "runs" / "seed-1" / "joint"
    command = train_until_killed(path, folder / "checkpoints")
    assert not (folder / "image" / "expert.json").exists(), "killed before its end"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stderr
    again = recipe_file(tmp_path / "again", gate=gate)
    train_recipe(load_recipe(again))
    ours, theirs = (
        load_file(place / "seed-1" / "joint" / "text" / "adapter.safetensors")
        for place in (tmp_path / "runs", tmp_path / "again" / "runs")
    )
    assert all(torch.allclose(ours[k].float(), theirs[k].float(), atol=1e-3) for k in ours)
