"""How long the stages of an extraction take, for whoever wants to hear."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnStage = Callable[[str, float], None]
"""Hears the name of a stage and its seconds."""


def silent(stage: str, seconds: float) -> None:
    """Nobody wants to hear."""


@contextmanager
def heard_at_the_end(on_stage: OnStage) -> Iterator[OnStage]:
    """What other threads are to tell of the block's stages; `on_stage` hears it behind the block, in this one."""
    told: list[tuple[str, float]] = []
    yield lambda stage, seconds: told.append((stage, seconds))
    for stage in told:
        on_stage(*stage)


def laps(on_stage: OnStage) -> Callable[[str], None]:
    """Tells, of each stage that is done, how long it took since the one before."""
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        on_stage(stage, now - clock)
        clock = now

    return lap
