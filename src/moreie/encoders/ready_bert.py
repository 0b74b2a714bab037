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
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from moreie.encoders.attention import attended, attended_packed, packed_kernel
from moreie.encoders.bert import BertModel
from moreie.encoders.last_layer import LAID_OUT_ALIKE, RELATIVE, with_distances, without_layers
from moreie.encoders.norms import norm_of_sum
from moreie.encoders.packed_rows import PackedRows
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


_Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of rows of queries [M, H], keys and values [N, H] what the queries attend to [M, H]."""


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
        rows, columns = embedded.shape[:2]
        states = self._embeddings(inputs_embeds=embedded, position_ids=position_ids).flatten(0, 1)
        scored = self._scored(embedded, reads)
        asked, asked_scored = None, scored
        if anchors is not None:
            asked = (torch.arange(rows, device=anchors.device)[:, None] * columns + anchors).flatten()
            asked_scored = _of_anchors(scored, anchors)

        def attend(query: Tensor, key: Tensor, value: Tensor, scored: Tensor | None) -> Tensor:
            query, key, value = (part.view(rows, -1, part.shape[1]) for part in (query, key, value))
            return attended(query, key, value, self._heads, scored).flatten(0, 1)

        found = self._through(states, asked, partial(attend, scored=scored), partial(attend, scored=asked_scored))
        return found.view(rows, -1, found.shape[1])

    def packs(self, keys: int) -> bool:
        """Whether there are `packed_states` of rows of so many sub-tokens at most."""
        width = self._layers[-1].second_norm.normalized_shape[0] // self._heads
        return self._relative is None and packed_kernel(self._kind, width, keys) is not None

    def packed_states(
        self,
        embedded: Tensor,
        rows: PackedRows,
        reads: Tensor | None,
        position_ids: Tensor,
        anchors: Tensor | None,
        anchor_counts: Tensor | None,
    ) -> Tensor:
        """What `states` gives, of sub-tokens [N, H] and their positions [N] without padding; of `anchors` the first
        `anchor_counts` [B] of each row (all without), zeros at the others. `reads`: None, where each reads all of its
        row."""
        # Each as a row of its own: some embeddings cut what they hold of types to the length of a row.
        states = self._embeddings(inputs_embeds=embedded[:, None], position_ids=position_ids[:, None])[:, 0]
        asked, of_asked, asked_reads = None, rows, reads
        if anchors is not None:
            counts = torch.full_like(rows.starts, anchors.shape[1]) if anchor_counts is None else anchor_counts
            of_asked = PackedRows.of(counts, anchors.shape[1])
            asked = of_asked.pack(rows.starts[:, None] + anchors)
            asked_reads = _of_anchors(reads, anchors)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attended_packed(query, key, value, self._heads, rows.counts, rows.counts, reads)

        def attend_asked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attended_packed(query, key, value, self._heads, of_asked.counts, rows.counts, asked_reads)

        return of_asked.spread(self._through(states, asked, attend, attend_asked))

    def _through(self, states: Tensor, asked: Tensor | None, attend: _Attend, attend_last: _Attend) -> Tensor:
        """Rows of states [N, H] through all layers; of the last one the rows `asked` [M] (all without)."""
        count = len(states)
        states = self._filled(states)
        read = states.to(self._kind)
        for layer in self._layers[:-1]:
            (mixed,) = layer.mixed
            parts = mixed(read)[:count].chunk(3, dim=-1)
            states, read = layer.second_half(self._filled(attend(*parts)), states)
        layer = self._layers[-1]
        asking, told = layer.mixed
        key, value = told(read)[:count].chunk(2, dim=-1)
        if asked is not None:
            count = len(asked)
            states = self._filled(states[asked])
            read = states.to(self._kind)
        found, _ = layer.second_half(self._filled(attend_last(asking(read)[:count], key, value)), states)
        return found[:count]

    def _scored(self, embedded: Tensor, reads: Tensor | None) -> Tensor | None:
        """What is read, or, where layers go by distances, what is added to scores [B or 1, heads, S, S]."""
        if self._relative is None:
            return reads
        return with_distances(self._relative, embedded, reads).to(self._kind)

    def _filled(self, rows: Tensor) -> Tensor:
        """Rows [N, H], with rows of zeros behind them where products are given more."""
        count = rounded_rows(len(rows)) if self._rounds else len(rows)
        return rows if count == len(rows) else functional.pad(rows, (0, 0, 0, count - len(rows)))


def _of_anchors(scored: Tensor | None, anchors: Tensor) -> Tensor | None:
    """Of what each token reads [B or 1, heads or 1, 1 or S, S], or is added to its scores, that of `anchors` [B, A]."""
    if scored is None or scored.shape[2] == 1:
        return scored
    of_each = anchors[:, None, :, None].expand(-1, scored.shape[1], -1, scored.shape[3])
    return scored.expand(len(anchors), -1, -1, -1).gather(2, of_each)


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
