"""An adapter's part of the states at less cost than as layers of its own: folded into the weights, or, where tokens are
few, added in place. For the forward pass alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from moreie.encoders.text import TextEncoder

# Folding in costs about as much as an adapter's products do over this many tokens.
WORTH = 512


def merged_weights(encoder: TextEncoder, adapter: str) -> dict[str, Tensor]:
    """By the name of each layer with an adapter: W + s·B·A, new tensors [out, in]; the encoder stays as it is."""
    found = {}
    with torch.no_grad():
        for name, layer in _carrying(encoder, adapter).items():
            down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            found[name] = torch.addmm(layer.get_base_layer().weight, up, down, alpha=layer.scaling[adapter])
    return found


@contextmanager
def merged(encoder: TextEncoder, adapter: str) -> Iterator[None]:
    """Within the block the encoder computes by bare layers what it computes with the adapter, up to rounding, whichever
    is active. Not for training.

    Its own weights are put back behind the block, the very same tensors. In between it holds the layers once more.
    """
    layers = _carrying(encoder, adapter)
    own = {name: layer.get_base_layer().weight.data for name, layer in layers.items()}
    try:
        for name, weight in merged_weights(encoder, adapter).items():
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
    """Within the block the encoder computes without any adapter, whichever is active. Not for training."""
    layers = encoder.adapted_layers()
    try:
        for layer in layers.values():
            layer.forward = layer.get_base_layer().forward
        if not layers:
            encoder.use_adapter(None)
        yield
    finally:
        _as_before(layers)


@contextmanager
def added(encoder: TextEncoder, adapter: str) -> Iterator[None]:
    """Within the block every layer adds the adapter's products to its own in one go, x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ, instead
    of scaling and adding them behind; the states are the same. For float32 on a processor; not for training.
    """
    layers = _carrying(encoder, adapter)
    try:
        for layer in layers.values():
            layer.forward = _adding(layer, adapter)
        yield
    finally:
        _as_before(layers)


def _as_before(layers: Mapping[str, Any]) -> None:
    for layer in layers.values():
        layer.__dict__.pop("forward", None)  # the class' own is seen again


def _adding(layer: Any, adapter: str) -> Callable[[Tensor], Tensor]:
    base, scaling = layer.get_base_layer(), layer.scaling[adapter]
    down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight.t()

    def forward(states: Tensor) -> Tensor:
        out: Tensor = base(states)
        narrow = functional.linear(states, down)
        out.view(-1, out.shape[-1]).addmm_(narrow.view(-1, narrow.shape[-1]), up, alpha=scaling)
        return out

    return forward


def _carrying(encoder: TextEncoder, adapter: str) -> dict[str, Any]:
    return {name: layer for name, layer in encoder.adapted_layers().items() if adapter in layer.lora_A}
