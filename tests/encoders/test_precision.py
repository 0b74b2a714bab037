"""Kinds of arithmetic: what is computed in bfloat16 is near float32's, and float32 can be had on any machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moreie.encoders import merging
from moreie.encoders.adapters import AdapterConfig
from moreie.encoders.batches import side_by_side
from moreie.encoders.merging import Reading, bare, folded, merged, merged_weights, stays_folded
from moreie.encoders.precision import bf16_is_fast, fast_batch, float32, product_kind
from moreie.encoders.text import TextEncoder, batch_tensors
from moreie.errors import EncoderError

ROWS = [[2, 7, 9, 30, 41, 11, 3], [2, 12, 3], [2, *range(10, 40), 3]]
KINDS = (torch.float32, torch.bfloat16)


@pytest.fixture
def encoder(either_encoder_folder: Path) -> TextEncoder:
    """With two adapters that change its states."""
    encoder = TextEncoder.from_pretrained(either_encoder_folder)
    for name in ("one", "two"):
        encoder.add_adapter(name, AdapterConfig(4, 8))
    for key, value in encoder.model.state_dict().items():
        if "lora_B" in key:
            value.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return encoder.eval()


def test_a_block_and_the_environment_ask_for_float32_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not bf16_is_fast("cpu"), "tests ask for it"
    monkeypatch.delenv("MOREIE_PRECISION")
    by_itself = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    kind = torch.bfloat16 if by_itself else torch.float32
    assert (product_kind("cpu"), fast_batch("cpu")) == (kind, 1024 if by_itself else 512)
    with float32():
        found = side_by_side(lambda _: product_kind("cpu"), range(4), "cpu")
    assert found == [torch.float32] * 4, "also in threads that batches are computed in"
    monkeypatch.setenv("MOREIE_PRECISION", "auto")
    assert product_kind("cpu") == kind
    monkeypatch.setenv("MOREIE_PRECISION", "float16")
    with pytest.raises(EncoderError, match=r"MOREIE_PRECISION=float16: it may be auto .* or float32"):
        product_kind("cpu")


@torch.no_grad()
def test_states_in_bfloat16_are_near_those_in_float32(encoder: TextEncoder) -> None:
    ids, mask = batch_tensors(ROWS, 0)
    with merged(encoder, "one"):
        exact = encoder(ids, mask)
    with merged(encoder, "one", torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        near = encoder(ids, mask).float()
    error = (near - exact)[mask > 0].norm() / exact[mask > 0].norm()
    assert 0 < error < 0.02
    with merged(encoder, "one"):
        assert torch.equal(encoder(ids, mask), exact), "the float32 weights are there again"


@pytest.mark.parametrize("kind", KINDS)
def test_folded_weights_stay_until_what_they_are_made_of_changes(encoder: TextEncoder, kind: torch.dtype) -> None:
    assert stays_folded(encoder, "one", kind)
    first = folded(encoder, "one", kind)
    assert folded(encoder, "one", kind) is first
    assert folded(encoder, "two", kind) is not first
    with merged(encoder, "one", kind):
        pass
    assert folded(encoder, "one", kind) is first, "weights that were put back are the same"
    state = {key: value + 1 for key, value in encoder.adapter_state("one").items()}
    encoder.load_adapter_state("one", state)
    again = folded(encoder, "one", kind)
    assert again is not first
    with torch.no_grad():
        encoder.adapted_layers()["encoder.layer.0.output.dense"].base_layer.bias.add_(1)
    assert folded(encoder, "one", kind) is not again
    encoder.train()
    assert not encoder.folded
    folded(encoder, "one", kind)
    assert not encoder.folded, "in training weights are about to change"


@torch.no_grad()
def test_bare_weights_are_cast_once(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "product_kind", lambda device: torch.bfloat16)
    ids, mask = batch_tensors(ROWS, 0)
    with bare(encoder), torch.autocast("cpu", torch.bfloat16):
        expected = encoder(ids, mask)
    reading = Reading(encoder, None, 10, 2)
    for _ in range(2):
        with reading.batch(), torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(encoder(ids, mask).float(), expected.float(), atol=0.05)
    (kept,) = encoder.folded.items()
    assert kept[0] == (None, torch.bfloat16)
    assert kept[1].weights is folded(encoder, None, torch.bfloat16)
    for layer in encoder.adapted_layers().values():
        layer.base_layer.weight.mul_(2)
    with Reading(encoder, None, 10, 1).batch(), torch.autocast("cpu", torch.bfloat16):
        assert not torch.allclose(encoder(ids, mask), expected, atol=1e-2), "until they change"


def test_an_encoder_made_in_inference_mode_is_folded_too(either_encoder_folder: Path) -> None:
    with torch.inference_mode():
        encoder = TextEncoder.from_pretrained(either_encoder_folder)
        encoder.add_adapter("one", AdapterConfig(4, 8))
        encoder.eval()
        ids, mask = batch_tensors(ROWS, 0)
        with merged(encoder, "one"):
            states = encoder(ids, mask)
        assert states.shape == (3, ids.shape[1], encoder.hidden_size)
        assert folded(encoder, "one", torch.float32) is folded(encoder, "one", torch.float32)


def test_no_more_is_kept_than_there_is_room_for(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(weight.nbytes for weight in merged_weights(encoder, "one").values())
    monkeypatch.setattr(merging, "KEPT", size * 3 // 2)
    kept, other = folded(encoder, "one", torch.float32), folded(encoder, "two", torch.float32)
    assert list(encoder.folded) == [("one", torch.float32)]
    assert folded(encoder, "one", torch.float32) is kept
    assert folded(encoder, "two", torch.float32) is not other
    assert not stays_folded(encoder, "two", torch.float32)
    assert folded(encoder, "two", torch.bfloat16) is folded(encoder, "two", torch.bfloat16)
    assert stays_folded(encoder, "one", torch.bfloat16), "each kind has room of its own"
