"""A layer's product added to the states beside it, and their layer norm: by one of the project's kernels
(`kernels/norm.cpp`), else by torch's operations, which walk over the states four times.

Both functions may write over what they are given: new memory for each layer's states would have to be fetched first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from moreie.kernels import library

Kernel = Callable[..., None]
KINDS = (torch.float32, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Kernels:
    """What the width of states has to be a multiple of, and the kernels of the two functions below by the kind of the
    number that is added."""

    unit: int = 1
    norm_of_sum: dict[torch.dtype, Kernel] = field(default_factory=dict)
    sum_and_norm: dict[torch.dtype, Kernel] = field(default_factory=dict)


@cache
def kernels() -> Kernels:
    """As `declared`; none where none were built."""
    found = library.load()
    return declared(found) if found else Kernels()


def declared(found: ctypes.CDLL) -> Kernels:
    """Those of a library."""
    return Kernels(
        ctypes.c_int64.in_dll(found, "moreie_norm_unit").value,
        *(
            {kind: _declared(found, f"moreie_{name}", kind) for kind in KINDS}
            for name in ("norm_of_sum", "sum_and_norm")
        ),
    )


def _declared(found: ctypes.CDLL, name: str, kind: torch.dtype) -> Kernel:
    kernel = found[f"{name}_{kind}".replace("torch.", "")]
    kernel.restype, kernel.argtypes = None, [*[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 4, ctypes.c_float]
    return kernel


def norm_of_sum(norm: nn.LayerNorm, added: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """The norm of added + states (float32), in float32 and in the kind of number of `added`: [..., H] each."""
    own = kernels()
    if _fits(own.unit, added, states) and (kernel := own.norm_of_sum.get(added.dtype)):
        return _by(kernel, norm, added, states)
    found: Tensor = norm(added + states)
    return found, found.to(added.dtype)


def sum_and_norm(norm: nn.LayerNorm, added: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """added + states (float32), and its norm in the kind of number of `added`: [..., H] each."""
    own = kernels()
    if _fits(own.unit, added, states) and (kernel := own.sum_and_norm.get(added.dtype)):
        return _by(kernel, norm, added, states)
    found = added + states
    return found, norm(found).to(added.dtype)


def _fits(unit: int, added: Tensor, states: Tensor) -> bool:
    alike = states.dtype is torch.float32 and added.shape == states.shape
    return alike and states.is_cpu and added.is_contiguous() and states.is_contiguous() and states.shape[-1] % unit == 0


def _by(kernel: Kernel, norm: nn.LayerNorm, added: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    width = states.shape[-1]
    addresses = (x.data_ptr() for x in (added, states, norm.weight, norm.bias))
    kernel(states.numel() // width, width, *addresses, norm.eps)
    return states, added
