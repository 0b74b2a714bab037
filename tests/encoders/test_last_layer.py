from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, MPNetConfig, PretrainedConfig, RobertaConfig, XLMRobertaConfig

from moreie.encoders.adapters import AdapterConfig
from moreie.encoders.last_layer import at
from moreie.encoders.merging import added, merged
from moreie.encoders.text import TextEncoder, batch_tensors

ROWS = [[2, 7, 9, 30, 41, 11, 3], [2, 12, 3], [2, *range(10, 40), 3]]
ANCHORS = torch.tensor([[1, 4, 0], [1, 0, 0], [5, 20, 31]])


def whole(encoder: TextEncoder, ids: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
    return at(encoder(ids, mask, positions), ANCHORS)


@pytest.mark.parametrize("kind", [BertConfig, RobertaConfig, XLMRobertaConfig, MPNetConfig])
def test_states_at_some_tokens_are_those_of_the_whole_forward_pass(
    kind: type[PretrainedConfig], encoder_of_kind: Callable[[type[Any]], TextEncoder]
) -> None:
    encoder = encoder_of_kind(kind)
    ids, mask = batch_tensors(ROWS, 0)
    assert encoder._without_last is not None
    for name, weight in encoder.model.named_parameters():
        if "relative_attention_bias" in name:
            weight.data.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(encoder.states_at(ids, mask, ANCHORS), whole(encoder, ids, mask), atol=1e-5)
    assert not any("_without_last" in name for name in encoder.state_dict())


def test_tokens_of_pairs_read_what_they_may(tiny_encoder_folder: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    ids, mask = batch_tensors(ROWS, 0)
    positions = torch.arange(ids.shape[1]).expand_as(ids).clone()
    mask[2, 24:28], mask[2, 28:] = 2, 3
    positions[2, 24:28] = positions[2, 28:32] = torch.arange(4)
    with torch.no_grad():
        at = encoder.states_at(ids, mask, ANCHORS, positions)
        assert torch.allclose(at, whole(encoder, ids, mask, positions), atol=1e-5)
        assert not torch.allclose(at, encoder.states_at(ids, mask.clamp_max(1), ANCHORS, positions), atol=1e-3)


def test_adapters_and_gradients_reach_the_last_layer(tiny_encoder_folder: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    ids, mask = batch_tensors(ROWS, 0)
    with torch.no_grad():
        plain = encoder.states_at(ids, mask, ANCHORS)  # the short model is made before there are adapters
    encoder.add_adapter("one", AdapterConfig(4, 8))
    for key, value in encoder.model.state_dict().items():
        if "lora_B" in key:
            value.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = whole(encoder, ids, mask)
        assert not torch.allclose(expected, plain, atol=1e-3)
        for block in (merged(encoder, "one"), added(encoder, "one")):
            with block:
                assert torch.allclose(encoder.states_at(ids, mask, ANCHORS), expected, atol=1e-4)
    weights = [p for p in encoder.parameters() if p.requires_grad]
    gradients = [
        torch.autograd.grad(states.square().sum(), weights, materialize_grads=True)
        for states in (whole(encoder, ids, mask), encoder.states_at(ids, mask, ANCHORS))
    ]
    for long, short in zip(*gradients, strict=True):
        assert torch.allclose(long, short, atol=1e-3, rtol=1e-3)
    assert any(gradient.any() for gradient in gradients[0])
