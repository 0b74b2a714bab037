"""A recipe is written for a user's data, and it trains a model that extracts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moreie import Extractor
from moreie.cli.app import app
from moreie.datasets import read_posts
from moreie.models.folder import read_extractor_spec
from moreie.project.settings import settings_for
from moreie.project.survey import survey
from moreie.shipped import DEMO_CORPUS, DEMO_POSTS, MODEL, TEXT_ENCODER
from moreie.training.recipe import load_recipe, read_recipe

runner = CliRunner()
TEXT = "FULL Interview : Donald Trump at CNN NEW DAY , Chris Cuomo"


@pytest.fixture
def posts(tmp_path: Path, data: Path) -> Path:
    """Genuine posts with their entities, and a pair of each post that has two as with or without a relation."""
    rows: list[dict[str, Any]] = []
    for n, post in enumerate(read_posts(data / "twitter2017-sample.txt") + read_posts(data / "twitter2015-sample.txt")):
        row: dict[str, Any] = {"id": f"p{n}", "text": post.text, "caption": f"a photo of {post.words[0].text}"}
        row["mentions"] = [{"start": m.start, "end": m.end, "type": m.type} for m in post.mentions or ()]
        if len(row["mentions"]) > 1:
            row["relations"] = [{"head": 0, "tail": 1, "type": "near" if n % 2 else "None"}]
        rows.append(row)
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def shortened(recipe: Path) -> Path:
    """The recipe with one epoch in place of what suits so few posts."""
    recipe.write_text(re.sub(r"(epochs|patience): \d+", r"\1: 1", recipe.read_text()))
    return recipe


def test_one_file_becomes_a_project_that_trains_and_extracts(
    tmp_path: Path, posts: Path, tiny_encoder_folder: Path
) -> None:
    without = tmp_path / "plain.jsonl"
    without.write_text(re.sub(r'"caption": "[^"]*", ', "", posts.read_text()))
    folder = tmp_path / "mine"
    command = ["init", str(folder), "--data", str(without), "--encoder", str(tiny_encoder_folder)]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "taken from" in done.stdout
    assert f"moreie train {folder}/ner.yaml" in done.stdout
    assert "retrieve" not in done.stdout, "there is no evidence to be found"
    for task in ("ner", "re"):
        recipe = folder / f"{task}.yaml"
        assert [e.name for e in load_recipe(recipe).experts] == ["baseline"]
        assert runner.invoke(app, ["check", str(recipe), "--no-measure"]).exit_code == 0
        trained = runner.invoke(app, ["train", str(shortened(recipe))])
        assert trained.exit_code == 0, trained.output
    scored = runner.invoke(app, ["evaluate", str(folder / "ner.yaml")])
    assert scored.exit_code == 0, scored.output
    extractor = Extractor.from_pretrained(folder / "model")
    assert extractor.name == "mine"
    assert extractor.relations is not None
    assert set(extractor.relations.labels) == {"None", "near"}
    assert extractor.extract(TEXT).model == "mine"
    extractor.save_pretrained(tmp_path / "whole")
    shutil.rmtree(folder)
    assert Extractor.from_pretrained(tmp_path / "whole").extract(TEXT) == extractor.extract(TEXT)


@pytest.mark.slow
def test_a_project_with_corpus_captions_and_pictures_trains_and_extracts(
    tmp_path: Path, posts: Path, tiny_encoder_folder: Path
) -> None:
    pictures = sorted((DEMO_POSTS.parent / "pictures").glob("*.jpg"))
    rows = [json.loads(line) for line in posts.read_text().splitlines()]
    for row, picture in zip(rows, pictures * len(rows), strict=False):
        row["image"] = str(picture)
    posts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "mine"
    command = ["init", str(folder), "--data", str(posts), "--corpus", str(DEMO_CORPUS), "--task", "ner"]
    done = runner.invoke(app, [*command, "--encoder", str(tiny_encoder_folder)])
    assert done.exit_code == 0, done.output
    recipe = shortened(folder / "ner.yaml")
    assert [e.name for e in read_recipe(recipe).experts] == ["start", "baseline", "text", "image", "caption"]
    early = runner.invoke(app, ["check", str(recipe)])
    assert early.exit_code == 1
    assert "moreie retrieve --recipe" in early.stdout
    for command in (["retrieve", "--recipe"], ["check"], ["train"], ["evaluate"]):
        ran = runner.invoke(app, [*command, str(recipe)])
        assert ran.exit_code == 0, ran.output
    again = runner.invoke(app, ["retrieve", "--recipe", str(recipe)])
    assert again.stderr.count("made before, kept") == 6
    extractor = Extractor.from_pretrained(folder / "model", corpus=DEMO_CORPUS)
    (answer,) = extractor.extract_batch(read_posts(posts)[:1])
    assert set(answer.gate.entities) == {"baseline", "text", "image", "caption"}
    assert {e.retriever for e in answer.evidence} >= {"image", "caption"}


def test_a_recipe_says_what_the_data_have(tmp_path: Path, posts: Path, small_corpus: Path) -> None:
    folder = tmp_path / "mine"
    given = ["--validation", str(posts), "--test", str(posts), "--corpus", str(small_corpus), "--task", "ner"]
    done = runner.invoke(app, ["init", str(folder), "--data", str(posts), *given])
    assert done.exit_code == 0, done.output
    assert "taken from" not in done.stdout
    assert not (folder / "data").exists(), "files that are there are named, not copied"
    assert not (folder / "re.yaml").exists()
    recipe = read_recipe(folder / "ner.yaml")
    assert [e.name for e in recipe.experts] == ["start", "baseline", "text", "caption"], "the corpus has no pictures"
    assert recipe.members == ("baseline", "text", "caption")
    assert recipe.data.test is not None
    assert recipe.data.test.posts.samefile(posts)
    assert recipe.adapter is not None
    assert recipe.encoder == str(TEXT_ENCODER)
    assert str(TEXT_ENCODER) not in (folder / "ner.yaml").read_text(), "another machine has it in another place"
    assert "--split test" in done.stdout
    made = json.loads((folder / "model" / "extractor.json").read_text())
    assert made["relations"] is None


def test_relations_alone_take_entities_from_the_shipped_model(tmp_path: Path, posts: Path) -> None:
    done = runner.invoke(app, ["init", str(tmp_path / "mine"), "--data", str(posts), "--task", "re"])
    assert done.exit_code == 0, done.output
    assert "by the model that ships" in done.stdout
    model = tmp_path / "mine" / "model"
    made = json.loads((model / "extractor.json").read_text())
    assert made["ner"] == "shipped:models/default/ner", "another machine has the package in another place"
    assert read_extractor_spec(model).place("ner", model).resolve() == (MODEL / "ner").resolve()
    assert made["relations"] == "../runs/re/seed-1"


def test_nothing_is_written_over_without_being_told(tmp_path: Path, posts: Path) -> None:
    folder = tmp_path / "mine"
    command = ["init", str(folder), "--data", str(posts), "--task", "ner"]
    assert runner.invoke(app, command).exit_code == 0
    (folder / "ner.yaml").write_text("mine")
    (folder / "model" / "extractor.json").unlink()
    refused = runner.invoke(app, command)
    assert refused.exit_code == 2
    assert "ner.yaml" in refused.stderr
    assert "--force" in refused.stderr
    assert (folder / "ner.yaml").read_text() == "mine"
    assert not (folder / "model" / "extractor.json").exists(), "all or nothing"
    assert runner.invoke(app, [*command, "--force"]).exit_code == 0
    assert read_recipe(folder / "ner.yaml").task == "ner"


def test_posts_are_split_by_their_text_and_always_alike(tmp_path: Path, posts: Path) -> None:
    lines = posts.read_text().splitlines()
    posts.write_text("\n".join([*lines, lines[0].replace('"p0"', '"again"')]) + "\n")
    found = survey(posts)
    train, held = ({p.text for p in found.posts[s]} for s in ("train", "validation"))
    assert train.isdisjoint(held)
    posts.write_text("\n".join(reversed(posts.read_text().splitlines())) + "\n")
    again = survey(posts)
    assert {p.text for p in again.posts["validation"]} == held


@pytest.mark.parametrize(
    "rows, options, said",
    [
        ([{"text": "a b"}], [], "too few"),
        ([{"text": f"post {i}"} for i in range(40)], [], "no post has typed mentions or relations"),
        ([{"text": f"post {i}", "mentions": []} for i in range(40)], ["--task", "re"], "no post has relations"),
        ([{"text": "a b"}], ["--task", "both"], "ner or re"),
        ([{"texts": "a b"}], [], "posts.jsonl:1"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], options: list[str], said: str
) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = runner.invoke(app, ["init", str(tmp_path / "mine"), "--data", str(path), *options])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "mine").exists()


def test_settings_follow_size_encoder_and_machine() -> None:
    twitter = settings_for("ner", 3373, shipped=True, gpu=False)
    assert (twitter.epochs, twitter.further, twitter.batch_size, twitter.whole) == (3, 2, 16, False)
    few = settings_for("ner", 200, shipped=True, gpu=True)
    assert (few.epochs, few.batch_size, few.whole) == (20, 8, False)
    assert settings_for("re", 12247, shipped=True, gpu=False).epochs == 2
    assert settings_for("ner", 3000, shipped=False, gpu=True).whole
    assert not settings_for("ner", 3000, shipped=False, gpu=False).whole
