"""Products of a layer's states with weights in bfloat16 by the project's kernel (`kernels/product.cpp`), on processors
that multiply tiles (AMX) or have dot products of two numbers (AVX512-BF16).

oneDNN's compiles itself for each number of rows, and takes up to twice as long for those of a post
(`benchmarks/notes.md`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from moreie.encoders.row_parts import LEAST, LEAST_IN_TILES, in_parts
from moreie.kernels import library

UNIT = 32
"""Outputs and inputs are multiples of it."""
PAIRS, TILES = 1, 2
"""Ways of multiplying."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What a library of kernels can do."""

    method: int
    """The fastest way of multiplying that this processor has; one with tiles has pairs as well."""
    compute: Callable[..., None]


@cache
def kernel() -> Kernel | None:
    """As `declared`; None where none were built."""
    found = library.load()
    return declared(found) if found else None


def declared(found: ctypes.CDLL) -> Kernel | None:
    """That of a library; None where the processor has neither way."""
    best, product = found.moreie_product_best, found.moreie_product
    best.restype, best.argtypes = ctypes.c_int64, []
    product.restype = None
    product.argtypes = [*[ctypes.c_int64] * 4, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_void_p]
    return Kernel(method, product) if (method := best()) else None


def takes(weights: Sequence[Tensor]) -> bool:
    """Whether there is a kernel for layers of these weights [out, in], which read the same states."""
    outputs, inputs = sum(len(weight) for weight in weights), weights[0].shape[1]
    plain = weights[0].dtype is torch.bfloat16 and weights[0].is_cpu
    return plain and outputs % UNIT == 0 and inputs % UNIT == 0 and kernel() is not None


class Bfloat16Product:
    """x·Wᵀ + b, or its GELU, of x [..., in] in bfloat16 and weights that the kernel `takes`: of several layers that
    read the same states their outputs behind each other. Sums and biases are in float32."""

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], *, gelu: bool = False, method: int | None = None
    ):
        """`method`: no faster one than this."""
        there = kernel()
        if there is None:
            raise RuntimeError("no kernel for products in bfloat16: `takes` says so")
        weight = torch.cat([each.detach() for each in weights])
        self._outputs, self._inputs = weight.shape
        self._compute, self._gelu = there.compute, gelu
        self._method = there.method if method is None else min(method, there.method)
        # Of 32 outputs the even ones first; of them two weights each, then the next two: two as one number are moved.
        pairs = weight.view(torch.int32).view(-1, UNIT // 2, 2, self._inputs // 2)
        ordered = pairs.permute(0, 3, 2, 1).contiguous().view(torch.bfloat16)
        self._weights = ordered.view(-1, self._inputs // 2, UNIT, 2)
        bias = torch.cat([each.detach().float() for each in biases])
        self._bias = bias.view(-1, UNIT // 2, 2).transpose(1, 2).flatten()

    def __call__(self, states: Tensor) -> Tensor:
        states = states.to(torch.bfloat16).contiguous()
        found = states.new_empty(*states.shape[:-1], self._outputs)
        weights, bias = self._weights.data_ptr(), self._bias.data_ptr()

        def compute(first: int, count: int) -> None:
            read = states.data_ptr() + first * self._inputs * states.itemsize
            written = found.data_ptr() + first * self._outputs * found.itemsize
            self._compute(self._method, count, self._outputs, self._inputs, read, weights, bias, self._gelu, written)

        in_parts(compute, found.numel() // self._outputs, LEAST_IN_TILES if self._method == TILES else LEAST)
        return found
