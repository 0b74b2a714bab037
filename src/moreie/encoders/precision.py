"""Which arithmetic a machine does fastest without hurting results."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def bf16_is_fast(device: torch.device | str) -> bool:
    """True where bfloat16 products run natively: AMX or AVX512-BF16 processors, Ampere and later GPUs."""
    device = torch.device(device)
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def autocast(device: torch.device | str) -> AbstractContextManager[None]:
    """Mixed precision for a forward pass where the machine gains by it; plain float32 elsewhere."""
    device = torch.device(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16_is_fast(device))


def fast_batch(device: torch.device | str) -> int:
    """Sub-tokens in a batch of a forward pass: many for a GPU; few for a thread, whose caches hold their states."""
    return 4096 if torch.device(device).type == "cuda" else 512


def default_device() -> torch.device:
    """The GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
