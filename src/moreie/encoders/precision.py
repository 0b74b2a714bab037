"""Which arithmetic a machine does fastest without hurting results.

`MOREIE_PRECISION=float32` in the environment has everything computed in float32: the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch

from moreie.encoders.asked import wants_float32

# Whether this context wants float32 whatever the machine is fast in.
_in_float32: ContextVar[bool] = ContextVar("in_float32", default=False)


@contextmanager
def float32() -> Iterator[None]:
    """Within the block everything is computed in float32, on any machine. It holds in the block's context
    (`contextvars`): other threads compute as they did."""
    before = _in_float32.set(True)
    try:
        yield
    finally:
        _in_float32.reset(before)


def bf16_is_fast(device: torch.device | str) -> bool:
    """True where bfloat16 products run natively (AMX or AVX512-BF16 processors, Ampere and later GPUs) and nobody has
    asked for float32.

    Raises:
        EncoderError: the environment asks for something else.
    """
    device = torch.device(device)
    if wants_float32() or _in_float32.get():
        return False
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def product_kind(device: torch.device | str) -> torch.dtype:
    """What products are computed in."""
    return torch.bfloat16 if bf16_is_fast(device) else torch.float32


def autocast(device: torch.device | str) -> AbstractContextManager[None]:
    """Mixed precision for a forward pass where the machine gains by it; plain float32 elsewhere."""
    device = torch.device(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16_is_fast(device))


def fast_batch(device: torch.device | str) -> int:
    """Sub-tokens in a batch of a forward pass: many for a GPU; few for a thread, whose caches hold their states."""
    if torch.device(device).type == "cuda":
        return 4096
    return 1024 if bf16_is_fast(device) else 512  # states of half the size; AMX wants larger products


def default_device() -> torch.device:
    """The GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
