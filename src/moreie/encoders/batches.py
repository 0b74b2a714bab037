"""Batches of a forward pass: inputs of like length together and, on a processor, batches side by side.

Threads within each product of a small encoder make it 1.5 to 1.7 times as fast on two cores, two batches at once with a
thread each 1.9 to 2.0 times (`benchmarks/notes.md`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import cache
from threading import Barrier, Lock
from typing import Any, Generic, TypeVar

import torch

from moreie.encoders.precision import fast_batch
from moreie.encoders.row_parts import Shared, sharing

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Batch(Generic[R]):
    """Some of a list of inputs, by their places, and what is made of them: one answer each."""

    places: Sequence[int]
    answers: Callable[[], Sequence[R]]


def length_batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices grouped by similar length; longest row × rows stays within `tokens_per_batch` (at least one row)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def fast_batches(lengths: Sequence[int], device: torch.device | str) -> list[list[int]]:
    """Indices grouped by similar length into batches that suit the device, as many on each of its threads and with as
    little padding as may be; the longest first, so that all threads end at about the same time."""
    threads, total = at_once(device), sum(lengths)
    count = threads * -(-total // (threads * fast_batch(device)))
    least, most = max(lengths, default=0), max(lengths, default=0) * len(lengths)
    while least < most:  # the smallest batches of which `count` are enough
        middle = (least + most) // 2
        if sum(1 for _ in length_batches(lengths, middle)) > count:
            least = middle + 1
        else:
            most = middle
    return list(length_batches(lengths, least))[::-1]


def read_together(readings: Sequence[Sequence[Batch[Any]]], device: torch.device | str) -> list[list[Any]]:
    """The answers to each list of inputs, in their order; the batches of all lists are in work side by side, those of
    the first list first."""
    batches = [(n, batch) for n, reading in enumerate(readings) for batch in reading]
    found: list[dict[int, Any]] = [{} for _ in readings]
    for (n, batch), answers in zip(batches, side_by_side(lambda b: b[1].answers(), batches, device), strict=True):
        found[n].update(zip(batch.places, answers, strict=True))
    return [[answers[place] for place in range(len(answers))] for answers in found]


def meanwhile(apart: Callable[[], T], here: Callable[[], R]) -> tuple[T, R]:
    """What both give: `apart` is called in a thread of its own while `here` is; one after the other where torch
    computes with one thread. Context variables are as here in both. What they raise is raised once both have ended.
    """
    if at_once("cpu") < 2:
        return apart(), here()
    threads = torch.get_num_threads()

    def begun() -> T:
        _compute_with(threads)
        return apart()

    called = _apart().submit(copy_context().run, begun)
    try:
        found = here()
    finally:
        wait([called])
    return called.result(), found


@cache
def _apart() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4, "apart")


def between_batches(work: Callable[[], T], device: torch.device | str) -> T:
    """What `work` gives, called in a thread in which torch computes with one; its batches have as many as there are
    here. Context variables are as here. Whoever is interrupted while it is at work leaves it to its end.

    An operation on a few thousand numbers would be divided among torch's threads, which then wait busily for the next
    one (OpenMP's do, for milliseconds) and take processors from batches.
    """
    threads = at_once(device)
    if threads < 2:
        return work()

    def begun() -> T:
        _threads.set(threads)
        return work()

    return _between().submit(copy_context().run, begun).result()


_threads: ContextVar[int | None] = ContextVar("threads", default=None)
"""How many batches of this context have, where torch computes with one."""


@cache
def _between() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(os.cpu_count() or 1, 8), "between", lambda: _compute_with(1))


def side_by_side(work: Callable[[T], R], batches: Sequence[T], device: torch.device | str) -> list[R]:
    """What `work` makes of each batch, in their order.

    On a processor as many are in work at once as torch has threads there, which are divided among them; the project's
    own kernels take over those of batches that have ended (`row_parts`). Context variables are as here; autograd,
    autocast and dispatch modes belong to a thread: `work` sets those that it needs. What it raises is raised here.
    """
    threads = at_once(device)
    # Fewer batches than threads: the next lower power of two of them, so that there are few kinds of pools.
    workers = threads if len(batches) >= threads else 1 << max(len(batches), 1).bit_length() - 1
    if workers < 2 and torch.get_num_threads() >= threads:
        return [work(batch) for batch in batches]
    shared = Shared(threads, len(batches))

    def run(batch: T) -> R:
        sharing.set(shared)
        try:
            return work(batch)
        finally:
            shared.end()

    contexts = [copy_context() for _ in batches]
    with _beginning:
        each = _workers(workers, threads // workers).map
    return list(each(lambda context, batch: context.run(run, batch), contexts, batches))


_beginning = Lock()


@cache
def _workers(count: int, threads: int) -> ThreadPoolExecutor:
    """They stay: each has its own memory for products, which would have to be found anew."""
    there = Barrier(count)
    pool = ThreadPoolExecutor(count, "batches", lambda: _compute_with(threads))
    list(pool.map(lambda _: there.wait(), range(count)))  # all have begun
    return pool


def _compute_with(threads: int) -> None:
    """Torch computes with so many in this thread, in those yet to come with as many as before."""
    if torch.get_num_threads() == threads:
        return
    with _numbering:
        # A thread takes over the process' number where it first asks for its own; whoever sets one sets both.
        before = _in_a_new_thread(torch.get_num_threads)
        torch.set_num_threads(threads)
        _in_a_new_thread(lambda: torch.set_num_threads(before))


_numbering = Lock()


def _in_a_new_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def _forget_threads() -> None:
    """A child has none of its parent's."""
    global _beginning, _numbering
    _workers.cache_clear()
    _apart.cache_clear()
    _between.cache_clear()
    _beginning, _numbering = Lock(), Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Within the block torch computes with so many threads. With one, batches follow each other in the caller's, where
    a dispatch mode sees them."""
    before, of_batches = torch.get_num_threads(), _threads.set(None)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _threads.reset(of_batches)


def at_once(device: torch.device | str) -> int:
    """Batches that can be in work at once."""
    return _threads.get() or torch.get_num_threads() if torch.device(device).type == "cpu" else 1
