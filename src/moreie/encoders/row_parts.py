"""Rows computed by as many threads as torch has for an operation here: what the project's kernels do not see to."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch

LEAST = 64
"""Rows of a part at least: handing one over takes as long as a few."""
UNIT = 32
"""Parts but the last are multiples of so many rows."""


def in_parts(compute: Callable[[int, int], None], rows: int) -> None:
    """Call `compute` with the first row of each part and the number of its rows; a call has to leave Python alone (as
    one by ctypes does) to be worth it. What a part raises is raised here, once all have ended."""
    parts = min(torch.get_num_threads(), rows // LEAST)
    if parts < 2:
        return compute(0, rows)
    size = -(-rows // parts // UNIT) * UNIT
    pool = _pool()
    handed = [pool.submit(compute, first, min(size, rows - first)) for first in range(size, rows, size)]
    try:
        compute(0, size)
    finally:
        wait(handed)
    for part in handed:
        part.result()
    return None


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "rows")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads
