"""BERT and its tokenizer without `transformers` are what they are by it: to the last bit where they learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from moreie.encoders import attention, packing
from moreie.encoders.bert import BertModel, read_config
from moreie.encoders.text import MARKERS, TextEncoder
from moreie.encoders.tokenizer import FolderTokenizer
from moreie.errors import EncoderError
from moreie.shipped import TEXT_ENCODER


@pytest.fixture(scope="module")
def own() -> TextEncoder:
    return TextEncoder.from_pretrained(TEXT_ENCODER)


@pytest.fixture(scope="module")
def published() -> TextEncoder:
    model = packing.load_model(Path(TEXT_ENCODER)).eval()
    return TextEncoder(model, AutoTokenizer.from_pretrained(TEXT_ENCODER), str(TEXT_ENCODER)).eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, a mask that reads all, and one that does not [3, 20]."""
    ids = torch.randint(1_000, 30_000, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    cut = mask.clone()
    cut[0, 12:] = 0
    return ids, mask, cut


@pytest.mark.parametrize("by_torch", [True, False])
def test_states_are_the_same(
    own: TextEncoder, published: TextEncoder, by_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_torch:
        monkeypatch.setattr(attention, "_short", lambda *_: None)

    def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
        return torch.equal(found, expected) if by_torch else torch.allclose(found, expected, atol=1e-5)

    assert isinstance(own.model, BertModel)
    assert isinstance(published.model, PreTrainedModel)
    ids, *masks = inputs()
    anchors = torch.arange(5).repeat(3, 1)
    for mask in masks:
        with torch.no_grad():
            assert same(own(ids, mask), published(ids, mask))
            assert same(own.states_at(ids, mask, anchors), published.states_at(ids, mask, anchors))
    assert own.takes_positions
    places = torch.arange(20).flip(0).repeat(3, 1)
    apart = masks[0].clone()
    apart[:, 10:15], apart[:, 15:] = 2, 3
    assert torch.equal(own(ids, apart, places), published(ids, apart, places))


def test_training_drops_out_and_learns_the_same() -> None:
    """Dropout takes the same random numbers in the same order, so that seeds mean what they meant."""
    own = TextEncoder.from_pretrained(TEXT_ENCODER).train()
    model = packing.load_model(Path(TEXT_ENCODER))
    published = TextEncoder(model, AutoTokenizer.from_pretrained(TEXT_ENCODER), "published").train()
    ids, _, mask = inputs()
    found = []
    for encoder in (own, published):
        torch.manual_seed(1)
        states = encoder(ids, mask)
        states.square().sum().backward()
        gradients = {name: weight.grad for name, weight in encoder.model.named_parameters() if weight.grad is not None}
        found.append((states, gradients))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        if "token_type" in name:  # the sum over all tokens, in another order
            assert torch.allclose(gradient, found[1][1][name], rtol=1e-4)
        else:
            assert torch.equal(gradient, found[1][1][name]), name


def test_fingerprint_and_names_are_the_same(own: TextEncoder, published: TextEncoder, tmp_path: Path) -> None:
    assert own.fingerprint == published.fingerprint
    assert list(own.trunk_state()) == list(published.trunk_state())
    for saved_by, folder in ((own, "own"), (published, "published")):
        saved_by.save(tmp_path / folder)
        again = TextEncoder.from_pretrained(tmp_path / folder)
        assert isinstance(again.model, BertModel)
        assert again.fingerprint == own.fingerprint
        by_transformers = AutoModel.from_pretrained(tmp_path / folder).state_dict()
        assert all(torch.equal(weight, by_transformers[name]) for name, weight in again.model.state_dict().items())


@given(st.lists(st.text(max_size=12), max_size=6))
@settings(max_examples=150, deadline=None)
def test_subtokens_are_the_same(texts: list[str]) -> None:
    backend, hugging = _tokenizers()
    assert backend.word_subtokens([texts]) == hugging.word_subtokens([texts])
    assert list(map(list, backend.subtokens(texts))) == list(map(list, hugging.subtokens(texts)))


_kept: list[tuple[TextEncoder, TextEncoder]] = []


def _tokenizers() -> tuple[TextEncoder, TextEncoder]:
    if not _kept:
        model = BertModel.from_folder(Path(TEXT_ENCODER), _config(Path(TEXT_ENCODER)))
        hugging = AutoTokenizer.from_pretrained(TEXT_ENCODER)
        _kept.append((TextEncoder.from_pretrained(TEXT_ENCODER), TextEncoder(model, hugging, "hugging")))
    return _kept[0]


def _config(folder: Path) -> Any:
    config = read_config(folder)
    assert config is not None
    return config


def test_special_tokens_are_the_same(tmp_path: Path) -> None:
    own = FolderTokenizer.from_folder(Path(TEXT_ENCODER))
    assert own is not None
    hugging = AutoTokenizer.from_pretrained(TEXT_ENCODER)
    for role in ("unk", "pad", "cls", "sep", "mask", "bos", "eos"):
        assert getattr(own, f"{role}_token_id") == getattr(hugging, f"{role}_token_id"), role
    assert own.all_special_ids == sorted(hugging.all_special_ids)
    assert own.get_vocab() == hugging.get_vocab()
    assert len(own) == len(hugging)
    assert own.convert_tokens_to_ids([*MARKERS, "no such token"]) == hugging.convert_tokens_to_ids(
        [*MARKERS, "no such token"]
    )
    own.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == hugging.get_vocab()


def test_other_encoders_are_left_to_transformers(
    tiny_encoder_folder: Path, encoder_of_kind: Callable[[type[Any]], TextEncoder], tmp_path: Path
) -> None:
    assert isinstance(TextEncoder.from_pretrained(tiny_encoder_folder).model, PreTrainedModel), "without markers"
    saved = tmp_path / "saved"
    TextEncoder.from_pretrained(tiny_encoder_folder).save(saved)
    assert isinstance(TextEncoder.from_pretrained(saved).model, BertModel)
    config = json.loads((saved / "config.json").read_text())
    for changed in ({"hidden_act": "relu"}, {"is_decoder": True}, {"dtype": "float16"}, {"quantization_config": {}}):
        (saved / "config.json").write_text(json.dumps({**config, **changed}))
        assert read_config(saved) is None, changed
    (saved / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert isinstance(TextEncoder.from_pretrained(saved).model, PreTrainedModel)


def test_weights_of_other_names_are_left_to_transformers(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    encoder.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    state = load_file(weights)
    save_file({f"bert.{name}": weight for name, weight in state.items()}, weights, metadata={"format": "pt"})
    assert BertModel.from_folder(tmp_path, _config(tmp_path)) is None
    again = TextEncoder.from_pretrained(tmp_path)
    assert isinstance(again.model, PreTrainedModel)
    assert again.fingerprint == encoder.fingerprint
    weights.unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert TextEncoder.from_pretrained(tmp_path).fingerprint == encoder.fingerprint
    save_file({name: weight.half() for name, weight in state.items()}, weights, metadata={"format": "pt"})
    halved = BertModel.from_folder(tmp_path, _config(tmp_path))
    assert halved is not None
    assert {weight.dtype for weight in halved.parameters()} == {torch.float32}


def test_damage_is_named(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    encoder.save(plain)
    encoder.save_packed(packed, matrix_bits=8, embedding_bits=8)
    weights = plain / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(EncoderError, match="no text encoder at"):
        TextEncoder.from_pretrained(plain)
    weights.unlink()
    with pytest.raises(EncoderError, match="no text encoder at"):
        TextEncoder.from_pretrained(plain)
    weights.write_bytes(content)
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps({**config, "intermediate_size": 65}))
    with pytest.raises(EncoderError, match="no text encoder at"):
        TextEncoder.from_pretrained(plain)
    (packed / packing.FILE).write_bytes(b"\0" * 40)
    with pytest.raises(EncoderError, match="damaged weights"):
        TextEncoder.from_pretrained(packed)
    (packed / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match="no text encoder at"):
        TextEncoder.from_pretrained(packed)
