"""Rows computed by as many threads as there are for an operation here: what the project's kernels do not see to."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import ContextVar
from functools import cache
from threading import Lock

import torch

LEAST, LEAST_IN_TILES = 32, 64
"""Rows of a part at least, multiplied by vectors and by tiles: handing one over takes as long as a few."""
UNIT = 32
"""Parts but the last are multiples of so many rows."""


class Shared:
    """The threads of batches that are in work side by side: those of batches that have ended are for the others."""

    def __init__(self, threads: int, batches: int):
        self._threads, self._left, self._lock = threads, batches, Lock()

    def end(self) -> None:
        """One of the batches has ended."""
        with self._lock:
            self._left -= 1

    @property
    def each(self) -> int:
        """Threads for each batch that has not ended, as far as there are enough."""
        return self._threads // max(self._left, 1)


sharing: ContextVar[Shared | None] = ContextVar("sharing", default=None)
"""Among which batches this context's is."""


def threads() -> int:
    """How many an operation has here: torch's, and those that other batches have left."""
    shared = sharing.get()
    return max(torch.get_num_threads(), shared.each if shared else 0)


def in_parts(compute: Callable[[int, int], None], rows: int, least: int) -> None:
    """Call `compute` with the first row of each part, of `least` rows or more, and the number of its rows; a call
    has to leave Python alone (as one by ctypes does) to be worth it. What a part raises is raised here, once all have
    ended."""
    parts = min(threads(), rows // least)
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
