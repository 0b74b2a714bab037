"""Products of a layer's states with weights in 8 bits, by the project's kernel (`kernels/int8.cpp`).

torch's own (`quantized::linear_dynamic`) are to be removed from it, and have one range for all rows of a batch, so that
an answer depends on the posts beside it. Here each row of states has its own, and each output's weights have theirs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from moreie.encoders.row_parts import LEAST, LEAST_IN_TILES, in_parts
from moreie.errors import EncoderError
from moreie.kernels import library

TILE = 64
"""Bytes of a row that are multiplied at once at most; rows are as many of them as they need."""
STATES = (torch.float32, torch.bfloat16)
TILES = 2
"""The way of multiplying that has tiles."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a library of kernels can do."""

    unit: int
    """The number of inputs is brought up to a multiple of it; that of outputs, to one of half of it."""
    method: int
    """The fastest way of multiplying that this processor has, of 0 up to this."""
    short_sums: bool
    """Whether the slowest way, 0, keeps sums of four products in 16 bits."""
    by_kind: dict[torch.dtype, Callable[..., None]]
    """The product by the kind of its states."""


@cache
def kernels() -> Kernels | None:
    """As `declared`; None where none were built."""
    found = library.load()
    return declared(found) if found else None


def declared(found: ctypes.CDLL) -> Kernels:
    """Those of a library."""
    best = found.moreie_int8_best
    best.restype, best.argtypes = ctypes.c_int64, []
    unit, short = (ctypes.c_int64.in_dll(found, f"moreie_int8_{name}").value for name in ("unit", "short_sums"))
    return Kernels(unit, best(), bool(short), {kind: _declared(found, kind) for kind in STATES})


def _declared(found: ctypes.CDLL, kind: torch.dtype) -> Callable[..., None]:
    kernel = found[f"moreie_int8_{kind}".replace("torch.", "")]
    kernel.restype = None
    kernel.argtypes = [*[ctypes.c_int64] * 5, *[ctypes.c_void_p] * 6, ctypes.c_int64, ctypes.c_void_p]
    return kernel


class Int8Product:
    """x·Wᵀ + b, or its GELU, of x [..., in] in float32 or bfloat16, W [out, in] in 8 bits: of several layers that read
    the same states their outputs behind each other."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        kind: torch.dtype,
        divisors: Tensor | None = None,
        *,
        gelu: bool = False,
        method: int | None = None,
    ):
        """`kind` is that of states. `divisors` [in]: what each of x is divided by first, its weights multiplied by as
        much, so that a few large ones do not take the range of all. `method`: no faster one than this.

        Raises:
            EncoderError: there are no kernels.
        """
        there = kernels()
        if there is None:
            raise EncoderError(
                "8 bits need the compiled kernels, and there are none: install a C++ compiler (g++ or clang++) and "
                "run python -m moreie.kernels.build"
            )
        weight = torch.cat([each.detach().float() for each in weights])
        bias = torch.cat([each.detach().float() for each in biases])
        self._outputs, self._inputs = weight.shape
        outputs, inputs = _up(self._outputs, there.unit // 2), _up(self._inputs, there.unit)
        self._kind, self._kernel, self._gelu = kind, there.by_kind[kind], gelu
        self._method = there.method if method is None else min(method, there.method)

        divisors = torch.ones(self._inputs) if divisors is None else divisors
        weight = functional.pad(weight * divisors, (0, inputs - self._inputs, 0, outputs - self._outputs))
        bias = functional.pad(bias, (0, outputs - self._outputs))
        factors = functional.pad(1 / divisors, (0, inputs - self._inputs), value=1.0)

        of_bytes, of_numbers = (_order(inputs, there.unit, kind, abreast) for abreast in (4, 1))
        of_outputs = _order(outputs, there.unit, kind, 1)
        width = _up(inputs, TILE)
        weight = functional.pad(weight[of_outputs][:, of_bytes], (0, width - inputs))
        steps = _steps(weight, short_sums=self._method == 0 and there.short_sums)
        rounded = (weight / steps[:, None]).round_()
        offsets = (-128 * rounded.sum(1)).to(torch.int32)
        # Of half a unit's outputs four weights each, then the next four.
        parts = rounded.to(torch.int8).view(-1, there.unit // 2, width // 4, 4).transpose(1, 2).contiguous()
        self._parts = factors[of_numbers], parts, offsets, steps, bias[of_outputs]
        self._sizes = outputs, inputs, width

    def __call__(self, states: Tensor) -> Tensor:
        states = states.to(self._kind).contiguous()
        outputs, inputs, _ = self._sizes
        if inputs != self._inputs:
            states = functional.pad(states, (0, inputs - self._inputs))
        found = states.new_empty(*states.shape[:-1], outputs)
        addresses = [part.data_ptr() for part in self._parts]

        def compute(first: int, count: int) -> None:
            read = states.data_ptr() + first * inputs * states.itemsize
            written = found.data_ptr() + first * outputs * found.itemsize
            self._kernel(self._method, count, *self._sizes, read, *addresses, self._gelu, written)

        in_parts(compute, found.numel() // outputs, LEAST_IN_TILES if self._method == TILES else LEAST)
        return found if outputs == self._outputs else found[..., : self._outputs]

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return sum(part.nbytes for part in self._parts)


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _steps(weight: Tensor, *, short_sums: bool) -> Tensor:
    """What a step of 8 bits is worth for each output, of weights [out, width] in the kernel's order: the largest weight
    is 127 of them; where sums of four products of unsigned bytes have to fit in 16 bits, the largest four are 128
    together, rounding included."""
    sizes = weight.abs()
    if short_sums:
        return (sizes.view(len(weight), -1, 2, 2, 2).sum((2, 4)).amax((1, 2)) / 126).clamp_min(1e-30)
    return (sizes.amax(1) / 127).clamp_min(1e-30)


def _order(count: int, unit: int, kind: torch.dtype, abreast: int) -> Tensor:
    """Which of `count` channels the kernel has at each place: vectors of them, so many abreast, their first entries
    first. Of states in bfloat16 a vector has the even, the next the odd ones."""
    length = unit // 4
    channels = torch.arange(count)
    if kind is torch.bfloat16:
        channels = channels.view(-1, length, 2).transpose(1, 2)
    return channels.reshape(-1, abreast, length).transpose(1, 2).flatten()
