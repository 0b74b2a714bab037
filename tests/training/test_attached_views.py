"""Texts attached by the command are read by experts of their own: trained, evaluated, and given to an Extractor."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moreie import Extractor
from moreie.cli.app import app
from moreie.datasets import read_captions
from moreie.errors import MoreieError
from moreie.evaluation.predictions import MIXTURE
from moreie.evaluation.run import evaluate_seed
from moreie.models.decoding import decode
from moreie.models.expert import EncoderPool
from moreie.models.mixture import Mixture, load_mixture
from moreie.retrieval.attached import match_file
from moreie.schema import Extraction
from moreie.training.data import load_split
from moreie.training.recipe import Recipe
from moreie.training.run import seed_folder


@pytest.fixture(scope="module")
def trained(attached_recipe: Recipe) -> Recipe:
    return attached_recipe


@pytest.fixture(scope="module")
def taught(trained: Recipe, small_corpus: Path) -> Extractor:
    return Extractor.from_pretrained(seed_folder(trained, 1), corpus=small_corpus)


def test_captions_and_knowledge_are_views_of_experts(trained: Recipe) -> None:
    evaluation = evaluate_seed(trained, "validation", 1)
    assert {"baseline", "caption", "knowledge", MIXTURE} <= set(evaluation.predictions)
    assert evaluation.gate.sum(1).tolist() == pytest.approx([1.0] * 10)
    knowing = [i for i, weight in enumerate(evaluation.gate[:, 2].tolist()) if weight > 0]
    assert knowing == [0, 1, 3], "an expert has no weight where the post has no text"


def agree(answers: list[Extraction], mixture: Mixture, recipe: Recipe) -> None:
    """Are the answers those of the mixture on the evidence that `moreie attach` made?"""
    split = load_split(recipe.data.validation)
    mixed = mixture(split.posts, split.evidence)
    spans = decode(mixture.experts[0].tagset, mixed.log_probabilities, mixture.threshold)
    for n, (answer, weights, own) in enumerate(zip(answers, mixed.weights, spans, strict=True)):
        assert list(answer.gate.entities.values()) == pytest.approx(weights.tolist(), abs=1e-4)
        assert [(m.type, m.first, m.last) for m in answer.mentions] == own
        attached = [e for e in answer.evidence if e.retriever != "text"]
        assert attached == [*split.evidence["caption"][n], *split.evidence["knowledge"][n]], "the very same evidence"


def test_an_extractor_reads_texts_as_they_were_read_in_training(trained: Recipe, taught: Extractor) -> None:
    mixture = load_mixture(seed_folder(trained, 1), EncoderPool())
    assert mixture.titles == {"caption": "Image", "knowledge": ""}
    assert taught.attachable == ("caption", "knowledge")
    posts = load_split(trained.data.validation).posts
    folder = trained.output.parent
    knowledge = match_file(posts, folder / "knowledge.txt").texts
    captions = match_file(posts, folder / "captions.jsonl").texts
    attached = [{"caption": c, "knowledge": k} for c, k in zip(captions, knowledge, strict=True)]
    answers = taught.extract_batch(posts, attached=attached, batch_size=64)
    agree(answers, mixture, trained)
    assert any(e.passage.title == "Image" for e in answers[1].evidence)
    left_out = (
        "the caption expert was left out: it reads caption evidence, which is not retrieved, and none was attached"
    )
    assert any(warning.startswith(left_out) for warning in answers[0].warnings)
    assert not any("left out" in warning for warning in answers[1].warnings)
    # A post that carries its caption needs none given.
    own = read_captions(folder / "captions.jsonl", "caption")
    captioned = [replace(post, caption=own.get(post.image_id or "")) for post in posts]
    agree(taught.extract_batch(captioned, attached=[{"knowledge": k} for k in knowledge]), mixture, trained)
    alone = taught.extract(captioned[1], attached={"knowledge": knowledge[1]})
    assert alone.gate.entities == pytest.approx(answers[1].gate.entities, abs=1e-3)
    assert taught.extract(posts[1]).gate.entities != pytest.approx(answers[1].gate.entities, abs=1e-3)
    with pytest.raises(
        MoreieError, match=r"no expert of the model reads attached 'text'; they read caption, knowledge"
    ):
        taught.extract(posts[0], attached={"text": "x"})


def test_the_command_attaches_files(trained: Recipe, small_corpus: Path, tmp_path: Path) -> None:
    folder = trained.output.parent
    two = tmp_path / "two.jsonl"
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    two.write_text("".join(json.dumps(row | {"other": "x"}) + "\n" for row in rows))
    command = ["extract", "--input", str(trained.data.validation.posts), "--model", str(seed_folder(trained, 1))]
    command += ["--corpus", str(small_corpus), "--json", "--attach", f"knowledge={folder / 'knowledge.txt'}"]
    attach = ["--attach", f"caption={two}", "--attach-field", "caption=caption"]
    done = CliRunner().invoke(app, [*command, *attach])
    assert done.exit_code == 0, done.output
    assert "knowledge.txt: 10 posts, 3 with a text; 0 texts belong to none of them" in done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    read = [sum(e["retriever"] == name for a in answers for e in a["evidence"]) for name in ("caption", "knowledge")]
    assert read == [9, 3]
    mixture = load_mixture(seed_folder(trained, 1), EncoderPool())
    split = load_split(trained.data.validation)
    expected = mixture(split.posts, split.evidence).weights
    for answer, weights in zip(answers, expected, strict=True):
        assert list(answer["gate"]["entities"].values()) == pytest.approx(weights.tolist(), abs=1e-4)
    for wrong, said in (
        (["--attach", "caption"], "give a name and a value"),
        (["--attach", f"knowledge={two}"], "knowledge is given twice"),
        (["--attach-field", "caption=other"], "there is no --attach caption=FILE"),
        (["--attach", f"caption={two}"], "which field holds the text"),
        (["--attach", f"gossip={folder / 'captions.jsonl'}"], "no expert of the model reads attached 'gossip'"),
    ):
        failed = CliRunner().invoke(app, [*command, *wrong])
        assert failed.exit_code == 2
        assert said in failed.stderr


def test_a_model_that_does_not_know_its_titles_says_so(trained: Recipe, small_corpus: Path) -> None:
    folder = trained.output / "older"
    shutil.copytree(seed_folder(trained, 1), folder)
    spec = json.loads((folder / "mixture.json").read_text())
    assert spec.pop("titles") == {"caption": "Image", "knowledge": ""}
    (folder / "mixture.json").write_text(json.dumps(spec))
    older = Extractor.from_pretrained(folder, corpus=small_corpus)
    (warning,) = [w for w in older.extract("a post", attached={"caption": "a stage"}).warnings if "title" in w]
    assert "which title the caption expert read before each caption in training" in warning


def test_a_saved_model_keeps_its_titles(taught: Extractor, tmp_path: Path, small_corpus: Path) -> None:
    taught.save_pretrained(tmp_path / "model")
    again = Extractor.from_pretrained(tmp_path / "model", corpus=small_corpus)
    given = {"caption": "a stage", "knowledge": "Nashville is a city."}
    assert again.extract("Live from Nashville", attached=given) == taught.extract("Live from Nashville", attached=given)
