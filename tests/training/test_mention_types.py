"""Typed markers on posts whose mentions have no types: from files to an expert, its scores and what is noted of it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from moreie.datasets import read_posts
from moreie.errors import CheckpointError, MoreieError, RecipeError
from moreie.evaluation.analysis.cost import costs
from moreie.evaluation.predictions import MIXTURE
from moreie.evaluation.run import evaluate_seed
from moreie.models.expert import EncoderPool, load_expert, weights_fingerprint
from moreie.models.relation import RelationExpert
from moreie.shipped import MODEL
from moreie.training.configuration import claim, configuration, expert_configuration
from moreie.training.data import load_split
from moreie.training.experts import load_experts
from moreie.training.mention_types import typed_posts, types_given, typing_expert
from moreie.training.recipe import ExpertRecipe, Recipe, SplitFiles, load_recipe
from moreie.training.run import seed_folder, train_recipe

NER = MODEL / "ner"
TYPED = {"retriever": None, "markers": "typed"}


def typed_recipe(folder: Path, encoder: Path, posts: Path, **change: Any) -> Recipe:
    files = {"posts": str(posts)}
    content: dict[str, Any] = {
        "task": "re",
        "output": "runs",
        "encoder": str(encoder),
        "adapter": {"rank": 4, "alpha": 8},
        "data": {"train": files, "validation": files, "mention_types": str(NER)},
        "experts": [{"name": "start", "view": TYPED}, {"name": "baseline", "start_from": "start", "view": TYPED}],
        "training": {"epochs": 1, "batch_size": 4, "learning_rate": 5e-3, "precision": "fp32"},
        "mixture": ["baseline"],
        "gate": {"held_out": 0.3, "folds": 2},
        **change,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_folder: Path, data: Path) -> Recipe:
    recipe = typed_recipe(tmp_path_factory.mktemp("typed"), tiny_encoder_folder, data / "mnre-sample.txt")
    train_recipe(recipe)
    return recipe


def test_an_expert_with_typed_markers_comes_back_and_is_scored(trained: Recipe) -> None:
    folder = seed_folder(trained, 1)
    (expert,) = load_experts(trained, folder, ("baseline",))
    assert expert.spec.view.markers == "typed"
    split = load_split(trained.data.validation, mention_types=trained.data.mention_types)
    pairs = [(post, *(post.mentions or ())) for post in split.posts]
    again = load_expert(RelationExpert, folder / "baseline", EncoderPool(expert.encoder.device))
    inputs = again.assemble(pairs, [()] * len(pairs))
    said = [again.spec.labels[int(p.argmax())] for p in again.log_probabilities(inputs)]
    evaluation = evaluate_seed(trained, "validation", 1)
    assert evaluation.predictions["baseline"] == evaluation.predictions[MIXTURE] == said
    (words,) = expert.encoder.word_subtokens([["PER", ":"]])
    per = [i for piece in words for i in piece]
    for (_, head, _), own in zip(pairs, inputs, strict=True):
        behind = list(own.input_ids[own.anchors[0] + 1 :][: len(per)])
        assert (behind == per) == (head.type == "PER"), "evaluation reads the types, too"
    typed = {row.variant: row.tokens for row in costs(trained, "validation").rows}["baseline"]
    assert typed == round(sum(len(x.input_ids) for x in inputs) / len(inputs), 1), "so do the costs"


def test_experts_of_other_types_are_not_taken_for_each_other(trained: Recipe, tmp_path: Path) -> None:
    baseline, folder = trained.experts[1], seed_folder(trained, 1)
    noted = {"name": "baseline", "weights": weights_fingerprint(NER / "baseline")}
    assert configuration(trained)["data"]["mention_types"] == noted
    assert expert_configuration(trained, baseline)["mention_types"] == noted
    moved = shutil.copytree(NER, tmp_path / "elsewhere")
    assert configuration(_with_types(trained, moved)) == configuration(trained), "its place does not matter"
    claim(folder / "baseline", expert_configuration(_with_types(trained, moved), baseline))
    head = moved / "baseline" / "head.safetensors"
    head.write_bytes(head.read_bytes() + b" ")
    with pytest.raises(RecipeError, match=r"another configuration \(mention_types.weights, start_from.mention_types"):
        claim(folder / "baseline", expert_configuration(_with_types(trained, moved), baseline))
    with pytest.raises(RecipeError, match=r"another configuration \(mention_types, start_from.mention_types changed"):
        claim(folder / "baseline", expert_configuration(_with_types(trained, None), baseline))
    plain = ExpertRecipe(name="plain")
    assert expert_configuration(trained, plain) == expert_configuration(_with_types(trained, None), plain)


def _with_types(recipe: Recipe, folder: Path | None) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"mention_types": folder})})


def test_how_many_were_typed_is_said(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = data / "mnre-sample.txt"
    with caplog.at_level(logging.WARNING):
        split = load_split(SplitFiles(posts=path), mention_types=NER)
    assert f"{path}: 24 of 24 mentions without a type got one: PER " in caplog.text
    posts = read_posts(path)
    assert types_given(posts, posts) == "0 of 24 mentions without a type got one"
    assert types_given(split.posts, split.posts) == "0 of 0 mentions without a type got one"
    assert typed_posts(NER, posts, 192) is typed_posts(NER / "baseline", posts, 192), "found once a process"


def test_typed_markers_need_types(tmp_path: Path, tiny_encoder_folder: Path, data: Path) -> None:
    posts = data / "mnre-sample.txt"
    files = {"posts": str(posts)}
    recipe = typed_recipe(tmp_path, tiny_encoder_folder, posts, data={"train": files, "validation": files})
    with pytest.raises(RecipeError, match=r"expert start has typed markers, but no mention in .* has a type"):
        train_recipe(recipe)
    assert not recipe.output.exists()


def test_a_model_that_gives_no_types_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"so no NER model that could give types; name the folder"):
        typing_expert(MODEL)
    for wrong in (MODEL / "relations", NER / "text"):
        with pytest.raises(CheckpointError, match="no NER expert that reads no evidence"):
            typing_expert(wrong)
    assert typing_expert(NER) == typing_expert(NER / "baseline") == NER / "baseline"
    half = shutil.copytree(NER / "baseline", tmp_path / "half")
    (half / "adapter.safetensors").unlink()
    with pytest.raises(MoreieError, match=r"half: no adapter\.safetensors"):
        typed_posts(half, [], 192)
