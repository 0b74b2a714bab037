"""A transformer's states at some of its tokens: its last layer reads all of them, and computes only those asked for.

Task models read the states of a post's words, or of a few markers; those of the evidence behind them serve the last
layer as keys and values alone. For a token that is not asked for, two of its twelve products of H² are left, so that an
input with much evidence has a seventh fewer of them in an encoder of six layers, a fourteenth in one of twelve.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moreie.encoders.attention import attended

LAID_OUT_ALIKE = ("bert", "roberta", "xlm-roberta")
"""Model types whose layers have BERT's parts, and nothing behind the last one."""
RELATIVE = "mpnet"
"""The model type whose layers add a bias of the distance between two tokens."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a layer's attention is made of."""

    query: Callable[[Tensor], Tensor]
    key: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    output: Callable[[Tensor, Tensor], Tensor]
    """Of what was attended to and of the layer's own input, the input of its second half."""
    dropout: nn.Dropout
    heads: int


def has_known_layers(model: Any) -> bool:
    """Whether `up_to_the_last` and `last_layer_at` are for this model."""
    config = model.config
    if config.model_type in LAID_OUT_ALIKE and config.is_decoder:
        return False
    return config.model_type in (*LAID_OUT_ALIKE, RELATIVE) and len(model.encoder.layer) > 0


def up_to_the_last(model: Any) -> Any:
    """The same model, its very weights and layers, without the last one: its last hidden states are what that reads."""
    short = _sharing(model)
    short.pooler = None
    short.encoder = _sharing(model.encoder)
    short.encoder.layer = nn.ModuleList(list(model.encoder.layer)[:-1])
    return short


def at(states: Tensor, anchors: Tensor) -> Tensor:
    """Of states [B, S, H] those at `anchors` [B, A]: [B, A, H]."""
    return states.gather(1, anchors[..., None].expand(-1, -1, states.shape[2]))


def last_layer_at(model: Any, hidden: Tensor, reads: Tensor, anchors: Tensor) -> Tensor:
    """States [B, A, H] of the last layer at `anchors` [B, A], from all states [B, S, H] of the one before.

    `reads` [B, 1, A, S] bool, or [B, 1, 1, S]: the tokens that each anchor attends to.
    """
    layer = model.encoder.layer[-1]
    relative = model.config.model_type == RELATIVE
    parts = _relative_parts(layer) if relative else _parts(layer)
    own = at(hidden, anchors)

    dropout = parts.dropout.p if parts.dropout.training else 0.0
    if relative:
        reads = with_distances(model.encoder, hidden, reads, anchors)
    mixed = attended(parts.query(own), parts.key(hidden), parts.value(hidden), parts.heads, reads, dropout)
    mixed = parts.output(mixed, own)
    states: Tensor = layer.output(layer.intermediate(mixed), mixed)
    return states


def _parts(layer: Any) -> _Parts:
    attention, within = layer.attention, layer.attention.self
    return _Parts(within.query, within.key, within.value, attention.output, within.dropout, within.num_attention_heads)


def _relative_parts(layer: Any) -> _Parts:
    attention, within = layer.attention, layer.attention.attn

    def output(attended: Tensor, own: Tensor) -> Tensor:
        mixed: Tensor = attention.LayerNorm(attention.dropout(within.o(attended)) + own)
        return mixed

    return _Parts(within.q, within.k, within.v, output, within.dropout, within.num_attention_heads)


def with_distances(encoder: Any, hidden: Tensor, reads: Tensor | None, anchors: Tensor | None = None) -> Tensor:
    """What is added to the scores of all tokens or of those at `anchors` [B or 1, heads, S or A, S]: the bias of each
    distance, and -inf where nothing is to be read."""
    every: Tensor = encoder.compute_position_bias(hidden[:1])  # [1, heads, S, S]
    if anchors is not None:
        every = every[0][:, anchors].transpose(0, 1)
    return every if reads is None else every.masked_fill(~reads, -torch.inf)


def without_layers(encoder: Any) -> Any:
    """The same part of a model, that of `with_distances` for example, which holds none of its layers."""
    bare = _sharing(encoder)
    bare.layer = nn.ModuleList()
    return bare


def _sharing(module: Any) -> Any:
    """A module of its own with the same parameters and parts."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other
