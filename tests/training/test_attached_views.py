"""Texts attached by the command are read by experts of their own, and a mixture of them is trained and evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from moreie.cli.app import app
from moreie.datasets import read_posts
from moreie.evaluation.predictions import MIXTURE
from moreie.evaluation.run import evaluate_seed
from moreie.training.recipe import load_recipe
from moreie.training.run import train_recipe


def test_captions_and_knowledge_are_views_of_experts(tmp_path: Path, data: Path, tiny_encoder_folder: Path) -> None:
    posts = data / "twitter2017-sample.txt"
    captions = tmp_path / "captions.jsonl"
    rows = [{"image_id": post.image_id, "caption": "people at a concert"} for post in read_posts(posts)]
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, texts in (("caption", captions), ("knowledge", data / "pgim-sample.txt")):
        command = ["attach", str(texts), "--input", str(posts), "--name", name, "--save", str(tmp_path / f"{name}.zst")]
        assert CliRunner().invoke(app, command).exit_code == 0
    files = {"posts": str(posts), "evidence": {"caption": "caption.zst", "knowledge": "knowledge.zst"}}
    recipe = {
        "task": "ner",
        "output": "runs",
        "encoder": str(tiny_encoder_folder),
        "data": {"train": files, "validation": files},
        "experts": [
            {"name": "baseline"},
            {"name": "caption", "start_from": "baseline", "view": {"retriever": "caption", "budget": 128}},
            {"name": "knowledge", "start_from": "baseline", "view": {"retriever": "knowledge", "budget": 128}},
        ],
        "training": {"epochs": 1, "batch_size": 4, "precision": "fp32"},
        "gate": {"folds": 2},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    loaded = load_recipe(path)
    train_recipe(loaded)
    evaluation = evaluate_seed(loaded, "validation", 1)
    assert {"baseline", "caption", "knowledge", MIXTURE} <= set(evaluation.predictions)
    assert evaluation.gate.sum(1).tolist() == pytest.approx([1.0] * 10)
    knowing = [i for i, weight in enumerate(evaluation.gate[:, 2].tolist()) if weight > 0]
    assert knowing == [0, 1, 3], "an expert has no weight where the post has no text"
