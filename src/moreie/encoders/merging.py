"""An adapter's part of the states at less cost than as layers of its own: folded into the weights, or, where tokens are
few, or in training, added in place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from moreie.encoders.adapters import AdaptedLinear
from moreie.encoders.precision import bf16_is_fast, product_kind
from moreie.encoders.ready_bert import ReadyBert, has_its_layers, reading
from moreie.encoders.text import TextEncoder

# Folding in costs about as much as an adapter's products do over this many tokens.
WORTH = 512
KEPT = 176 << 20
"""Bytes of folded weights of a kind that stay with an encoder: of a small one in bfloat16 six adapters and the bare
weights, in float32 three adapters; of one of BERT's size in bfloat16 a single adapter, or its weights without."""
_folding = threading.Lock()
_making = [threading.Lock() for _ in range(16)]
"""Of weights that are being made; several adapters' may be at once."""


def merged_weights(encoder: TextEncoder, adapter: str | None) -> dict[str, Tensor]:
    """By the name of each layer with an adapter: W + s·B·A, new tensors [out, in]; the encoder stays as it is. Without
    an adapter W, the very tensors, of every layer that may carry some."""
    layers = _foldable(encoder, adapter)
    return {name: _merged(encoder, adapter, name, layer) for name, layer in layers.items()}


@torch.no_grad()
def _merged(encoder: TextEncoder, adapter: str | None, name: str, layer: nn.Linear) -> Tensor:
    if adapter is None:
        return layer.weight.detach()
    adapted = encoder.adapted_layers()[name]
    down, up = adapted.weights(adapter)
    return torch.addmm(layer.weight, up, down, alpha=adapted.scaling[adapter])


def weights_of(encoder: TextEncoder, adapter: str | None, kind: torch.dtype) -> Callable[[str], Tensor]:
    """One by one by their names what `merged_weights` gives, in `kind`: all of them in float32 would be as much again
    twice over."""
    layers = _foldable(encoder, adapter)

    def weight(name: str) -> Tensor:
        return _merged(encoder, adapter, name, layers[name]).to(kind)

    return weight


Weights = ReadyBert | Mapping[str, Tensor]
"""Folded weights: made ready with the layers around them, or by the name of each layer."""


@dataclass(frozen=True)
class Folded:
    """Folded weights, their bytes, and the state of the weights that they were made of."""

    weights: Weights
    size: int
    made_of: tuple[tuple[int, int], ...]


def folded(encoder: TextEncoder, adapter: str | None, kind: torch.dtype) -> Weights:
    """`merged_weights` in `kind`. As many adapters' as `KEPT` bytes hold stay with the encoder for the next call, until
    it is trained or one of the weights changes."""
    own = (adapter, kind)
    with _making[hash((id(encoder), own)) % len(_making)]:
        made_of = _state(encoder, adapter)
        with _folding:
            kept = encoder.folded.get(own)
            if kept is not None and kept.made_of == made_of:
                return kept.weights
            encoder.folded.pop(own, None)
        weight = weights_of(encoder, adapter, kind)
        weights: Weights
        if can_be_ready(encoder):
            weights = ReadyBert(encoder.model, weight, kind)
        else:
            weights = {name: weight(name) for name in _foldable(encoder, adapter)}
        with _folding:
            if not encoder.training and _fits(encoder, adapter, kind):
                size = sum(layer.weight.numel() for layer in _foldable(encoder, adapter).values()) * kind.itemsize
                encoder.folded[own] = Folded(weights, size, made_of)
        return weights


def can_be_ready(encoder: TextEncoder) -> bool:
    """Whether an encoder's folded weights are made ready (`encoders.ready_bert`)."""
    return encoder.device.type == "cpu" and has_its_layers(encoder.model)


def stays_folded(encoder: TextEncoder, adapter: str | None, kind: torch.dtype) -> bool:
    """Whether `folded` costs something at its first call alone."""
    with _folding:
        return (adapter, kind) in encoder.folded or (not encoder.training and _fits(encoder, adapter, kind))


def _fits(encoder: TextEncoder, adapter: str | None, kind: torch.dtype) -> bool:
    parameters = sum(layer.weight.numel() for layer in _foldable(encoder, adapter).values())
    kept = sum(each.size for (_, own), each in encoder.folded.items() if own is kind)
    return bool(kept + parameters * kind.itemsize <= KEPT)


def _state(encoder: TextEncoder, adapter: str | None) -> tuple[tuple[int, int], ...]:
    """Where the weights lie that an adapter is folded from, and how often each has been changed in place."""
    weights: list[Tensor] = []
    for layer in _foldable(encoder, adapter).values():
        weights += [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    if adapter is not None:
        for adapted in _carrying(encoder, adapter).values():
            weights += adapted.weights(adapter)
    return tuple(
        (w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights
    )  # inference tensors count nothing


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer that carries adapters, the one that it was before, and its name."""

    name: str
    own: AdaptedLinear
    base: nn.Linear


_How = Callable[[_Layer, Tensor], Tensor]
"""What a layer gives of its input [..., in]: [..., out]."""
# How the encoders (`id`) compute whose blocks this context is in, and a lock on entering and leaving blocks.
_hows: ContextVar[Mapping[int, _How]] = ContextVar("hows", default=MappingProxyType({}))
_entering = threading.Lock()


@contextmanager
def _computing(encoder: TextEncoder, how: _How) -> Iterator[None]:
    """Within the block the layers with adapters compute so. It holds in the block's context (`contextvars`, which
    `encoders.batches.side_by_side` hands on): other threads may be in other blocks of the same encoder."""
    layers = encoder.adapted_layers()
    with _entering:
        encoder.blocks += 1
        if encoder.blocks == 1:
            for name, layer in layers.items():
                layer.__dict__["forward"] = _by_context(id(encoder), _Layer(name, layer, layer.base_layer))
    before = _hows.set({**_hows.get(), id(encoder): how})
    try:
        with reading(encoder.model, None):
            yield
    finally:
        _hows.reset(before)
        with _entering:
            encoder.blocks -= 1
            if not encoder.blocks:
                for layer in layers.values():
                    layer.__dict__.pop("forward", None)  # the class' own is seen again


def _by_context(encoder: int, layer: _Layer) -> Callable[[Tensor], Tensor]:
    def forward(states: Tensor) -> Tensor:
        how = _hows.get().get(encoder)
        if how is None:  # a thread that is in no block
            elsewhere: Tensor = type(layer.own).forward(layer.own, states)
            return elsewhere
        return how(layer, states)

    return forward


def merged(encoder: TextEncoder, adapter: str, kind: torch.dtype = torch.float32) -> AbstractContextManager[None]:
    """Within the block the encoder computes by bare layers what it computes with the adapter, up to rounding, whichever
    is active. Not for training.

    Its own weights stay as they are: it holds the layers once more, in `kind` (see `folded`). Under autocast weights of
    the kind that it computes in are not cast in each product.
    """
    return _by_folded(encoder, folded(encoder, adapter, kind))


def _by_folded(encoder: TextEncoder, weights: Weights) -> AbstractContextManager[None]:
    if isinstance(weights, ReadyBert):
        return reading(encoder.model, weights)
    return _computing(encoder, _by_weights(weights))


def _by_weights(weights: Mapping[str, Tensor]) -> _How:
    def how(layer: _Layer, states: Tensor) -> Tensor:
        weight = weights.get(layer.name)
        if weight is None:
            return _bare(layer, states)
        return functional.linear(states, weight, layer.base.bias)

    return how


def bare(encoder: TextEncoder) -> AbstractContextManager[None]:
    """Within the block the encoder computes without any adapter, whichever is active. Not for training."""
    return _computing(encoder, _bare)


def _bare(layer: _Layer, states: Tensor) -> Tensor:
    found: Tensor = layer.base(states)
    return found


class Reading:
    """How an encoder computes with an adapter (None: without any) while it reads `tokens` sub-tokens in so many
    batches, which may be in work side by side: with few of them the adapter's products are added in place, else folded
    weights are made by the first batch, used by all and let go behind the last."""

    def __init__(self, encoder: TextEncoder, adapter: str | None, tokens: int, batches: int):
        self._encoder, self._adapter, self._left = encoder, adapter, batches
        self._kind = product_kind(encoder.device)
        casts = self._kind is not torch.float32  # weights, in each product, that are not kept in this kind
        ready = can_be_ready(encoder)
        enough = tokens >= WORTH and (adapter is not None or ready)
        self._folds = (bool(encoder.adapted_layers()) or ready) and (
            enough or (casts and stays_folded(encoder, adapter, self._kind))
        )
        self._weights: Weights | None = None
        self._lock = threading.Lock()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Within the block the encoder reads one of the batches."""
        with self._block():
            if not self._folds and not self._encoder.adapted_layers():
                self._encoder.use_adapter(self._adapter)  # one that keeps adapters in its own way
            yield
        with self._lock:
            self._left -= 1
            if not self._left:
                self._weights = None

    def _block(self) -> AbstractContextManager[None]:
        if not self._folds:
            return _computing(self._encoder, _bare if self._adapter is None else _adding(self._adapter))
        with self._lock:
            if self._weights is None:
                self._weights = folded(self._encoder, self._adapter, self._kind)
            return _by_folded(self._encoder, self._weights)


def adds_in_place(encoder: TextEncoder) -> bool:
    """Whether `added` makes training cheaper: on a processor, in float32, an encoder's adapters layers of its own."""
    plain = encoder.device.type == "cpu" and not bf16_is_fast(encoder.device)
    return plain and bool(encoder.adapted_layers())


def added(encoder: TextEncoder, adapter: str) -> AbstractContextManager[None]:
    """Within the block every layer adds the adapter's products to its own in one go, x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ, instead
    of scaling and adding them behind; states and first gradients are the same. For adapters without dropout."""
    return _computing(encoder, _adding(adapter))


def _adding(adapter: str) -> _How:
    def how(layer: _Layer, states: Tensor) -> Tensor:
        own, base = layer.own, layer.base
        if adapter not in own.scaling:
            return _bare(layer, states)
        (down, up), scale = own.weights(adapter), own.scaling[adapter]
        if torch.is_autocast_enabled(states.device.type):  # which knows no product into a tensor that is there
            return _bare(layer, states) + functional.linear(functional.linear(states, down), up) * scale
        if not torch.is_grad_enabled():
            return _sum(states, base.weight, base.bias, down, up, scale)[0]
        out: Tensor = _Added.apply(states, base.weight, base.bias, down, up, scale)  # type: ignore[no-untyped-call]
        return out

    return how


def _sum(
    states: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ and x·Aᵀ."""
    narrow = functional.linear(states, down)
    out = functional.linear(states, weight, bias)
    out.view(-1, out.shape[-1]).addmm_(narrow.view(-1, narrow.shape[-1]), up.t(), alpha=scale)
    return out, narrow


class _Added(torch.autograd.Function):
    """x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ of rows x [..., in], a frozen layer W [out, in], b [out], and an adapter A [r, in], B
    [out, r]. Its gradient, too, scales and adds no product in a pass of its own."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        out, narrow = _sum(states, weight, bias, down, up, scale)
        ctx.save_for_backward(states, weight, down, up, narrow)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, down, up, narrow = ctx.saved_tensors
        scale = ctx.scale
        rows = gradient.reshape(-1, gradient.shape[-1])
        back = rows @ up  # [N, r]
        to_states = to_down = to_up = None
        if ctx.needs_input_grad[0]:
            to_states = (rows @ weight).addmm_(back, down, alpha=scale).view_as(states)
        if ctx.needs_input_grad[3]:
            to_down = (back.t() @ states.reshape(-1, states.shape[-1])).mul_(scale)
        if ctx.needs_input_grad[4]:
            to_up = (rows.t() @ narrow.view(-1, narrow.shape[-1])).mul_(scale)
        return to_states, None, None, to_down, to_up, None


def _foldable(encoder: TextEncoder, adapter: str | None) -> dict[str, nn.Linear]:
    """By name the layers, without adapters, whose weights are folded: those that carry this one, or any; of an encoder
    that `can_be_ready` and has none, all."""
    carrying = _carrying(encoder, adapter)
    if not carrying and can_be_ready(encoder):
        return {name: layer for name, layer in encoder.model.named_modules() if isinstance(layer, nn.Linear)}
    return {name: layer.base_layer for name, layer in carrying.items()}


def _carrying(encoder: TextEncoder, adapter: str | None) -> dict[str, AdaptedLinear]:
    """The layers that carry this adapter; without one those that carry any."""
    return {n: layer for n, layer in encoder.adapted_layers().items() if adapter is None or adapter in layer.scaling}
