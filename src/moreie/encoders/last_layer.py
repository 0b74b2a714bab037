"""A transformer's states at some of its tokens: its last layer reads all of them, and computes only those asked for.

Task models read the states of a post's words, or of a few markers; those of the evidence behind them serve the last
layer as keys and values alone. For a token that is not asked for, two of its twelve products of H² are left, so that an
input with much evidence has a seventh fewer of them in an encoder of six layers, a fourteenth in one of twelve.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

LAID_OUT_ALIKE = ("bert", "roberta", "xlm-roberta")
"""Model types whose layers have BERT's parts, and nothing behind the last one."""


def has_known_layers(model: Any) -> bool:
    """Whether `up_to_the_last` and `last_layer_at` are for this model."""
    return model.config.model_type in LAID_OUT_ALIKE and not model.config.is_decoder and len(model.encoder.layer) > 0


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
    attention = layer.attention.self
    own = at(hidden, anchors)

    def heads(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)

    attended = functional.scaled_dot_product_attention(
        heads(attention.query(own)),
        heads(attention.key(hidden)),
        heads(attention.value(hidden)),
        attn_mask=reads,
        dropout_p=attention.dropout.p if attention.training else 0.0,
    )
    mixed = layer.attention.output(attended.transpose(1, 2).flatten(2), own)
    states: Tensor = layer.output(layer.intermediate(mixed), mixed)
    return states


def _sharing(module: Any) -> Any:
    """A module of its own with the same parameters and parts."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other
