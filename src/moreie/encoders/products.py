"""Products of a layer's states with weights that stay as they are, in the order of the kernels that read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from moreie.encoders import bfloat16_product
from moreie.encoders.bfloat16_product import Bfloat16Product

Multiply = Callable[[Tensor], Tensor]
"""x [..., in] to x·Wᵀ + b, or its GELU."""


class MakesProduct(Protocol):
    """Makes the product of layers that read the same states, of their weights [out, in] and biases."""

    def __call__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], *, gelu: bool) -> Multiply: ...


class Product:
    """x·Wᵀ + b, or its GELU, of x [..., in] in the kind of number of W [out, in]: of several layers that read the same
    states their outputs behind each other.

    In bfloat16 on a processor the weights are brought into the order of oneDNN's kernels once, not in each product.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], *, gelu: bool = False):
        weight = torch.cat(list(weights)) if len(weights) > 1 else weights[0]
        bias = torch.cat(list(biases)) if len(biases) > 1 else biases[0]
        self._weight, self._bias = weight.detach(), bias.detach().to(weight.dtype)
        self._gelu, self._ordered = gelu, _has_kernels(weight)
        if self._ordered:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)

    def __call__(self, states: Tensor) -> Tensor:
        if self._ordered:
            then = "gelu" if self._gelu else "none"
            found: Tensor = torch.ops.mkldnn._linear_pointwise(states, self._weight, self._bias, then, [], "none")
            return found
        found = functional.linear(states, self._weight, self._bias)
        return functional.gelu(found) if self._gelu else found


def fast_product(weights: Sequence[Tensor], biases: Sequence[Tensor], *, gelu: bool = False) -> Multiply:
    """By the project's kernel where there is one for these, else by torch."""
    kind = Bfloat16Product if bfloat16_product.takes(weights) else Product
    return kind(weights, biases, gelu=gelu)


def _has_kernels(weight: Tensor) -> bool:
    there = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return weight.dtype is torch.bfloat16 and weight.device.type == "cpu" and there
