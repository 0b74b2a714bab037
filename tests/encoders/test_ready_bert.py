"""A BERT, or an encoder of like layers, made ready reads as its own layers do."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moreie.encoders import attention, int8, merging, ready_bert
from moreie.encoders.adapters import AdapterConfig
from moreie.encoders.merging import Reading, bare, merged
from moreie.encoders.text import TextEncoder, batch_tensors
from moreie.shipped import TEXT_ENCODER


@cache
def shipped() -> TextEncoder:
    """With an adapter that changes its states."""
    encoder = TextEncoder.from_pretrained(TEXT_ENCODER)
    encoder.add_adapter("one", AdapterConfig(4, 8))
    for key, value in encoder.adapter_state("one").items():
        if "lora_B" in key:
            value.normal_(0, 0.05, generator=torch.Generator().manual_seed(len(key)))
    return encoder.eval()


def apart(states: Tensor, expected: Tensor) -> float:
    return float((states.float() - expected).norm() / expected.norm())


rows = st.lists(st.lists(st.integers(1_000, 30_000), min_size=1, max_size=40), min_size=1, max_size=6)


@given(rows, st.integers(0, 2**31), st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_states_are_those_of_the_layers(rows: list[list[int]], seed: int, kind: torch.dtype) -> None:
    encoder = shipped()
    ids, mask = batch_tensors(rows, 0)
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.stack([torch.randint(len(row), (3,), generator=generator) for row in rows])
    encoder.use_adapter("one")
    expected, at_anchors = encoder(ids, mask), encoder.states_at(ids, mask, anchors)
    with merged(encoder, "one", kind):
        found, found_there = encoder(ids, mask), encoder.states_at(ids, mask, anchors)
    assert found.dtype is found_there.dtype is torch.float32
    error = 1e-5 if kind is torch.float32 else 0.02
    assert apart(found[mask > 0], expected[mask > 0]) < error
    assert apart(found_there, at_anchors) < error


@given(rows, st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_without_padding_they_are_the_same(rows: list[list[int]], seed: int) -> None:
    """Of the anchors that are there: of each row some."""
    encoder = shipped()
    ids, mask = batch_tensors([*rows, rows[0]], 0)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.stack([torch.randint(1, 5, (), generator=generator) for _ in ids])
    anchors = torch.stack([torch.randint(int(own.sum()), (4,), generator=generator) for own in mask])
    with merged(encoder, "one"), mock.patch.object(attention, "FEW_THREADS", 1_000):
        ready = ready_bert.ready_for(encoder.model)
        assert ready is not None
        packed, packed_there = encoder(ids, mask), encoder.states_at(ids, mask, anchors, None, counts)
        with mock.patch.object(ready_bert, "packed_kernel", return_value=None):
            assert not ready.packs(1)
            padded, padded_there = encoder(ids, mask), encoder.states_at(ids, mask, anchors)
    there = torch.arange(4) < counts[:, None]
    assert apart(packed[mask > 0], padded[mask > 0]) < 1e-5
    assert apart(packed_there[there], padded_there[there]) < 1e-5
    if attention.kernels().by_kind:
        assert not packed[mask == 0].any(), "was it without padding?"


@torch.no_grad()
def test_a_mask_with_gaps_is_read_as_it_is() -> None:
    encoder = shipped()
    ids, mask = batch_tensors([[1_010, 1_020, 1_030, 1_040], [1_050, 1_060]], 0)
    mask[0, 1] = 0
    encoder.use_adapter("one")
    expected = encoder(ids, mask)
    with merged(encoder, "one"):
        assert apart(encoder(ids, mask)[mask > 0], expected[mask > 0]) < 1e-5


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_tokens_that_only_some_read_stay_so(kind: torch.dtype) -> None:
    encoder = shipped()
    ids = torch.arange(1_000, 1_040).view(2, 20)
    mask = torch.tensor([1] * 12 + [2] * 4 + [3] * 4).repeat(2, 1)
    places = torch.tensor([*range(12), *range(3, 7), *range(5, 9)]).repeat(2, 1)
    anchors = torch.tensor([[0, 13, 17], [5, 14, 19]])
    encoder.use_adapter("one")
    expected = encoder.states_at(ids, mask, anchors, places)
    other = ids.clone()
    other[:, 16:] += 7
    with merged(encoder, "one", kind):
        found = encoder.states_at(ids, mask, anchors, places)
        changed = encoder.states_at(other, mask, anchors, places)
        everywhere = encoder(ids, mask, places)
    assert apart(found, expected) < (1e-5 if kind is torch.float32 else 0.02)
    assert torch.equal(found[:, :2], changed[:, :2]), "those of number 3 are read by none of the others"
    assert not torch.allclose(found[:, 2], changed[:, 2], atol=1e-2)
    assert torch.allclose(everywhere.gather(1, anchors[..., None].expand(-1, -1, 384)), found, atol=0.05)


@torch.no_grad()
def test_blocks_may_stand_in_each_other() -> None:
    encoder = shipped()
    ids, mask = batch_tensors([[5, 6, 7]], 0)
    with bare(encoder):
        plain = encoder(ids, mask)
    with merged(encoder, "one"):
        own = encoder(ids, mask)
        with bare(encoder):
            assert torch.equal(encoder(ids, mask), plain)
        assert torch.equal(encoder(ids, mask), own)
    assert not torch.allclose(own, plain, atol=1e-2)
    assert ready_bert.ready_for(encoder.model) is None


@torch.no_grad()
def test_an_encoder_without_adapters_is_cast_once(
    tiny_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TextEncoder.from_pretrained(tiny_encoder_folder).save(tmp_path)
    encoder = TextEncoder.from_pretrained(tmp_path)
    ids, mask = batch_tensors([[5, 6, 7, 8], [9, 10]], 0)
    expected = encoder(ids, mask)
    monkeypatch.setattr(merging, "product_kind", lambda device: torch.bfloat16)
    with Reading(encoder, None, 6, 1).batch():
        found = encoder(ids, mask)
        assert ready_bert.ready_for(encoder.model) is not None
    assert 0 < apart(found[mask > 0], expected[mask > 0]) < 0.02
    kept = encoder.folded[None, torch.bfloat16].weights
    with Reading(encoder, None, 6, 1).batch():
        assert ready_bert.ready_for(encoder.model) is kept
    encoder.model.encoder.layer[0].output.dense.weight.mul_(20)
    with Reading(encoder, None, 6, 1).batch():
        assert apart(encoder(ids, mask)[mask > 0], found[mask > 0]) > 0.02


SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 100,
}


@pytest.mark.parametrize("kind", ["BertModel", "RobertaModel", "XLMRobertaModel", "MPNetModel"])
@pytest.mark.parametrize("adapter", [None, "one"])
@torch.no_grad()
def test_published_encoders_of_like_layers_are_read_so(
    kind: str, adapter: str | None, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_encoder_folder)
    torch.manual_seed(0)
    model_class = getattr(transformers, kind)
    config = model_class.config_class(vocab_size=len(tokenizer), **SIZES, initializer_range=0.2)
    encoder = TextEncoder(model_class(config).eval(), tokenizer, kind).eval()
    assert merging.can_be_ready(encoder)
    if adapter:
        encoder.add_adapter(adapter, AdapterConfig(4, 8))
        for key, value in encoder.adapter_state(adapter).items():
            value.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(key)))
        encoder.eval()
    ids, mask = batch_tensors([list(range(20, 44)), list(range(30, 41)), [50]], tokenizer.pad_token_id)
    anchors = torch.tensor([[0, 23, 4], [10, 0, 3], [0, 0, 0]])
    expected, at_anchors = encoder(ids, mask), encoder.states_at(ids, mask, anchors)
    monkeypatch.setattr(merging, "product_kind", lambda device: torch.bfloat16)
    with Reading(encoder, adapter, merging.WORTH, 1).batch():
        assert ready_bert.ready_for(encoder.model) is not None
        found, found_there = encoder(ids, mask), encoder.states_at(ids, mask, anchors)
        whole = encoder(ids[:1], mask[:1])
    assert 0 < apart(found[mask > 0], expected[mask > 0]) < 0.03
    assert apart(found_there, at_anchors) < 0.03
    assert apart(whole, expected[:1]) < 0.03


@pytest.mark.parametrize(
    "changed", [{"hidden_act": "relu"}, {"is_decoder": True}, {"position_embedding_type": "relative_key"}]
)
def test_others_are_not(changed: dict[str, object], tiny_encoder_folder: Path) -> None:
    config = transformers.BertConfig(vocab_size=400, **SIZES, **changed)
    assert not ready_bert.has_its_layers(transformers.BertModel(config))
    other = transformers.DistilBertConfig(vocab_size=400, dim=64, n_layers=1, n_heads=2, hidden_dim=64)
    assert not ready_bert.has_its_layers(transformers.DistilBertModel(other))


def test_one_in_8_bits_is_not() -> None:
    in_8_bits = int8._Embedding(shipped().model.get_input_embeddings(), shipped().model.config)
    assert not ready_bert.has_its_layers(in_8_bits)


@given(st.integers(1, 1 << 20))
def test_rows_are_rounded_up_to_few_sizes(rows: int) -> None:
    rounded = ready_bert.rounded_rows(rows)
    assert rows <= rounded < rows + max(8, rows / 16 + 1)
    assert ready_bert.rounded_rows(rounded) == rounded


def test_an_octave_has_sixteen_sizes() -> None:
    assert len({ready_bert.rounded_rows(rows) for rows in range(513, 1_025)}) == 16
