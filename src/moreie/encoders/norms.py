"""A layer's product added to the states beside it, and their layer norm: by one of the project's kernels
(`kernels/norm.cpp`) where products are in bfloat16, else by torch's operations, which walk over the states four times.

Both functions may write over what they are given: new memory for each layer's states would have to be fetched first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from moreie.kernels import library

Kernel = Callable[..., None]


@cache
def kernels() -> tuple[int, Kernel | None, Kernel | None]:
    """As `declared`; None where none were built."""
    found = library.load()
    return declared(found) if found else (1, None, None)


def declared(found: ctypes.CDLL) -> tuple[int, Kernel | None, Kernel | None]:
    """What the width of states has to be a multiple of, and the kernels of the two functions below."""
    unit = ctypes.c_int64.in_dll(found, "moreie_norm_unit").value
    return unit, _declared(found, "moreie_norm_of_sum"), _declared(found, "moreie_sum_and_norm")


def _declared(found: ctypes.CDLL, name: str) -> Kernel:
    kernel = found[name]
    kernel.restype, kernel.argtypes = None, [*[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 4, ctypes.c_float]
    return kernel


def norm_of_sum(norm: nn.LayerNorm, added: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """The norm of added + states (float32), in float32 and in the kind of number of `added`: [..., H] each."""
    unit, kernel, _ = kernels()
    if kernel and _fits(unit, added, states):
        return _by(kernel, norm, added, states)
    found: Tensor = norm(added + states)
    return found, found.to(added.dtype)


def sum_and_norm(norm: nn.LayerNorm, added: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """added + states (float32), and its norm in the kind of number of `added`: [..., H] each."""
    unit, _, kernel = kernels()
    if kernel and _fits(unit, added, states):
        return _by(kernel, norm, added, states)
    found = added + states
    return found, norm(found).to(added.dtype)


def _fits(unit: int, added: Tensor, states: Tensor) -> bool:
    alike = states.dtype is torch.float32 and added.dtype is torch.bfloat16 and added.shape == states.shape
    return alike and states.is_cpu and added.is_contiguous() and states.is_contiguous() and states.shape[-1] % unit == 0


def _by(kernel: Kernel, norm: nn.LayerNorm, added: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    width = states.shape[-1]
    addresses = (x.data_ptr() for x in (added, states, norm.weight, norm.bias))
    kernel(states.numel() // width, width, *addresses, norm.eps)
    return states, added
