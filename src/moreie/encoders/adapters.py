"""Low-rank adapters (LoRA; Hu et al., ICLR 2022) on an encoder's linear layers: several, by name, on the same weights.

Parameters are named as in the `peft` library (`….base_layer.weight`, `….lora_A.<adapter>.weight`), and drawn as there.
It is not used: it imports all of `transformers`, which a start without training has no other use for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moreie.encoders import undrawn
from moreie.errors import EncoderError

PLAIN = (nn.Linear, undrawn.Linear)
"""Layers that adapters are put on; of others of torch's the weights may be read without a call."""

_NO_DROPOUT = nn.Identity()


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """A low-rank adapter (LoRA) on every linear layer of a frozen encoder."""

    rank: int
    alpha: int
    dropout: float = 0.0


class AdaptedLinear(nn.Module):
    """A linear layer W [out, in], b [out] and adapters A [r, in], B [out, r] beside it: of states x [..., in] it gives
    x·Wᵀ + b + (alpha / r)·(x·Aᵀ)·Bᵀ with those of the active adapter, and x·Wᵀ + b while none is."""

    def __init__(self, base_layer: nn.Linear):
        super().__init__()
        self.base_layer = base_layer
        self.lora_A, self.lora_B, self.dropouts = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self.active: str | None = None

    def add(self, name: str, config: AdapterConfig, made: Callable[[int, int, Tensor], nn.Linear]) -> None:
        """Another adapter; `made` gives A and B, layers from so many numbers to so many, where and of the kind that a
        tensor is. The active one stays."""
        base = self.base_layer
        for parts, width, height in (
            (self.lora_A, base.in_features, config.rank),
            (self.lora_B, config.rank, base.out_features),
        ):
            parts[name] = part = made(width, height, base.weight)
            part.weight.requires_grad_(False)
        self.dropouts[name] = nn.Dropout(config.dropout).train(self.training) if config.dropout else _NO_DROPOUT
        self.scaling[name] = config.alpha / config.rank
        if self.active == name:
            self.active = None

    def draw(self, name: str) -> None:
        """Fresh weights of an adapter: A by He et al. (2015), B zero, so that it changes nothing yet."""
        down, up = self.weights(name)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        nn.init.zeros_(up)

    def weights(self, name: str) -> tuple[Tensor, Tensor]:
        """A and B of an adapter."""
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        if not isinstance(down, Tensor) or not isinstance(up, Tensor):
            raise TypeError(f"{name}: its parts are no linear layers")
        return down, up

    def use(self, name: str | None) -> None:
        """Make one adapter, or none, the active one: it alone is trained. Raises `EncoderError` for an unknown one."""
        if name == self.active:
            return
        if name is not None and name not in self.scaling:
            raise EncoderError(f"no adapter {name!r}: the encoder has {', '.join(self.scaling) or 'none'}")
        for parts in (self.lora_A, self.lora_B):
            for own, part in parts.items():
                part.weight.requires_grad_(own == name)  # type: ignore[union-attr, operator]
        self.active = name

    def forward(self, states: Tensor) -> Tensor:
        own: Tensor = self.base_layer(states)
        name = self.active
        if name is None:
            return own
        narrow = self.lora_A[name](self.dropouts[name](states))
        widened: Tensor = self.lora_B[name](narrow)
        return own + widened * self.scaling[name]


def adapted_layers(model: nn.Module) -> dict[str, AdaptedLinear]:
    """By their names the layers of a model that carry adapters."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, AdaptedLinear)}


def fill(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> list[str]:
    """Give weights the values of their names; the names of those that are missing, too many or of another shape, where
    there are some: then nothing is changed."""
    odd = weights.keys() ^ values.keys()
    odd |= {name for name in weights.keys() - odd if weights[name].shape != values[name].shape}
    if not odd:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(values[name])
    return sorted(odd)


def put_adapter(model: nn.Module, name: str, config: AdapterConfig) -> dict[str, AdaptedLinear]:
    """Freeze a model and put an adapter with fresh weights on every linear layer; these, by their names."""
    layers = _frozen(model)
    for layer in layers.values():
        layer.add(name, config, _drawn)
        layer.draw(name)
    return layers


def put_empty_adapter(
    model: nn.Module, name: str, config: AdapterConfig, known: dict[str, AdaptedLinear] | None = None
) -> dict[str, AdaptedLinear]:
    """`put_adapter`, but with weights that are anything: they are to be filled. `known`: the layers that carry adapters
    already, where they are known."""
    layers = known or _frozen(model)
    for layer in layers.values():
        layer.add(name, config, _empty)
    return layers


def _frozen(model: nn.Module) -> dict[str, AdaptedLinear]:
    """By their names the linear layers of a model, none of whose own parameters is trained, ready to carry adapters."""
    if layers := adapted_layers(model):
        return layers
    model.requires_grad_(False)
    for path in [path for path, layer in model.named_modules() if type(layer) in PLAIN]:
        parent, _, own = path.rpartition(".")
        holder = model.get_submodule(parent)
        setattr(holder, own, AdaptedLinear(getattr(holder, own)).train(holder.training))
    return adapted_layers(model)


def _drawn(width: int, height: int, like: Tensor) -> nn.Linear:
    return nn.Linear(width, height, bias=False).to(like)


def _empty(width: int, height: int, like: Tensor) -> nn.Linear:
    return undrawn.Linear(width, height, bias=False, device=like.device, dtype=like.dtype)
