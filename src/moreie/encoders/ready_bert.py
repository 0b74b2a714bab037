"""A BERT made ready to be read with one adapter, or without: its weights in the kind of number that is fast, products
of the same states as one product, in the order of the processor's kernels.

Under autocast a layer casts its states for each of its six products, and each product of a few hundred rows brings its
weights into another order first. Here states are cast twice, and the order stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from moreie.encoders.bert import BertModel, Layer, attended
from moreie.encoders.last_layer import at
from moreie.encoders.products import Product

_ready: ContextVar[Mapping[int, ReadyBert | None]] = ContextVar("ready", default=MappingProxyType({}))
"""By its model's `id` what this context reads of each."""


@dataclass(frozen=True, slots=True)
class _ReadyLayer:
    mixed: tuple[Product, ...]
    """Query, key and value as one product, or, in the last layer, the query and the other two."""
    attended: Product
    first_norm: nn.LayerNorm
    inner: Product
    outer: Product
    second_norm: nn.LayerNorm

    def second_half(self, mixed: Tensor, states: Tensor) -> Tensor:
        """The layer's states behind its attention, in float32."""
        states = self.first_norm(self.attended(mixed) + states)
        found: Tensor = self.second_norm(self.outer(self.inner(states.to(mixed.dtype))) + states)
        return found


class ReadyBert:
    """The layers of a BERT with an adapter's weights folded in; nothing of it is trained."""

    def __init__(self, model: BertModel, weight: Callable[[str], Tensor], kind: torch.dtype):
        """`weight` gives that of a linear layer by its name, with an adapter or without, in the kind to compute in."""
        self._embeddings, self._heads = model.embeddings, model.config.num_attention_heads
        layers: list[Layer] = list(model.encoder.layer)  # type: ignore[arg-type]
        self._layers = [
            _made_ready(layer, f"encoder.layer.{n}.", weight, last=n == len(layers) - 1)
            for n, layer in enumerate(layers)
        ]
        self._kind = kind

    def states(
        self, embedded: Tensor, reads: Tensor | None, position_ids: Tensor | None, anchors: Tensor | None
    ) -> Tensor:
        """States [B, A, H] at `anchors` [B, A] (all without), in float32, of sub-tokens that have been looked up
        [B, S, H]; `reads`: None, or bool [B, 1, 1 or S, S], what each reads."""
        states = self._embeddings(embedded, position_ids)
        for layer in self._layers[:-1]:
            (mixed,) = layer.mixed
            query, key, value = mixed(states.to(self._kind)).chunk(3, dim=-1)
            states = layer.second_half(attended(query, key, value, self._heads, reads), states)
        layer = self._layers[-1]
        own = states
        if anchors is not None:
            own = at(states, anchors)
            if reads is not None and reads.shape[2] > 1:
                reads = reads.gather(2, anchors[:, None, :, None].expand(-1, -1, -1, reads.shape[3]))
        asked, told = layer.mixed
        key, value = told(states.to(self._kind)).chunk(2, dim=-1)
        return layer.second_half(attended(asked(own.to(self._kind)), key, value, self._heads, reads), own)


def _made_ready(layer: Layer, path: str, weight: Callable[[str], Tensor], *, last: bool) -> _ReadyLayer:
    within = {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value"}
    biases = {name: part.bias for name, part in layer.named_modules() if isinstance(part, nn.Linear)}

    def product(*names: str, gelu: bool = False) -> Product:
        bias: list[Tensor] = [biases[name] if name in biases else biases[f"{name}.base_layer"] for name in names]
        return Product([weight(path + name) for name in names], bias, gelu=gelu)

    mixed: tuple[Product, ...] = (product(*within.values()),)
    if last:
        mixed = product(within["query"]), product(within["key"], within["value"])
    return _ReadyLayer(
        mixed,
        product("attention.output.dense"),
        layer.attention.output.LayerNorm,
        product("intermediate.dense", gelu=True),
        product("output.dense"),
        layer.output.LayerNorm,
    )


@contextmanager
def reading(model: object, ready: ReadyBert | None) -> Iterator[None]:
    """Within the block, in its context (`contextvars`), the model's states are those of `ready`; None: its own."""
    before = _ready.set({**_ready.get(), id(model): ready})
    try:
        yield
    finally:
        _ready.reset(before)


def ready_for(model: object) -> ReadyBert | None:
    """What this context reads of a model; None where it computes by its own layers."""
    return _ready.get().get(id(model))
