"""What an expert was trained with stands in its folder."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from moreie.datasets import read_posts
from moreie.encoders.precision import bf16_is_fast, default_device
from moreie.encoders.text import TextEncoder
from moreie.models.assembly import EvidenceForm, View
from moreie.models.expert import ExpertSpec
from moreie.models.ner import NerExpert
from moreie.training.features import ner_examples
from moreie.training.recipe import Optimisation
from moreie.training.trained_with import FILE
from moreie.training.trainer import train_expert


@pytest.mark.parametrize(
    ("asked", "environment"), [("auto", "float32"), ("auto", "auto"), ("fp32", "auto"), ("bf16", "float32")]
)
def test_the_arithmetic_that_a_training_came_to_is_kept(
    tmp_path: Path, tiny_encoder_folder: Path, data: Path, asked: str, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOREIE_PRECISION", environment)
    posts = read_posts(data / "twitter2017-sample.txt")[:4]
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    labels = tuple(sorted({m.type or "" for p in posts for m in p.mentions or ()}))
    view = View(None, EvidenceForm.paragraph, budget=60)
    expert = NerExpert(ExpertSpec(task="ner", name="baseline", labels=labels, view=view, encoder=encoder.name), encoder)
    examples = ner_examples(expert, posts, [()] * len(posts))
    settings = Optimisation.model_validate({"epochs": 1, "batch_size": 4, "precision": asked})
    train_expert(expert, examples, examples, settings, output=tmp_path / "expert", seed=1)
    said = json.loads((tmp_path / "expert" / FILE).read_bytes())
    fast = environment == "auto" and bf16_is_fast(default_device())
    assert said["precision"] == (("bf16" if fast else "fp32") if asked == "auto" else asked)
    assert said["device"] == default_device().type
    assert said["versions"] == {name: version(name) for name in ("torch", "transformers")}
