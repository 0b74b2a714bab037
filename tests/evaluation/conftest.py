"""Results on disk, made of answers drawn by chance."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from moreie.evaluation.predictions import MIXTURE, Evaluation, save_predictions
from moreie.evaluation.summary import Origin, results, write_summary

VARIANTS = {"baseline": 0.6, "text": 0.7, "image": 0.65, MIXTURE: 0.8}


def answers(k: int, seed: int, posts: int = 60) -> Evaluation:
    """Spans of three types; each variant finds its share of them, and takes some for another type."""
    chance = random.Random(10 * k + seed)
    gold = [[(random.Random(n).choice(["PER", "LOC", "ORG"]), w, w) for w in range(n % 4)] for n in range(posts)]
    predictions = {
        variant: [
            [(type if chance.random() < 0.9 else "PER", a, b) for type, a, b in row if chance.random() < share]
            for row in gold
        ]
        for variant, share in VARIANTS.items()
    }
    gate = torch.tensor([[0.25, 0.5, 0.25]] * posts)
    confidences = [[round(chance.random(), 4) for _ in row] for row in predictions[MIXTURE]]
    names = ("baseline", "text", "image")
    return Evaluation("ner", seed, [f"p{n}" for n in range(posts)], gold, predictions, names, gate, confidences)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds with k = 1 and with k = 3."""
    folder, rows = tmp_path_factory.mktemp("results"), []
    for k in (1, 3):
        evaluations = [answers(k, seed) for seed in (1, 2, 3)]
        names = tuple(f"set-tiny-k{k}/test-seed-{e.seed}.jsonl.zst" for e in evaluations)
        for evaluation, name in zip(evaluations, names, strict=True):
            save_predictions(evaluation, folder / name)
        ks = {variant: 0 if variant == "baseline" else k for variant in VARIANTS}
        rows += results(Origin("set", "test", "ner", "tiny", ks, "moreie …", None, names), evaluations)
    write_summary(folder, rows)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "results")
