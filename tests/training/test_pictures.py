"""Gates that read the posts' pictures, from the recipe to the extraction, with the shipped image encoder."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.encoders.images import ImageEncoder
from moreie.errors import CheckpointError, RecipeError
from moreie.evaluation.analysis.cost import costs
from moreie.evaluation.run import evaluate_seed
from moreie.models.expert import EncoderPool
from moreie.models.gate import Gate
from moreie.models.mixture import load_mixture
from moreie.retrieval.attached import attach_texts
from moreie.retrieval.cache import save_evidence
from moreie.shipped import DEMO_POSTS, IMAGE_ENCODER
from moreie.training.configuration import configuration, digest
from moreie.training.data import load_split
from moreie.training.experts import load_experts
from moreie.training.gate import gate_data
from moreie.training.pictures import GatePictures
from moreie.training.recipe import Recipe, load_recipe
from moreie.training.run import seed_folder, train_recipe

SAMPLES = {"ner": "twitter2017-sample.txt", "re": "mnre-sample.txt"}


def recipe_file(folder: Path, encoder: Path, data: Path, **change: Any) -> Path:
    """A recipe whose posts have the demo's pictures, but for one that is broken and one that is not there."""
    posts = data / SAMPLES[change.get("task", "ner")]
    read = read_posts(posts)
    names = list(dict.fromkeys(post.image_id or "" for post in read))
    demo = sorted((DEMO_POSTS.parent / "pictures").iterdir())
    (folder / "pictures").mkdir(parents=True)
    for i, name in enumerate(names[:-1]):
        shutil.copy(demo[i % len(demo)], folder / "pictures" / f"{Path(name).stem}.jpg")
    (folder / "pictures" / f"{Path(names[1]).stem}.jpg").write_bytes(b"")
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"id": post.id, "text": f"About {post.text}"}) + "\n" for post in read[::2]))
    attached = attach_texts(read, texts, "knowledge")
    save_evidence(folder / "knowledge.zst", attached.header, read, attached.rows)
    files = {"posts": str(posts), "images": "pictures", "evidence": {"knowledge": "knowledge.zst"}}
    content = {
        "task": "ner",
        "output": "runs",
        "encoder": str(encoder),
        "adapter": {"rank": 4, "alpha": 8},
        "data": {"train": files, "validation": files},
        "experts": [{"name": "baseline"}, {"name": "knowledge", "view": {"retriever": "knowledge", "budget": 128}}],
        "training": {"epochs": 1, "batch_size": 4, "learning_rate": 5e-3, "precision": "fp32"},
        **change,
        "gate": {
            "folds": 2,
            "inputs": ["image", "entropy"],
            "image_encoder": os.path.relpath(IMAGE_ENCODER, folder),
            **change.get("gate", {}),
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_folder: Path, data: Path) -> Recipe:
    recipe = load_recipe(recipe_file(tmp_path_factory.mktemp("pictures") / "run", tiny_encoder_folder, data))
    train_recipe(recipe)
    # So few posts teach a gate nothing: with weights of any kind it is seen whether it reads the pictures.
    gate = Gate.load(seed_folder(recipe, 1))
    torch.nn.init.normal_(gate.linear.weight, generator=torch.Generator().manual_seed(1))
    gate.save(seed_folder(recipe, 1))
    return recipe


def test_the_gate_reads_embeddings_and_whether_there_is_a_picture(
    trained: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    split = load_split(trained.data.validation)
    with caplog.at_level(logging.WARNING):
        data = gate_data(trained, load_experts(trained, seed_folder(trained, 1)), split)
    assert "of 10 posts 1 have no picture, 1 have one that cannot be read" in caplog.text
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    assert data.spec.sizes == (encoder.dimension + 1, 2)
    assert data.spec.image_encoder_fingerprint == encoder.fingerprint
    there = data.features[:, encoder.dimension]
    assert there.tolist() == [1, 0] + [1] * 7 + [0]
    pictures = [post.image for post in split.posts if post.image is not None]
    expected = encoder.encode([pictures[0]])[0]
    assert torch.allclose(data.features[0, : encoder.dimension], torch.from_numpy(expected), atol=2e-3)
    assert (data.features[there == 0, : encoder.dimension] == 0).all()


def test_each_picture_is_embedded_once(tmp_path: Path, tiny_encoder_folder: Path, data: Path) -> None:
    recipe = load_recipe(recipe_file(tmp_path / "run", tiny_encoder_folder, data))
    posts = load_split(recipe.data.train).posts
    pictures = GatePictures(recipe)
    before = pictures.rows(posts)
    shutil.rmtree(tmp_path / "run" / "pictures")
    assert torch.equal(pictures.rows(posts).nan_to_num(), before.nan_to_num()), "the files are not read again"
    with pytest.raises(RecipeError, match=r"of 10 posts .* cannot be read .*named in data\.<split>\.images"):
        GatePictures(recipe).rows(posts)


def test_the_trained_mixture_embeds_pictures_itself(trained: Recipe) -> None:
    folder = seed_folder(trained, 1)
    mixture = load_mixture(folder, EncoderPool())
    assert mixture.image_encoder is not None
    saved = json.loads((folder / "gate.json").read_text())
    assert saved["image_encoder"] == "shipped:encoders/dinov2-small", "not by the way to where the package lies"
    split = load_split(trained.data.validation)
    own = mixture(split.posts, split.evidence)
    given = mixture(split.posts, split.evidence, GatePictures(trained).rows(split.posts))
    assert torch.allclose(own.weights, given.weights, atol=1e-3)
    blind = mixture(split.posts, split.evidence, torch.full((10, mixture.image_encoder.dimension), torch.nan))
    assert not torch.allclose(own.weights, blind.weights, atol=1e-3), "the weights follow the pictures"
    evaluation = evaluate_seed(trained, "validation", 1)
    assert evaluation.gate.sum(1).tolist() == pytest.approx([1.0] * 10)


def test_an_extractor_gives_the_gate_its_pictures(trained: Recipe, small_corpus: Path, tmp_path: Path) -> None:
    extractor = Extractor.from_pretrained(seed_folder(trained, 1), corpus=small_corpus)
    posts = load_split(trained.data.validation).posts
    answers = extractor.extract_batch(posts)
    expected = extractor.ner(posts, {}).weights
    for answer, weights in zip(answers, expected, strict=True):
        assert list(answer.gate.entities.values()) == pytest.approx(weights.tolist(), abs=1e-3)
    assert "only the gate read the picture: the corpus holds no images" in answers[0].warnings
    assert any("0 bytes" in warning for warning in answers[1].warnings)
    assert "no picture" in answers[9].warnings
    extractor.save_pretrained(tmp_path / "model")
    again = Extractor.from_pretrained(tmp_path / "model", corpus=small_corpus)
    assert again.extract(posts[0]).gate == extractor.extract(posts[0]).gate


def test_another_image_encoder_is_noticed(trained: Recipe, clip: ImageEncoder) -> None:
    gate = trained.gate.model_copy(update={"image_encoder": clip.name})
    other = trained.model_copy(update={"gate": gate})
    assert digest(configuration(other)) != digest(configuration(trained))
    assert configuration(trained)["gate"]["image_encoder"] == IMAGE_ENCODER.name, "not where it lies"
    with pytest.raises(RecipeError, match=r"another configuration \(gate\.image_encoder changed\)"):
        evaluate_seed(other, "validation", 1)
    folder = trained.output / "other"
    shutil.copytree(seed_folder(trained, 1), folder)
    spec = Gate.load(seed_folder(trained, 1)).spec.model_dump() | {"image_encoder": clip.name}
    (folder / "gate.json").write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match=f"fitted on pictures embedded by .*{Path(clip.name).name} is"):
        load_mixture(folder, EncoderPool())


def test_recipes_without_pictures_keep_their_configuration(trained: Recipe) -> None:
    gate = trained.gate.model_copy(update={"inputs": ("entropy",), "image_encoder": None})
    assert "image_encoder" not in configuration(trained.model_copy(update={"gate": gate}))["gate"]


def test_costs_count_the_image_encoder(trained: Recipe) -> None:
    rows = {row.variant: row for row in costs(trained, "validation").rows}
    assert rows["gate"].gflops > 5, "eight pictures under a small vision transformer"


@pytest.mark.parametrize(
    "change",
    [
        {"gate": {"cross_fit": True}},
        {"gate": {"level": "token", "held_out": 0.5}},
        {"task": "re", "gate": {"held_out": 0.4}},
    ],
    ids=["cross-fitted", "words, held out", "relations, held out"],
)
def test_every_way_of_fitting_reads_pictures(
    tmp_path: Path, tiny_encoder_folder: Path, data: Path, clip: ImageEncoder, change: dict[str, Any]
) -> None:
    change["gate"]["image_encoder"] = clip.name
    recipe = load_recipe(recipe_file(tmp_path / "run", tiny_encoder_folder, data, **change))
    train_recipe(recipe)
    assert Gate.load(seed_folder(recipe, 1)).spec.inputs[0] == "image"
    evaluation = evaluate_seed(recipe, "validation", 1)
    assert torch.isfinite(evaluation.gate).all()
    assert evaluation.gate.sum(1).tolist() == pytest.approx([1.0] * len(evaluation.ids), abs=1e-5)
