"""Encoders in 8 bits give nearly the states of the encoder they were made of, with each adapter its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, DistilBertConfig, ElectraConfig, MPNetConfig, PretrainedConfig, RobertaConfig

from moreie.datasets import post_from_text
from moreie.encoders.adapters import AdapterConfig
from moreie.encoders.int8 import Int8TextEncoder
from moreie.encoders.last_layer import at
from moreie.encoders.text import TextEncoder, batch_tensors
from moreie.errors import EncoderError
from moreie.models.assembly import View
from moreie.models.expert import ExpertSpec
from moreie.models.int8 import in_int8
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder: Path) -> TextEncoder:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    encoder.add_adapter("ner-one", AdapterConfig(4, 8))
    for key, value in encoder.model.state_dict().items():
        if "lora_B" in key:
            value.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return encoder.eval()


@pytest.fixture(scope="module")
def small(encoder: TextEncoder) -> Int8TextEncoder:
    return Int8TextEncoder(encoder, ["ner-one"])


@pytest.mark.parametrize("adapter", [None, "ner-one"])
def test_states_are_nearly_those_of_the_encoder(
    encoder: TextEncoder, small: Int8TextEncoder, adapter: str | None
) -> None:
    ids, mask = batch_tensors([[2, 7, 9, 30, 41, 3], [2, 12, 3], [2, *range(10, 60), 3]], 0)
    for either in (encoder, small):
        either.use_adapter(adapter)
    with torch.no_grad():
        expected, found = encoder(ids, mask), small(ids, mask)
    real = mask.bool()
    assert torch.cosine_similarity(expected[real], found[real], dim=1).min() > 0.99
    assert not torch.equal(expected, found)


def test_states_at_some_tokens_are_those_of_all(small: Int8TextEncoder) -> None:
    ids, mask = batch_tensors([[2, 7, 9, 30, 41, 3], [2, 12, 3], [2, *range(10, 60), 3]], 0)
    anchors = torch.tensor([[1, 4], [1, 0], [50, 7]])
    for adapter in (None, "ner-one"):
        small.use_adapter(adapter)
        # Each side of a product is quantised by its range: that of the anchors alone is not that of all.
        some = small.states_at(ids, mask, anchors)
        assert torch.cosine_similarity(some, at(small(ids, mask), anchors), dim=2).min() > 0.99


def test_adapters_differ_and_others_are_refused(small: Int8TextEncoder) -> None:
    ids, mask = batch_tensors([[2, 7, 9, 3]], 0)
    small.use_adapter(None)
    bare = small(ids, mask)
    small.use_adapter("ner-one")
    assert not torch.allclose(bare, small(ids, mask), atol=1e-2)
    with pytest.raises(EncoderError, match="no adapter 'ner-two' in 8 bits"):
        small.use_adapter("ner-two")


@torch.no_grad()
def test_a_posts_states_do_not_depend_on_those_beside_it(small: Int8TextEncoder) -> None:
    rows = [[2, 7, 9, 30, 41, 3], [2, 12, 33, 8, 20, 3], [2, *range(10, 60), 3]]
    small.use_adapter("ner-one")
    together = small(*batch_tensors(rows[:2], 0))
    for own, row in zip(together, rows, strict=False):
        assert torch.allclose(own, small(*batch_tensors([row], 0))[0], atol=1e-5)


def test_it_is_not_saved(small: Int8TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="save the one that it was made of"):
        small.save(tmp_path)
    with pytest.raises(EncoderError, match="save the one that it was made of"):
        small.save_adapter("ner-one", tmp_path)


def test_its_weights_are_not_taken_for_the_others(encoder: TextEncoder, small: Int8TextEncoder) -> None:
    assert small.fingerprint != encoder.fingerprint


def test_experts_share_the_small_encoder_and_keep_their_heads(encoder: TextEncoder) -> None:
    spec = ExpertSpec(
        task="ner", name="one", labels=("PER",), view=View(None), encoder="tiny", adapter=AdapterConfig(4, 8)
    )
    expert = NerExpert(spec, encoder).eval()
    (mixture,) = in_int8([Mixture([expert], None)])
    (own,) = mixture.experts
    assert isinstance(own.encoder, Int8TextEncoder)
    assert expert.encoder is encoder, "what it is made of stays as it is"
    posts = [post_from_text(text, id=str(i)) for i, text in enumerate(["Kawhi Leonard wins", "a"] * 100)]
    wholes, smalls = [e.log_probabilities(e.assemble(posts, [()] * 200)) for e in (expert, own)]
    assert all(a.shape == b.shape for a, b in zip(wholes, smalls, strict=True))
    assert max((a.exp() - b.exp()).abs().max() for a, b in zip(wholes, smalls, strict=True)) < 0.1


@pytest.mark.parametrize("kind", [RobertaConfig, MPNetConfig, ElectraConfig, DistilBertConfig])
def test_encoders_of_other_kinds(
    kind: type[PretrainedConfig], encoder_of_kind: Callable[[type[Any]], TextEncoder]
) -> None:
    """Positions from 2 on, a bias of the distance, layers that are computed everywhere."""
    encoder = encoder_of_kind(kind).eval()
    ids, mask = batch_tensors([[2, 7, 9, 30, 41, 3], [2, 12, 3], [2, *range(10, 60), 3]], 0)
    anchors = torch.tensor([[1, 4], [1, 0], [50, 7]])
    with torch.no_grad():
        expected = at(encoder(ids, mask), anchors)
    found = Int8TextEncoder(encoder, []).states_at(ids, mask, anchors)
    assert torch.cosine_similarity(expected, found, dim=2).min() > 0.98


@pytest.mark.parametrize("kind", [BertConfig, ElectraConfig])
def test_adapters_of_encoders_of_other_kinds(
    kind: type[PretrainedConfig], encoder_of_kind: Callable[[type[Any]], TextEncoder]
) -> None:
    encoder = encoder_of_kind(kind)
    encoder.add_adapter("one", AdapterConfig(4, 8))
    for key, value in encoder.adapter_state("one").items():
        if "lora_B" in key:
            value.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    ids, mask = batch_tensors([[2, 7, 9, 30, 41, 3], [2, *range(10, 60), 3]], 0)
    small = Int8TextEncoder(encoder.eval(), ["one"])
    for adapter in (None, "one"):
        encoder.use_adapter(adapter)
        small.use_adapter(adapter)
        with torch.no_grad():
            expected = encoder(ids, mask)[mask > 0]
        assert torch.cosine_similarity(expected, small(ids, mask)[mask > 0], dim=1).min() > 0.98
    assert any(isinstance(part, nn.Linear) for part in encoder.model.modules()), "what it was made of stays as it is"


def test_where_8_bits_were_not_measured_it_is_said(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = ExpertSpec(
        task="ner", name="one", labels=("PER",), view=View(None), encoder="tiny", adapter=AdapterConfig(4, 8)
    )
    mixture = Mixture([NerExpert(spec, encoder).eval()], None)
    in_int8([mixture])
    assert not caplog.records
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    in_int8([mixture])
    assert "8 bits were not measured on a processor like this" in caplog.text


@torch.no_grad()
def test_levitated_markers_are_read_alike(encoder: TextEncoder, small: Int8TextEncoder) -> None:
    """Tokens that only those of the same number read, at positions of their own."""
    ids = torch.tensor([[2, 7, 9, 30, 41, 3, 11, 12, 13, 14]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 2, 2, 3, 3]])
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 3, 2, 4]])
    for either in (encoder, small):
        either.use_adapter("ner-one")
    expected, found = encoder(ids, mask, positions), small(ids, mask, positions)
    assert torch.cosine_similarity(expected, found, dim=2).min() > 0.99
    assert not torch.allclose(found, small(ids, torch.ones_like(mask), positions), atol=1e-3)


def test_an_encoder_that_is_not_on_a_processor_is_refused(tiny_encoder_folder: Path) -> None:
    with pytest.raises(EncoderError, match="8-bit extraction is for processors; the encoder is on meta"):
        Int8TextEncoder(TextEncoder.from_pretrained(tiny_encoder_folder).to("meta"), [])
