"""The compiled kernels, loaded through ctypes."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from moreie.kernels.build import FOLDER, library_names


@cache
def load(folder: Path = FOLDER, most: str | None = None) -> ctypes.CDLL | None:
    """The fastest kernels in `folder` for what this processor can do, as torch names it, or no more than `most`; None
    where none were built for this machine."""
    names = library_names()
    able = torch.backends.cpu.get_cpu_capability() if most is None else most
    variants = list(names)
    for variant in reversed(variants[: variants.index(able) + 1] if able in names else variants[:1]):
        name = names[variant]
        if (folder / name).is_file():
            try:
                return ctypes.CDLL(str(folder / name))
            except OSError:  # built on a machine of another kind
                continue
    return None
