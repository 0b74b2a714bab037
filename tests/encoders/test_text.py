from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moreie.encoders import merging
from moreie.encoders.adapters import AdapterConfig
from moreie.encoders.batches import computing_with, side_by_side
from moreie.encoders.merging import WORTH, Reading, added, bare, merged
from moreie.encoders.text import MARKERS, TextEncoder, batch_tensors
from moreie.errors import EncoderError


def states(encoder: TextEncoder, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return encoder(*batch_tensors([ids], 0))


def with_two_adapters(folder: Path, spread: float) -> TextEncoder:
    """An encoder with adapters "one" and "two", whose parts of the states have the `spread` of their weights."""
    encoder = TextEncoder.from_pretrained(folder)
    torch.manual_seed(0)
    for name in ("one", "two"):
        encoder.add_adapter(name, AdapterConfig(4, 8))
    for key, value in encoder.model.state_dict().items():
        if "lora_B" in key:
            value.normal_(0, spread, generator=torch.Generator().manual_seed(len(key)))
    return encoder


def test_markers_are_the_same_every_time_and_survive_saving(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    a, b = (TextEncoder.from_pretrained(tiny_encoder_folder) for _ in range(2))
    assert a.fingerprint == b.fingerprint
    a.save(tmp_path / "plain")
    again = TextEncoder.from_pretrained(tmp_path / "plain")
    assert again.fingerprint == a.fingerprint
    ids = [*a.marker_ids(*MARKERS), 5, 6]
    assert torch.allclose(states(a, ids), states(again, ids), atol=1e-6)
    a.save_packed(tmp_path / "packed", matrix_bits=8, embedding_bits=8)
    packed = TextEncoder.from_pretrained(tmp_path / "packed")
    similarity = torch.cosine_similarity(states(a, ids)[0], states(packed, ids)[0], dim=1)
    assert similarity.min() > 0.999


def test_adapters_change_the_states_only_while_active(tiny_encoder_folder: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    plain = states(encoder, [5, 6, 7])
    for name in ("one", "two"):
        encoder.add_adapter(name, AdapterConfig(4, 8))
    for key, value in encoder.model.state_dict().items():
        if "lora_B.two" in key:
            value.normal_(0, 1, generator=torch.Generator().manual_seed(1))
    encoder.use_adapter("one")
    assert torch.equal(states(encoder, [5, 6, 7]), plain), "a fresh adapter is the identity"
    encoder.use_adapter("two")
    assert not torch.allclose(states(encoder, [5, 6, 7]), plain)
    encoder.use_adapter(None)
    assert torch.equal(states(encoder, [5, 6, 7]), plain)
    assert set(encoder.trunk_state()) == set(TextEncoder.from_pretrained(tiny_encoder_folder).trunk_state())
    with pytest.raises(EncoderError, match="made for another encoder"):
        encoder.load_adapter_state("one", {"x": torch.zeros(1)})


def test_every_word_has_a_subtoken(tiny_encoder_folder: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    (pieces,) = encoder.word_subtokens([["\ufe0f", " ", "Trump", "日", "😂"]])
    assert all(pieces)
    assert pieces[0] == [encoder.tokenizer.unk_token_id]


def test_an_absent_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no text encoder at"):
        TextEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("way", [merged, added])
@torch.no_grad()
def test_threads_compute_with_adapters_of_their_own(
    either_encoder_folder: Path, way: Callable[..., AbstractContextManager[None]]
) -> None:
    encoder = TextEncoder.from_pretrained(either_encoder_folder)
    expected = {}
    for name in ("one", "two"):
        encoder.add_adapter(name, AdapterConfig(4, 8))
        for key, value in encoder.model.state_dict().items():
            if "lora_B" in key and f".{name}." in key:
                value.normal_(0, 1, generator=torch.Generator().manual_seed(len(key) + len(expected)))
        expected[name] = states(encoder, [5, 6, 7])
    assert not torch.allclose(expected["one"], expected["two"], atol=1e-2)
    inside = threading.Barrier(3)

    def read(name: str) -> Tensor:
        with way(encoder, name):
            inside.wait(30)
            own = torch.stack([states(encoder, [5, 6, 7]) for _ in range(20)])
            inside.wait(30)
        return own

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read, name) for name in ("one", "two")]
        inside.wait(30)
        elsewhere = states(encoder, [5, 6, 7])
        inside.wait(30)
        for name, own in zip(("one", "two"), reading, strict=True):
            assert torch.allclose(own.result(), expected[name].expand(20, -1, -1, -1), atol=1e-5)
    assert torch.equal(elsewhere, expected["two"]), "who is in no block keeps the active adapter"
    assert torch.equal(states(encoder, [5, 6, 7]), expected["two"])
    assert encoder.blocks == 0


@pytest.mark.parametrize("way", [merged, added])
@torch.no_grad()
def test_an_adapter_made_cheap_gives_the_same_states_and_leaves_the_weights(
    either_encoder_folder: Path, way: Callable[..., AbstractContextManager[None]]
) -> None:
    encoder = with_two_adapters(either_encoder_folder, 1)
    encoder.use_adapter("one")
    beside = states(encoder, [5, 6, 7])
    encoder.use_adapter(None)
    plain, trunk = states(encoder, [5, 6, 7]), {k: v.clone() for k, v in encoder.trunk_state().items()}
    assert not torch.allclose(beside, plain, atol=1e-2)
    for active in ("two", "one", None):
        encoder.use_adapter(active)
        with way(encoder, "one"):
            assert torch.allclose(states(encoder, [5, 6, 7]), beside, atol=1e-5)
        with bare(encoder):
            assert torch.equal(states(encoder, [5, 6, 7]), plain)
    encoder.use_adapter("one")
    assert torch.equal(states(encoder, [5, 6, 7]), beside), "as before behind the block"
    assert all(torch.equal(trunk[key], value) for key, value in encoder.trunk_state().items())
    with pytest.raises(RuntimeError, match="midway"), way(encoder, "two"):
        raise RuntimeError("midway")
    encoder.use_adapter(None)
    assert torch.equal(states(encoder, [5, 6, 7]), plain)


@pytest.mark.parametrize("tokens", [10, WORTH])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_batches_with_an_adapter_and_without_one_are_read_side_by_side(
    either_encoder_folder: Path, tokens: int, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = with_two_adapters(either_encoder_folder, 0.3).eval()
    monkeypatch.setattr(merging, "product_kind", lambda device: kind)
    monkeypatch.setattr(merging, "KEPT", 0)
    expected = {}
    for name in ("one", "two", None):
        encoder.use_adapter(name)
        expected[name] = states(encoder, [5, 6, 7])
    encoder.use_adapter("two")
    readings = {name: Reading(encoder, name, tokens, 3) for name in expected}

    def read(name: str | None) -> Tensor:
        with readings[name].batch(), torch.autocast("cpu", kind, enabled=kind is torch.bfloat16):
            return states(encoder, [5, 6, 7]).float()

    with computing_with(3):
        found = side_by_side(read, [*expected] * 3, "cpu")
    for name, said in zip([*expected] * 3, found, strict=True):
        assert torch.allclose(said, expected[name], atol=1e-5 if kind is torch.float32 else 0.1)
        assert not any(torch.allclose(said, expected[n], atol=0.3) for n in expected if n != name)
    assert encoder.blocks == 0
    assert not encoder.folded, "there was no room"


def test_an_adapter_added_in_place_has_the_same_gradients(either_encoder_folder: Path) -> None:
    encoder = with_two_adapters(either_encoder_folder, 0.3)
    encoder.use_adapter("one")
    embeddings: Any = encoder.model.get_input_embeddings()
    embeddings.weight.requires_grad_()
    weights = [p for p in encoder.parameters() if p.requires_grad]
    ids, mask = batch_tensors([[5, 6, 7, 8], [9, 10]], 0)

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(encoder(ids, mask)[:, :2].square().sum(), weights, materialize_grads=True)

    usual = gradients()
    with added(encoder, "one"):
        in_place = gradients()
    assert sum(bool(gradient.any()) for gradient in usual) > 10
    for a, b in zip(usual, in_place, strict=True):
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-4)
