"""DINOv2 and its preprocessing without `transformers` are what they are by `transformers`, to the last bit."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, PreTrainedModel

from moreie.encoders import images, packing
from moreie.encoders.dinov2 import CentredCrop, Dinov2Model, read_config
from moreie.encoders.images import ImageEncoder, load_image
from moreie.errors import EncoderError
from moreie.shipped import DEMO_CORPUS, IMAGE_ENCODER

PICTURES = sorted((DEMO_CORPUS.parent / "pictures").glob("*.jpg"))


@cache
def own() -> ImageEncoder:
    return ImageEncoder.from_pretrained(IMAGE_ENCODER, device="cpu")


@cache
def published() -> ImageEncoder:
    model = packing.load_model(Path(IMAGE_ENCODER))
    return ImageEncoder(model, AutoImageProcessor.from_pretrained(IMAGE_ENCODER), str(IMAGE_ENCODER), "cpu")


def test_vectors_and_fingerprint_are_the_same() -> None:
    assert isinstance(own().model, Dinov2Model)
    assert isinstance(published().model, PreTrainedModel)
    assert own().fingerprint == published().fingerprint
    assert own().dimension == published().dimension
    assert len(PICTURES) > 3
    assert np.allclose(own().encode(PICTURES), published().encode(PICTURES), atol=1e-6)
    pixels = own().processor(images=[load_image(path) for path in PICTURES], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = published().model(pixel_values=pixels).last_hidden_state
        assert torch.allclose(own().model(pixels).last_hidden_state, expected, atol=1e-4)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_pixels_are_the_same(width: int, height: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pictures = [Image.fromarray(noise)]
    if max(width, height) > 50 * min(width, height):
        pictures = [load_image(PICTURES[seed % len(PICTURES)])]
    found = own().processor(images=pictures, return_tensors="pt")["pixel_values"]
    assert torch.equal(found, published().processor(images=pictures, return_tensors="pt")["pixel_values"])


def test_in_bfloat16_it_is_as_near_as_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = own().encode(PICTURES)
    assert own()._in_bfloat16 is not None
    monkeypatch.setattr(images, "product_kind", lambda device: torch.bfloat16)
    ready = own().encode(PICTURES)
    monkeypatch.setitem(own().__dict__, "_in_bfloat16", None)
    monkeypatch.setattr(images, "autocast", lambda device: torch.autocast("cpu", torch.bfloat16))
    by_autocast = own().encode(PICTURES)
    errors = [1 - (vectors * exact).sum(1).min() for vectors in (ready, by_autocast)]
    assert 0 < errors[0] < 2e-3
    assert errors[0] < 2 * errors[1]


def test_it_is_saved_as_it_was(tmp_path: Path) -> None:
    own().save_packed(tmp_path)
    again = ImageEncoder.from_pretrained(tmp_path, device="cpu")
    assert isinstance(again.model, Dinov2Model)
    assert np.abs(again.encode(PICTURES[:2]) - own().encode(PICTURES[:2])).max() < 2e-3
    by_transformers = packing.load_model(tmp_path).state_dict()
    assert all(torch.equal(weight, by_transformers[name]) for name, weight in again.model.state_dict().items())


def test_other_encoders_are_left_to_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(IMAGE_ENCODER, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "use_swiglu_ffn": True}))
    assert read_config(folder) is None
    (folder / "config.json").write_text(json.dumps(config))
    assert read_config(folder) is not None
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    for changed in (
        {"resample": 2},
        {"do_center_crop": False},
        {"size": {"height": 224, "width": 224}},
        {"size": 256},
        {"crop_size": 224},
        {"crop_size": {"height": 300, "width": 224}},
    ):
        (folder / "preprocessor_config.json").write_text(json.dumps({**settings, **changed}))
        assert CentredCrop.from_folder(folder) is None, changed
    encoder = ImageEncoder.from_pretrained(folder, device="cpu")
    assert isinstance(encoder.model, PreTrainedModel)
    assert encoder.encode(PICTURES[:1]).shape == (1, own().dimension)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(IMAGE_ENCODER, folder)
    content = (folder / packing.FILE).read_bytes()
    (folder / packing.FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(EncoderError, match="damaged weights"):
        ImageEncoder.from_pretrained(folder)
