"""A BERT, or an encoder of like layers (RoBERTa, XLM-R, MPNet), made ready to be read with one adapter, or without: its
weights in the kind of number that is fast, products of the same states as one product, in the order of the processor's
kernels.

Under autocast a layer casts its states for each of its six products, and its weights, and each product of a few hundred
rows brings its weights into another order first. Here states are cast as they are normed, and the order stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from moreie.encoders.attention import attended
from moreie.encoders.bert import BertModel
from moreie.encoders.last_layer import LAID_OUT_ALIKE, RELATIVE, at, with_distances, without_layers
from moreie.encoders.norms import norm_of_sum
from moreie.encoders.products import MakesProduct, Multiply, Product, fast_product

_ready: ContextVar[Mapping[int, ReadyBert | None]] = ContextVar("ready", default=MappingProxyType({}))
"""By its model's `id` what this context reads of each."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the parts of a layer's first half are called."""

    mixed: tuple[str, str, str]
    """Query, key and value."""
    attended: str
    norm: str


_BERT = _Layout(
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    "attention.output.LayerNorm",
)
_MPNET = _Layout(
    ("attention.attn.q", "attention.attn.k", "attention.attn.v"), "attention.attn.o", "attention.LayerNorm"
)


@dataclass(frozen=True, slots=True)
class _ReadyLayer:
    mixed: tuple[Multiply, ...]
    """Query, key and value as one product, or, in the last layer, the query and the other two."""
    attended: Multiply
    first_norm: nn.LayerNorm
    inner: Multiply
    outer: Multiply
    second_norm: nn.LayerNorm

    @property
    def by_torch(self) -> bool:
        """Whether some of its products are torch's."""
        return any(isinstance(each, Product) for each in (*self.mixed, self.attended, self.inner, self.outer))

    def second_half(self, mixed: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's states behind its attention, in float32 and in the kind of number of products."""
        states, read = norm_of_sum(self.first_norm, self.attended(mixed), states)
        return norm_of_sum(self.second_norm, self.outer(self.inner(read)), states)


def has_its_layers(model: Any) -> bool:
    """Whether a model is an encoder of BERT's layers, or MPNet's, by whichever library."""
    if isinstance(model, BertModel):
        return True
    if not isinstance(getattr(getattr(model, "encoder", None), "layer", None), nn.ModuleList):
        return False  # of another kind, or one in 8 bits, which has its layers elsewhere
    said = model.config
    known = said.model_type in LAID_OUT_ALIKE and not said.is_decoder
    known = known and getattr(said, "position_embedding_type", "absolute") == "absolute"
    return bool((known or said.model_type == RELATIVE) and said.hidden_act == "gelu")


def rounded_rows(rows: int) -> int:
    """The next of 16 numbers to an octave.

    For every number of rows oneDNN compiles a kernel of its own (3 to 20 ms) and keeps it: of batches of all sizes it
    would keep 80 MB of them.
    """
    step = max(rows.bit_length() - 5, 3)
    return (rows + (1 << step) - 1) >> step << step


def _padded(rows: Tensor, count: int) -> Tensor:
    """Rows [N, H] with rows of zeros behind them, `count` in all."""
    return rows if count == len(rows) else functional.pad(rows, (0, 0, 0, count - len(rows)))


def _parts(rows: Tensor, shape: tuple[int, int] | torch.Size, count: int) -> tuple[Tensor, ...]:
    """Of padded rows those of tokens, [B, S, H] each of so many parts."""
    return rows[: shape[0] * shape[1]].view(*shape, -1).chunk(count, dim=-1)


class ReadyBert:
    """The layers of a BERT with an adapter's weights folded in; nothing of it is trained."""

    def __init__(
        self, model: Any, weight: Callable[[str], Tensor], kind: torch.dtype, product: MakesProduct = fast_product
    ):
        """Of a model that `has_its_layers`. `weight` gives that of a linear layer by its name, with an adapter or
        without, in the kind that `product` makes products of; `kind` is that of the states between them."""
        self._embeddings, self._heads = model.embeddings, model.config.num_attention_heads
        self._relative = without_layers(model.encoder) if model.config.model_type == RELATIVE else None
        layout, layers = _MPNET if self._relative else _BERT, list(model.encoder.layer)
        self._layers = [
            _made_ready(layer, layout, f"encoder.layer.{n}.", weight, product, last=n == len(layers) - 1)
            for n, layer in enumerate(layers)
        ]
        self._kind, self._rounds = kind, any(layer.by_torch for layer in self._layers) and kind is torch.bfloat16

    def states(
        self, embedded: Tensor, reads: Tensor | None, position_ids: Tensor | None, anchors: Tensor | None
    ) -> Tensor:
        """States [B, A, H] at `anchors` [B, A] (all without), in float32, of sub-tokens that have been looked up
        [B, S, H]; `reads`: None, or bool [B, 1, 1 or S, S], what each reads."""
        shape = embedded.shape[:2]
        states = self._embeddings(inputs_embeds=embedded, position_ids=position_ids).flatten(0, 1)
        states = _padded(states, self._rows(len(states)))
        read, scored = states.to(self._kind), self._scored(embedded, reads)
        for layer in self._layers[:-1]:
            (mixed,) = layer.mixed
            query, key, value = _parts(mixed(read), shape, 3)
            states, read = layer.second_half(self._attended(query, key, value, scored), states)
        layer = self._layers[-1]
        asked, told = layer.mixed
        key, value = _parts(told(read), shape, 2)
        if anchors is not None:
            states = at(_parts(states, shape, 1)[0], anchors).flatten(0, 1)
            states = _padded(states, self._rows(len(states)))
            read, shape = states.to(self._kind), anchors.shape
            if scored is not None and scored.shape[2] > 1:
                of_each = anchors[:, None, :, None].expand(-1, scored.shape[1], -1, scored.shape[3])
                scored = scored.expand(len(anchors), -1, -1, -1).gather(2, of_each)
        (query,) = _parts(asked(read), shape, 1)
        states, _ = layer.second_half(self._attended(query, key, value, scored), states)
        return _parts(states, shape, 1)[0]

    def _scored(self, embedded: Tensor, reads: Tensor | None) -> Tensor | None:
        """What is read, or, where layers go by distances, what is added to scores [B or 1, heads, S, S]."""
        if self._relative is None:
            return reads
        return with_distances(self._relative, embedded, reads).to(self._kind)

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, scored: Tensor | None) -> Tensor:
        """Rows of what each token attends to, padded as its states are."""
        mixed = attended(query, key, value, self._heads, scored).flatten(0, 1)
        return _padded(mixed, self._rows(len(mixed)))

    def _rows(self, rows: int) -> int:
        """So many rows products are given for `rows`."""
        return rounded_rows(rows) if self._rounds else rows


def _made_ready(
    layer: Any,
    layout: _Layout,
    path: str,
    weight: Callable[[str], Tensor],
    product: MakesProduct,
    *,
    last: bool,
) -> _ReadyLayer:
    biases = {name: part.bias for name, part in layer.named_modules() if isinstance(part, nn.Linear)}

    def of(*names: str, gelu: bool = False) -> Multiply:
        bias: list[Tensor] = [biases[name] if name in biases else biases[f"{name}.base_layer"] for name in names]
        return product([weight(path + name) for name in names], bias, gelu=gelu)

    query, key, value = layout.mixed
    return _ReadyLayer(
        (of(query), of(key, value)) if last else (of(query, key, value),),
        of(layout.attended),
        layer.get_submodule(layout.norm),
        of("intermediate.dense", gelu=True),
        of("output.dense"),
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
