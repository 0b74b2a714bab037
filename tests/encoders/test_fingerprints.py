"""Fingerprints kept beside packed encoders are those of their weights, and hold as long as their files do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from moreie.encoders.fingerprints import FILE, record_fingerprint, recorded_fingerprint
from moreie.encoders.images import ImageEncoder
from moreie.encoders.text import TextEncoder
from moreie.shipped import IMAGE_ENCODER, TEXT_ENCODER

SHIPPED = (Path(TEXT_ENCODER), Path(IMAGE_ENCODER))


def hashed(folder: Path) -> str:
    """The fingerprint of the weights themselves."""
    kind = TextEncoder if (folder / "tokenizer.json").is_file() else ImageEncoder
    encoder = kind.from_pretrained(folder)
    encoder.__dict__.pop("fingerprint", None)
    return encoder.fingerprint


@pytest.mark.parametrize("shipped", SHIPPED, ids=["text", "image"])
def test_those_of_the_shipped_encoders_are_kept_and_right(shipped: Path) -> None:
    assert recorded_fingerprint(shipped) == hashed(shipped)


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(TEXT_ENCODER, folder)
    kept = recorded_fingerprint(folder)
    assert kept == TextEncoder.from_pretrained(folder).fingerprint
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_eps": 1e-5}))
    assert recorded_fingerprint(folder) is None
    assert TextEncoder.from_pretrained(folder).fingerprint == hashed(folder) != kept


def test_an_encoder_that_is_packed_keeps_its_own(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    encoder.save_packed(tmp_path / "packed", matrix_bits=8, embedding_bits=8)
    kept = recorded_fingerprint(tmp_path / "packed")
    assert kept == hashed(tmp_path / "packed") != encoder.fingerprint
    assert recorded_fingerprint(tiny_encoder_folder) is None, "its weights are as quickly hashed as its file"


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"made_of": "0", "fingerprint": "0"}'])
def test_what_is_kept_wrongly_says_nothing(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(IMAGE_ENCODER, folder)
    right = recorded_fingerprint(folder)
    (folder / FILE).write_text(damage)
    assert recorded_fingerprint(folder) is None
    assert right is not None
    record_fingerprint(folder, right)
    assert recorded_fingerprint(folder) == right
