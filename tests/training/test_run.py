"""Whole runs on a few posts with a tiny encoder: train, resume, repeat, evaluate, keep, load."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moreie.datasets import read_posts
from moreie.errors import MoreieError, RecipeError
from moreie.evaluation.predictions import MIXTURE, MIXTURE_TOLD, load_predictions
from moreie.evaluation.recompute import recompute
from moreie.evaluation.report import write_report
from moreie.evaluation.run import evaluate_seed
from moreie.evaluation.summary import read_summary, record
from moreie.models.expert import EncoderPool
from moreie.models.mixture import load_mixture, read_spec
from moreie.models.outputs import load_outputs
from moreie.schema import NO_RELATION
from moreie.training.data import hold_out, joined_splits, load_split, missing_reversed_none, text_folds
from moreie.training.experts import load_experts
from moreie.training.features import relation_examples
from moreie.training.gate import fit_mixture, gate_data
from moreie.training.recipe import Recipe, load_recipe
from moreie.training.run import seed_folder, train_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, recipe_file: Callable[..., Path]) -> tuple[Path, Recipe]:
    path = recipe_file(tmp_path_factory.mktemp("ner"))
    recipe = load_recipe(path)
    train_recipe(recipe)
    return path, recipe


def test_checkpoints_are_safetensors_and_json(trained: tuple[Path, Recipe]) -> None:
    _, recipe = trained
    files = {p.suffix for p in recipe.output.rglob("*") if p.is_file()}
    assert files == {".safetensors", ".json"}


def test_a_trained_run_is_evaluated_recorded_and_reported(trained: tuple[Path, Recipe], tmp_path: Path) -> None:
    path, recipe = trained
    evaluation = evaluate_seed(recipe, "validation", 1)
    assert list(evaluation.predictions)[:3] == ["baseline", "text", "image"]
    assert {"text, no evidence", "image, another post's evidence"} <= set(evaluation.predictions)
    assert evaluation.gate.sum(1) == pytest.approx(torch.ones(len(evaluation.ids)))
    assert evaluation.flips("baseline") is None, "it is what others are set against"
    spoilt, mended = evaluation.flips(MIXTURE)
    right = {v: evaluation.counts(v)[:, 0].sum() for v in ("baseline", MIXTURE)}
    assert right[MIXTURE] == right["baseline"] - spoilt + mended
    assert [len(c) for c in evaluation.confidences] == [len(p) for p in evaluation.predictions[MIXTURE]]
    record(tmp_path, path, recipe, "validation", [evaluation])
    rows = read_summary(tmp_path)
    fields = {"dataset", "split", "task", "variant", "encoder", "seeds", "f1", "mean", "std", "command", "predictions"}
    assert fields | {"p_value_vs_baseline"} <= set(json.loads((tmp_path / "summary.json").read_text())[0])
    assert {r.variant for r in rows} >= {"baseline", "text", "image", "mixture"}
    kept = load_predictions(tmp_path / rows[0].predictions[0], "ner", 1)
    for row in rows:
        assert round(kept.scores(row.variant)["micro"].f1, 2) == row.f1[0], "scores come back from the predictions"
    record(tmp_path, path, recipe, "validation", [evaluation])
    assert len(read_summary(tmp_path)) == len(rows), "the same result is kept once"
    written = write_report(tmp_path, tmp_path / "results.md")
    assert "| mixture |" in written[1].read_text()
    assert written[2].read_text().lstrip().startswith("<?xml")
    with pytest.raises(MoreieError, match="no results"):
        write_report(tmp_path / "none", tmp_path / "results.md")


def test_confidences_are_read_at_the_temperature_that_was_fitted_behind_the_gate(
    trained: tuple[Path, Recipe], tmp_path: Path
) -> None:
    path, recipe = trained
    folder = seed_folder(recipe, 1)
    mixture = load_mixture(folder, EncoderPool())
    assert read_spec(folder).temperature == mixture.temperature != 1
    validation, test = (evaluate_seed(recipe, split, 1) for split in ("validation", "test"))
    assert validation.scaled is not None
    assert test.scaled is not None
    assert set(test.scaled.temperatures) == {mixture.temperature}
    assert len(set(validation.scaled.temperatures)) == recipe.gate.folds, "one a fold"
    assert mixture.temperature not in validation.scaled.temperatures
    for evaluation in (validation, test):
        assert evaluation.scaled is not None
        pairs = zip(evaluation.confidences, evaluation.scaled.confidences, strict=True)
        assert all(len(a) == len(b) for a, b in pairs)
    record(tmp_path, path, recipe, "test", [test])
    (row,) = (r for r in read_summary(tmp_path) if r.variant == MIXTURE)
    assert row.temperature == mixture.temperature
    assert row.calibration_error_scaled == pytest.approx(test.scaled_reliability.expected_error, abs=1e-3)
    assert recompute(tmp_path)[1] == []
    for shift in (1e-5, 2e-5, 3e-5, 4e-5):
        finer = replace(test, confidences=[[0.5 + shift for _ in row] for row in test.confidences])
        record(tmp_path, path, recipe, "test", [finer])
        assert recompute(tmp_path)[1] == [], "rows are of what the file holds, which is rounded"
    spec = json.loads((folder / "mixture.json").read_text())
    (folder / "mixture.json").write_text(json.dumps({**spec, "temperature": None}))
    assert load_mixture(folder, EncoderPool()).temperature == 1
    assert evaluate_seed(recipe, "test", 1).scaled is None, "an older model folder"
    (folder / "mixture.json").write_text(json.dumps(spec))


@pytest.mark.parametrize("choice", ["soft", "hard"])
def test_a_gate_may_weigh_words_and_read_the_evidence(trained: tuple[Path, Recipe], choice: str) -> None:
    _, recipe = trained
    gate = recipe.gate.model_copy(
        update={"level": "token", "choice": choice, "inputs": ("entropy", "evidence", "agreement")}
    )
    words = recipe.model_copy(update={"gate": gate})
    experts = load_experts(recipe, seed_folder(recipe, 1), recipe.members)
    split = load_split(recipe.data.validation)
    mixture, _ = fit_mixture(words, experts, gate_data(words, experts, split))
    assert mixture.gate is not None
    assert (mixture.gate.spec.level, mixture.gate.spec.choice) == ("token", choice)
    mixed = mixture(split.posts, split.evidence)
    assert torch.allclose(mixed.weights.sum(1), torch.ones(len(split.posts)), atol=1e-5)
    data = gate_data(words, experts, split)
    assert len(data.features) == sum(len(post.words) for post in split.posts)
    single = gate_data(recipe, experts, split)
    even = torch.full((len(data.features), 2), 0.5).log()
    whole = torch.full((len(split.posts), 2), 0.5).log()
    losses = [float(d.negative_log_likelihood(w, range(len(w)))) for d, w in ((data, even), (single, whole))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5), "the same weights mean the same loss at either level"


def test_what_is_trained_is_kept(trained: tuple[Path, Recipe]) -> None:
    _, recipe = trained
    said: list[str] = []
    before = (recipe.output / "seed-1" / "text" / "head.safetensors").read_bytes()
    train_recipe(recipe, said.append)
    assert sum("trained before" in line for line in said) == 3
    assert (recipe.output / "seed-1" / "text" / "head.safetensors").read_bytes() == before


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_also_after_a_kill(
    trained: tuple[Path, Recipe],
    tmp_path: Path,
    recipe_file: Callable[..., Path],
    train_until_killed: Callable[[Path, Path], list[str]],
) -> None:
    _, recipe = trained
    path = recipe_file(tmp_path, experts=[{"name": "baseline"}], mixture=["baseline"])
    command = train_until_killed(path, tmp_path / "runs" / "seed-1" / "baseline" / "checkpoints")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        load_file(folder / "seed-1" / "baseline" / "adapter.safetensors")
        for folder in (recipe.output, tmp_path / "runs")
    )
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], msg=name)


def test_relations_are_trained_with_a_held_out_gate(tmp_path: Path, recipe_file: Callable[..., Path]) -> None:
    path = recipe_file(
        tmp_path,
        task="re",
        gate={"held_out": 0.4, "folds": 2},
        adapter=None,
        training={"epochs": 1, "batch_size": 4, "precision": "fp32"},
    )
    recipe = load_recipe(path)
    train_recipe(recipe)
    evaluation = evaluate_seed(recipe, "validation", 1)
    assert len(evaluation.ids) == len(evaluation.predictions[MIXTURE]) > 5
    assert 0 <= evaluation.accuracy(MIXTURE) <= 100
    told = evaluation.predictions[MIXTURE_TOLD]
    assert [t == NO_RELATION for t in told] == [g == NO_RELATION for g in evaluation.gold]
    pairs = zip(evaluation.gold, evaluation.predictions[MIXTURE], told, strict=True)
    assert all(a == t for g, a, t in pairs if g != NO_RELATION and a != NO_RELATION), "the best relation stays the best"
    mixture = load_mixture(recipe.output / "seed-1", EncoderPool())
    assert mixture.names == ("text", "image")
    fit, _ = hold_out(load_split(recipe.data.train), 0.4)
    assert mixture.reversed_none == pytest.approx(missing_reversed_none(fit.posts))


@pytest.mark.parametrize("task", ["ner", "re"])
def test_an_expert_is_trained_on_two_views(tmp_path: Path, task: str, recipe_file: Callable[..., Path]) -> None:
    view = {"retriever": "text", "budget": 96, "form": "sentence"}
    weights = {}
    for name, two_view in (("one", None), ("both", {"alpha": 0.5, "temperature": 2.0})):
        path = recipe_file(
            tmp_path / name,
            task=task,
            experts=[{"name": "text", "view": view, "two_view": two_view}],
            mixture=["text"],
            training={"epochs": 1, "batch_size": 4, "learning_rate": 5e-3, "precision": "fp32"},
        )
        train_recipe(load_recipe(path))
        weights[name] = load_file(tmp_path / name / "runs" / "seed-1" / "text" / "head.safetensors")
    assert all(torch.isfinite(w).all() for w in weights["both"].values())
    assert any(not torch.equal(weights["one"][k], w) for k, w in weights["both"].items())


def test_a_cross_fitted_gate_learns_from_experts_that_had_not_seen_the_posts(
    tmp_path: Path, data: Path, recipe_file: Callable[..., Path]
) -> None:
    path = recipe_file(
        tmp_path,
        gate={"cross_fit": True, "folds": 2},
        training={"epochs": 1, "batch_size": 4, "learning_rate": 5e-3, "precision": "fp32"},
    )
    recipe = load_recipe(path)
    said: list[str] = []
    train_recipe(recipe, said.append)
    seed = recipe.output / "seed-1"
    trained = [line.split(":")[0] for line in said if "validation F1" in line]
    names = ("baseline", "text", "image")
    assert trained == [str(seed / part / name) for part in ("", "folds/1-of-2", "folds/2-of-2") for name in names]
    assert {p.name for p in (seed / "folds").glob("*/*")} == {"outputs.safetensors"}
    split = load_split(recipe.data.train)
    for place, (rest, own) in enumerate(text_folds(split, 2), 1):
        outputs = load_outputs(seed / "folds" / f"{place}-of-2" / "outputs.safetensors")
        assert outputs.names == ("text", "image")
        assert len(outputs.available) == len(own.posts)
        assert not {p.text for p in rest.posts} & {p.text for p in own.posts}
    gate = (seed / "gate.safetensors").read_bytes()
    evaluate_seed(recipe, "validation", 1)
    other = recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"folds": 3})})
    with pytest.raises(RecipeError, match=r"another configuration \(gate.folds changed\); run `moreie train` again"):
        evaluate_seed(other, "validation", 1)
    (seed / "folds" / "2-of-2" / "outputs.safetensors").unlink()
    said.clear()
    train_recipe(recipe, said.append)
    assert [line.split(":")[0] for line in said if "validation F1" in line] == [
        str(seed / "folds" / "2-of-2" / name) for name in names
    ], "a fold that is done is kept"
    assert (seed / "gate.safetensors").read_bytes() == gate


def test_posts_of_one_text_are_held_out_together(data: Path) -> None:
    recipe_split = load_split(_files(data / "mnre-sample.txt"))
    fit, held = hold_out(recipe_split, 0.5)
    assert len(fit.posts) + len(held.posts) == len(recipe_split.posts)
    assert not {p.text for p in fit.posts} & {p.text for p in held.posts}
    folds = [own for _, own in text_folds(recipe_split, 3)]
    assert sorted(p.id for p in joined_splits(folds).posts) == sorted(p.id for p in recipe_split.posts)
    for rest, own in text_folds(recipe_split, 3):
        assert len(rest.posts) + len(own.posts) == len(recipe_split.posts)
        assert not {p.text for p in rest.posts} & {p.text for p in own.posts}


def _files(path: Path) -> Any:
    from moreie.training.recipe import SplitFiles

    return SplitFiles(posts=path)


def test_an_unknown_relation_label_is_named(data: Path, tiny_encoder_folder: Path) -> None:
    from moreie.encoders.text import TextEncoder
    from moreie.models.assembly import View
    from moreie.models.expert import ExpertSpec
    from moreie.models.relation import RelationExpert

    posts = read_posts(data / "mnre-sample.txt")
    spec = ExpertSpec(task="re", name="x", labels=("None",), view=View(None), encoder="tiny")
    expert = RelationExpert(spec, TextEncoder.from_pretrained(tiny_encoder_folder))
    with pytest.raises(MoreieError, match=r"relation label .* is unknown; known are None"):
        relation_examples(expert, posts, [()] * len(posts))


def test_a_missing_training_is_named(tmp_path: Path, recipe_file: Callable[..., Path]) -> None:
    recipe = load_recipe(recipe_file(tmp_path))
    with pytest.raises(MoreieError, match="not trained yet"):
        evaluate_seed(recipe, "validation", 1)


def test_experts_that_score_spans_mix_with_one_that_scores_words(
    tmp_path: Path, recipe_file: Callable[..., Path]
) -> None:
    spans = {"scorer": "biaffine", "longest": 6}
    experts = [
        {"name": "words", "view": {"retriever": None, "words": "plain"}},
        {"name": "spans", "spans": spans},
        {"name": "text", "start_from": "spans", "spans": spans, "view": {"retriever": "text", "budget": 64}},
    ]
    recipe = load_recipe(recipe_file(tmp_path, experts=experts, mixture=[]))
    train_recipe(recipe)
    evaluation = evaluate_seed(recipe, "validation", 1)
    assert list(evaluation.predictions)[:3] == ["words", "spans", "text"]
    assert len(load_mixture(seed_folder(recipe, 1), EncoderPool()).experts) == 3


def test_a_training_mention_longer_than_any_span_is_named(tmp_path: Path, recipe_file: Callable[..., Path]) -> None:
    experts = [{"name": "spans", "spans": {"scorer": "endpoints", "longest": 1}}]
    recipe = load_recipe(recipe_file(tmp_path, experts=experts, mixture=[]))
    with pytest.raises(RecipeError, match=r"twitter2017-sample.txt: post \S+ has a mention of \d words"):
        train_recipe(recipe)
