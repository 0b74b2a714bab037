"""Weights in 8 or 4 bits, so that a real encoder fits in a source repository; unpacked to float32 on load.

A packed folder holds `config.json` and `model.packed.safetensors`. A matrix `w` [R, C] is stored either
- in 8 bits: `w.q8` int8 [R, C] and `w.scale` float16 [R], w = q8 · scale, or
- in 4 bits: `w.q4` uint8 [R, C/2] (two values a byte, low half first) and `w.scale` float16 [R, C/32],
  w = (q4 - 8) · scale in groups of 32 columns, the scale chosen to minimise the squared error.
Everything else is kept in float16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moreie.errors import CheckpointError

FILE = "model.packed.safetensors"
GROUP = 32


def quantise8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [R, C] and float16 scales [R] of a matrix."""
    scale = (weight.abs().amax(1) / 127).clamp_min(1e-8).half()
    return (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def quantise4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [R, C/2] and float16 scales [R, C/32] of a matrix whose C is a multiple of 32."""
    groups = weight.reshape(weight.shape[0], -1, GROUP)
    peak = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    best_scale = torch.zeros_like(peak)
    best_error = torch.full_like(peak, torch.inf)
    for shrink in torch.linspace(0.7, 1.1, 17):
        scale = (peak * shrink / -8).half().float()
        scale = torch.where(scale == 0, 1e-6, scale)
        error = ((groups / scale).round().clamp(-8, 7) * scale - groups).square().sum(2, keepdim=True)
        better = error < best_error
        best_scale, best_error = torch.where(better, scale, best_scale), torch.where(better, error, best_error)
    values = ((groups / best_scale).round().clamp(-8, 7) + 8).to(torch.uint8).reshape(weight.shape)
    return values[:, 0::2] | (values[:, 1::2] << 4), best_scale[..., 0].half()


def dequantise4(packed: Tensor, scale: Tensor) -> Tensor:
    """float32 [R, C] from what `quantise4` returned."""
    rows, half = packed.shape
    values = torch.empty(rows, half, 2)  # filled and changed in place: fresh memory takes longer than the arithmetic
    values[..., 0], values[..., 1] = packed & 15, packed >> 4
    values.view(rows, -1, GROUP).sub_(8).mul_(scale.float()[..., None])
    return values.view(rows, -1)


def pack(state: Mapping[str, Tensor], bits: Callable[[str], int]) -> dict[str, Tensor]:
    """Packed tensors of a state dict; `bits(name)` is 4, 8 or 16 for each matrix."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        width = bits(name) if tensor.ndim == 2 else 16
        if width == 4 and tensor.shape[1] % GROUP == 0:
            packed[name + ".q4"], packed[name + ".scale"] = quantise4(tensor.float())
        elif width in (4, 8):
            packed[name + ".q8"], packed[name + ".scale"] = quantise8(tensor.float())
        elif tensor.is_floating_point():
            packed[name] = tensor.half()
        else:
            packed[name] = tensor
    return {name: tensor.contiguous() for name, tensor in packed.items()}


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 state dict behind packed tensors."""
    state: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        if name.endswith(".q4"):
            state[name[:-3]] = dequantise4(tensor, packed[name[:-3] + ".scale"])
        elif name.endswith(".q8"):
            # In place: fresh memory takes longer than the arithmetic.
            state[name[:-3]] = tensor.float().mul_(packed[name[:-3] + ".scale"].float()[:, None])
        elif not (name.endswith(".scale") and (name[:-6] + ".q4" in packed or name[:-6] + ".q8" in packed)):
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state


def save_packed(state: Mapping[str, Tensor], folder: Path, bits: Callable[[str], int]) -> None:
    """Write `model.packed.safetensors` into `folder` (the caller writes `config.json` beside it)."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(pack(state, bits), folder / FILE, metadata={"format": "pt", "packing": "1"})


def load_packed(folder: Path) -> dict[str, Tensor]:
    """The float32 state dict of a packed folder.

    Raises:
        CheckpointError: the file is absent or damaged.
    """
    try:
        return unpack(load_file(folder / FILE))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {FILE}") from None
    except (SafetensorError, KeyError) as problem:
        raise CheckpointError(f"{folder / FILE}: damaged weights ({problem}); fetch the file again") from problem


def load_model(folder: Path) -> Any:
    """The model of a packed folder, in float32.

    Raises:
        CheckpointError: the weights are absent or damaged.
        OSError, ValueError: no configuration that `transformers` reads.
        RuntimeError: the weights do not fit it.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.initialization import no_init_weights

    with no_init_weights():  # drawing weights takes longer than reading them
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))  # type: ignore[no-untyped-call]
    model.load_state_dict(load_packed(folder))
    return model
