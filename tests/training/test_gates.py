"""Several gates over the same experts: each is what a run with it alone would have, and experts are trained once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from moreie.errors import RecipeError
from moreie.evaluation.predictions import CERTAINTY, MIXTURE, MIXTURE_BEST, MIXTURE_SELECTIVE, Evaluation
from moreie.evaluation.run import answers_of, evaluate_seed
from moreie.evaluation.summary import read_summary, record
from moreie.models.expert import EncoderPool
from moreie.models.gate import Gate
from moreie.models.mixture import load_mixture
from moreie.models.outputs import certainties
from moreie.training.configuration import configuration
from moreie.training.data import cases, load_split
from moreie.training.gate import gate_data
from moreie.training.kept import take_over_joint
from moreie.training.recipe import Recipe, load_recipe
from moreie.training.run import gate_folder, mixture_experts, seed_folder, train_recipe

JOINT = {"epochs": 1, "batch_size": 4, "learning_rate": 5e-3, "head_learning_rate": 1e-2, "gate_learning_rate": 1e-2}
GATES = {
    "hard": {"folds": 2, "choice": "hard"},
    "cross-fitted": {"folds": 2, "cross_fit": True},
    "joint": {"folds": 2, "joint": JOINT},
}
WORDS = {"cross-fitted-words": {"folds": 2, "cross_fit": True, "level": "token", "inputs": ["entropy", "agreement"]}}


@pytest.fixture(scope="module", params=["ner", "re"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, recipe_file: Callable[..., Path]
) -> tuple[Path, Recipe, Evaluation, list[str]]:
    gates = {**GATES, **WORDS} if request.param == "ner" else GATES
    path = recipe_file(tmp_path_factory.mktemp(request.param), task=request.param, gate={"folds": 2}, gates=gates)
    recipe = load_recipe(path)
    said: list[str] = []
    train_recipe(recipe, said.append)
    return path, recipe, evaluate_seed(recipe, "validation", 1), said


@contextlib.contextmanager
def _out_of_sight(folder: Path) -> Iterator[None]:
    hidden = folder.with_name("hidden")
    if not folder.exists():
        yield
        return
    folder.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(folder)


def test_every_gate_says_what_a_run_with_it_alone_says(run: tuple[Path, Recipe, Evaluation, list[str]]) -> None:
    _, recipe, evaluation, _ = run
    for name in recipe.gates:
        own = recipe.with_gate(name).model_copy(update={"output": recipe.output.with_name(name)})
        said: list[str] = []
        with _out_of_sight(gate_folder(seed_folder(recipe, 1), name) / "joint"):
            train_recipe(own, said.append)
        assert sum(line.endswith(", copied") for line in said) == len(recipe.experts)
        alone = evaluate_seed(own, "validation", 1)
        assert alone.predictions[MIXTURE] == evaluation.predictions[f"{MIXTURE}, {name} gate"], name
        folders = seed_folder(own, 1), gate_folder(seed_folder(recipe, 1), name)
        weights = [Gate.load(folder).linear.weight for folder in folders]
        assert torch.allclose(*weights, atol=1e-4), name


def test_experts_trained_together_are_copied_too(run: tuple[Path, Recipe, Evaluation, list[str]]) -> None:
    _, recipe, evaluation, _ = run
    own = recipe.with_gate("joint").model_copy(update={"output": recipe.output.with_name("copied")})
    said: list[str] = []
    train_recipe(own, said.append)
    together = seed_folder(own, 1) / "joint"
    assert any(line.startswith(f"{together}: trained as ") and line.endswith(", copied") for line in said)
    assert evaluate_seed(own, "validation", 1).predictions[MIXTURE] == evaluation.predictions[f"{MIXTURE}, joint gate"]
    joint = own.gate.joint
    assert joint is not None
    gate = own.gate.model_copy(update={"joint": joint.model_copy(update={"learning_rate": 1e-3})})
    other = own.model_copy(update={"gate": gate, "output": recipe.output.with_name("another")})
    target = seed_folder(other, 1) / "joint"
    take_over_joint(other, 1, target, said.append)
    assert not target.exists(), "trained in another way"


def test_experts_and_folds_serve_all_gates(run: tuple[Path, Recipe, Evaluation, list[str]]) -> None:
    _, recipe, _, said = run
    trained = [line for line in said if ": validation F1 " in line]
    assert len(trained) == len(recipe.experts) + 2 * len(recipe.lineage), "once on all posts, once without each fold"
    assert sum(": mixture of " in line for line in said) == 1 + len(recipe.gates)


def test_a_mixture_under_another_gate_is_loaded_from_its_folder(
    run: tuple[Path, Recipe, Evaluation, list[str]],
) -> None:
    _, recipe, evaluation, _ = run
    asked, evidence, _ = cases(recipe.task, load_split(recipe.data.validation))
    mixture = load_mixture(gate_folder(seed_folder(recipe, 1), "cross-fitted"), EncoderPool())
    said = mixture(asked, evidence).log_probabilities
    assert answers_of(mixture.experts[0], said) == evaluation.predictions[f"{MIXTURE}, cross-fitted gate"]
    joint = load_mixture(gate_folder(seed_folder(recipe, 1), "joint"), EncoderPool())
    own = load_mixture(seed_folder(recipe, 1), EncoderPool())
    heads = [mixture.experts[0].head_state() for mixture in (joint, own)]
    assert any(not torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_the_best_expert_known_is_what_no_hard_gate_can_beat(run: tuple[Path, Recipe, Evaluation, list[str]]) -> None:
    _, recipe, evaluation, _ = run
    best = evaluation.predictions[MIXTURE_BEST]
    alone = [evaluation.predictions[name] for name in recipe.members]
    assert all(said in answers for said, answers in zip(best, zip(*alone, strict=True), strict=True))
    experts = mixture_experts(recipe, seed_folder(recipe, 1), seed_folder(recipe, 1))
    data = gate_data(recipe, experts, load_split(recipe.data.validation))
    likelihood = (data.gold * data.real[..., None]).sum(1)
    assert best == [alone[m][n] for n, m in enumerate(likelihood.argmax(1).tolist())]


def test_evidence_read_only_in_doubt_is_what_the_selective_mixture_does(
    run: tuple[Path, Recipe, Evaluation, list[str]],
) -> None:
    _, recipe, evaluation, _ = run
    assert MIXTURE_SELECTIVE not in evaluation.predictions, "both experts read evidence"
    output = recipe.output.with_name("wider")
    wider = recipe.model_copy(update={"mixture": ("baseline", "text"), "gates": {}, "output": output})
    train_recipe(wider)
    own = evaluate_seed(wider, "validation", 1)
    asked, evidence, _ = cases(recipe.task, load_split(recipe.data.validation))
    mixture = load_mixture(seed_folder(wider, 1), EncoderPool())
    alone = mixture(asked, {"text": [()] * len(asked)}).log_probabilities
    said = mixture.selective(CERTAINTY)(asked, evidence)
    left = certainties(alone) >= CERTAINTY
    trusted = [here or not found for here, found in zip(left.tolist(), evidence["text"], strict=True)]
    assert trusted == [bool(weights[0] == 1) for weights in said.weights]
    answers = answers_of(mixture.experts[0], [a for a, here in zip(alone, left, strict=True) if here])
    assert [p for p, here in zip(own.predictions[MIXTURE_SELECTIVE], left, strict=True) if here] == answers


def test_gates_are_rows_of_the_same_recipe(run: tuple[Path, Recipe, Evaluation, list[str]], tmp_path: Path) -> None:
    path, recipe, evaluation, _ = run
    record(tmp_path, path, recipe, "validation", [evaluation])
    variants = {row.variant for row in read_summary(tmp_path)}
    assert {f"{MIXTURE}, {name} gate" for name in recipe.gates} < variants


def test_what_a_result_depends_on_names_the_gates(run: tuple[Path, Recipe, Evaluation, list[str]]) -> None:
    _, recipe, _, _ = run
    assert list(configuration(recipe)["gates"]) == list(recipe.gates)
    assert "gates" not in configuration(recipe.with_gate("hard"))
    assert configuration(recipe.with_gate("hard"))["gate"]["choice"] == "hard"


def test_wrong_gates_are_refused_before_the_first_step(tmp_path: Path, recipe_file: Callable[..., Path]) -> None:
    for changed, message in (
        ({"gates": {"other": {"held_out": 0.2}}}, r"gates\.other: held_out is not that of `gate`"),
        ({"task": "re", "gates": {"words": {"level": "token"}}}, "a token-level gate is for NER only"),
        ({"gates": {"hard": {"chioce": "hard"}}}, r"gates\.hard\.chioce: unknown key"),
        ({"gates": {"Not a name": {}}}, "gates"),
        ({"mixture": ["text"], "gates": {"hard": {"choice": "hard"}}}, "a mixture of at least two experts"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(recipe_file(tmp_path, **changed))
