"""An adapter's part of the states at less cost than as layers of its own: folded into the weights, or, where tokens are
few, or in training, added in place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from moreie.encoders.precision import bf16_is_fast
from moreie.encoders.text import TextEncoder

# Folding in costs about as much as an adapter's products do over this many tokens.
WORTH = 512
KEPT = 128 << 20
"""Bytes of folded weights that stay with an encoder: six adapters of a small encoder in bfloat16, three in float32."""
# The adapter of the block that this context is in, and a lock on entering and leaving blocks.
_adapter: ContextVar[str | None] = ContextVar("adapter", default=None)
_entering = threading.Lock()


def merged_weights(encoder: TextEncoder, adapter: str) -> dict[str, Tensor]:
    """By the name of each layer with an adapter: W + s·B·A, new tensors [out, in]; the encoder stays as it is."""
    found = {}
    with torch.no_grad():
        for name, layer in _carrying(encoder, adapter).items():
            down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            found[name] = torch.addmm(layer.get_base_layer().weight, up, down, alpha=layer.scaling[adapter])
    return found


@dataclass(frozen=True)
class Folded:
    """What `merged_weights` gave in some kind of number, and the state of the weights that it was made of."""

    weights: dict[str, Tensor]
    made_of: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(weight.nbytes for weight in self.weights.values())


def folded(encoder: TextEncoder, adapter: str, kind: torch.dtype) -> dict[str, Tensor]:
    """`merged_weights` in `kind`. As many adapters' as `KEPT` bytes hold stay with the encoder for the next call, until
    it is trained or one of the weights changes."""
    own = (adapter, kind)
    made_of = _state(encoder, adapter)
    kept = encoder.folded.get(own)
    if kept is not None and kept.made_of == made_of:
        return kept.weights
    encoder.folded.pop(own, None)
    weights = {name: weight.to(kind) for name, weight in merged_weights(encoder, adapter).items()}
    if not encoder.training and _fits(encoder, adapter, kind):
        encoder.folded[own] = Folded(weights, made_of)
    return weights


def stays_folded(encoder: TextEncoder, adapter: str, kind: torch.dtype) -> bool:
    """Whether `folded` costs something at its first call alone."""
    return (adapter, kind) in encoder.folded or (not encoder.training and _fits(encoder, adapter, kind))


def _fits(encoder: TextEncoder, adapter: str, kind: torch.dtype) -> bool:
    parameters = sum(layer.get_base_layer().weight.numel() for layer in _carrying(encoder, adapter).values())
    return bool(sum(each.size for each in encoder.folded.values()) + parameters * kind.itemsize <= KEPT)


def _state(encoder: TextEncoder, adapter: str) -> tuple[tuple[int, int], ...]:
    """Where the weights lie that an adapter is folded from, and how often each has been changed in place."""
    weights = (
        weight
        for layer in _carrying(encoder, adapter).values()
        for weight in (layer.get_base_layer().weight, layer.lora_A[adapter].weight, layer.lora_B[adapter].weight)
    )
    return tuple(
        (w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights
    )  # inference tensors count nothing


@contextmanager
def merged(encoder: TextEncoder, adapter: str, kind: torch.dtype = torch.float32) -> Iterator[None]:
    """Within the block the encoder computes by bare layers what it computes with the adapter, up to rounding, whichever
    is active. Not for training, nor while other threads use the encoder.

    Its own weights are put back behind the block, the very same tensors. In between it holds the layers once more, in
    `kind` (see `folded`): under autocast weights of the kind that it computes in are not cast in each product.
    """
    layers = _carrying(encoder, adapter)
    own = {name: layer.get_base_layer().weight.data for name, layer in layers.items()}
    try:
        for name, weight in folded(encoder, adapter, kind).items():
            own_layer = layers[name].get_base_layer()
            own_layer.weight.data = weight
            layers[name].forward = own_layer.forward
        yield
    finally:
        for name, layer in layers.items():
            layer.get_base_layer().weight.data = own[name]
        _as_before(layers)


@contextmanager
def bare(encoder: TextEncoder) -> Iterator[None]:
    """Within the block the encoder computes without any adapter, whichever is active. Not for training, nor while
    other threads use the encoder."""
    layers = encoder.adapted_layers()
    try:
        for layer in layers.values():
            layer.forward = layer.get_base_layer().forward
        if not layers:
            encoder.use_adapter(None)
        yield
    finally:
        _as_before(layers)


def adds_in_place(encoder: TextEncoder) -> bool:
    """Whether `added` is for this encoder: on a processor, in float32, its adapters layers of its own."""
    plain = encoder.device.type == "cpu" and not bf16_is_fast(encoder.device)
    return plain and bool(encoder.adapted_layers())


@contextmanager
def added(encoder: TextEncoder, adapter: str) -> Iterator[None]:
    """Within the block every layer adds the adapter's products to its own in one go, x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ, instead
    of scaling and adding them behind; states and first gradients are the same. For adapters without dropout.

    It holds in the block's context (`contextvars`, which `encoders.batches.side_by_side` hands on): other threads may
    be in blocks of other adapters at the same time.
    """
    layers = encoder.adapted_layers()
    with _entering:
        encoder.adding += 1
        if encoder.adding == 1:
            for layer in layers.values():
                layer.forward = _adding(layer)
    before = _adapter.set(adapter)
    try:
        yield
    finally:
        _adapter.reset(before)
        with _entering:
            encoder.adding -= 1
            if not encoder.adding:
                _as_before(layers)


def _as_before(layers: Mapping[str, Any]) -> None:
    for layer in layers.values():
        layer.__dict__.pop("forward", None)  # the class' own is seen again


def _adding(layer: Any) -> Callable[[Tensor], Tensor]:
    base = layer.get_base_layer()

    def forward(states: Tensor) -> Tensor:
        adapter = _adapter.get()
        if adapter is None:  # a thread that is in no such block
            elsewhere: Tensor = type(layer).forward(layer, states)
            return elsewhere
        if adapter not in layer.lora_A:
            bare: Tensor = base(states)
            return bare
        weights = base.weight, base.bias, layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        if not torch.is_grad_enabled():
            return _sum(states, *weights, layer.scaling[adapter])[0]
        out: Tensor = _Added.apply(states, *weights, layer.scaling[adapter])  # type: ignore[no-untyped-call]
        return out

    return forward


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


def _carrying(encoder: TextEncoder, adapter: str) -> dict[str, Any]:
    return {name: layer for name, layer in encoder.adapted_layers().items() if adapter in layer.lora_A}
