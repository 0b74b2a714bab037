"""Dynamic batching: what concurrent requests ask for waits in one bounded queue and is worked on together."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from moreie.schema import Post
from moreie.serving.limits import CHARACTERS_PER_BATCH, PIXELS_PER_BATCH
from moreie.serving.settings import ServiceSettings

T = TypeVar("T")
Item = TypeVar("Item")
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """No room for more posts."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A post to be extracted, its attached texts, the pixels that its picture declares, and whether its mentions are
    to be linked."""

    post: Post
    attached: Mapping[str, str] = field(default_factory=dict)
    pixels: int = 0
    link: bool = False


def fit_together(batch: Sequence[Asked]) -> bool:
    """Whether these posts may be extracted together."""
    return (
        sum(one.pixels for one in batch) <= PIXELS_PER_BATCH
        and sum(len(one.post.text) for one in batch) <= CHARACTERS_PER_BATCH
    )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An item, or work that is done by itself, and who waits for it. A cancelled future is not worked for."""

    answer: asyncio.Future[Any]
    item: Any = None
    alone: Callable[[], Any] | None = None


@dataclass(slots=True)
class _Long:
    """Work that is done in steps, and who waits for it."""

    answer: asyncio.Future[Any]
    steps: Generator[Any, None, Any]
    begun: bool = False


W = TypeVar("W", _Waiting, _Long)


class Batcher(Generic[Item, Answer]):
    """One queue and one worker thread. `work` is called in that thread, with the items of one batch; `on_batch` hears
    how many they are; `fit` says whether items may be in one batch.

    The first of a batch waits for others where there are some: where it has waited for the batch before to end, or that
    one had several items. Whoever asks one thing after another is answered at once.

    Work in steps stands in a second line: where both have somebody, a batch and a step are done by turns, so that no
    item waits for more than one step, and steps go on under load.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Answer]],
        settings: ServiceSettings,
        *,
        on_batch: Callable[[int], None] = lambda items: None,
        fit: Callable[[Sequence[Item]], bool] = lambda batch: True,
    ):
        self._work, self._settings, self._on_batch, self._fit = work, settings, on_batch, fit
        self._queue: deque[_Waiting] = deque()
        self._long: deque[_Long] = deque()
        self._came = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="worker")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop; whoever still waits is cancelled."""
        if self._task:
            self._task.cancel()
        for answer in [*(one.answer for one in self._queue), *(one.answer for one in self._long)]:
            answer.cancel()
        self._worker.shutdown(wait=False, cancel_futures=True)

    @property
    def length(self) -> int:
        """How many wait; what has begun does not."""
        new = sum(not one.begun and not one.answer.done() for one in self._long)
        return new + sum(not one.answer.done() for one in self._queue)

    async def together(self, items: Sequence[Item]) -> list[Answer]:
        """The answers to items, in their order; they may be worked on with those of others.

        Cancelled, items that have not begun are dropped.

        Raises:
            QueueFullError: no room for all of them.
            Exception: what the work on one of them raised by itself.
        """
        return await self._answers(self._queue, [_Waiting(self._future(), item) for item in items])

    async def alone(self, work: Callable[[], T]) -> T:
        """The result of other work for the thread, done when it is its turn. Raises as `together`."""
        results: list[T] = await self._answers(self._queue, [_Waiting(self._future(), alone=work)])
        return results[0]

    async def in_steps(self, work: Generator[Any, None, T]) -> T:
        """What a generator returns; it is taken one step on in the thread, whenever it is its turn.

        Cancelled, it is left between two steps. Raises as `together`.
        """
        results: list[T] = await self._answers(self._long, [_Long(self._future(), work)])
        return results[0]

    def _future(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    async def _answers(self, line: deque[W], waiting: Sequence[W]) -> list[Any]:
        here = self.length
        # What is more than the whole queue has to be taken when nobody else waits, or it would never be.
        if here and here + len(waiting) > self._settings.queue_size:
            raise QueueFullError
        line.extend(waiting)
        self._came.set()
        try:
            return [await one.answer for one in waiting]
        finally:
            for one in waiting:
                if not one.answer.cancel() and not one.answer.cancelled():
                    one.answer.exception()  # seen, whoever's it is: asyncio would report it with the post's text

    async def _run(self) -> None:
        stepped, others = False, False
        while True:
            others = others or self._first(self._queue) is not None
            while not (self._first(self._queue) or self._first(self._long)):
                self._came.clear()
                await self._came.wait()
            long = self._first(self._long)
            if long and not (stepped and self._first(self._queue)):
                await self._step(long)
                stepped = True
                continue
            batch = await self._next_batch(self._settings.batch_wait if others else 0.0)
            if not batch[0].alone:
                self._on_batch(len(batch))
            await self._settle(batch)
            stepped, others = False, len(batch) > 1

    async def _step(self, long: _Long) -> None:
        """Take the first of the second line one step on; it leaves the line at its end."""
        long.begun = True
        loop = asyncio.get_running_loop()
        try:
            ended, result = await loop.run_in_executor(self._worker, _advanced, long.steps)
        except Exception as problem:
            self._long.popleft()
            if not long.answer.done():
                long.answer.set_exception(problem)
            return
        if ended:
            self._long.popleft()
            if not long.answer.done():
                long.answer.set_result(result)

    async def _next_batch(self, wait: float) -> list[_Waiting]:
        """What is worked on together: one piece of other work, or items as they come within the wait [s]."""
        first = self._queue.popleft()
        batch = [first]
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        while not first.alone and len(batch) < self._settings.batch_size:
            following = self._first(self._queue)
            if following is None:
                self._came.clear()
                try:
                    await asyncio.wait_for(self._came.wait(), max(until - clock(), 0))
                except asyncio.TimeoutError:
                    break
            elif not following.alone and self._fit([one.item for one in (*batch, following)]):
                batch.append(self._queue.popleft())
            else:
                break
        return batch

    def _first(self, line: deque[W]) -> W | None:
        """Who has been in a line longest, those left out that were given up."""
        while line and line[0].answer.done():
            line.popleft()
        return line[0] if line else None

    def _done(self, batch: Sequence[_Waiting]) -> Sequence[Any]:
        """The results of a batch, in the worker thread."""
        if alone := batch[0].alone:
            return [alone()]
        return self._work([waiting.item for waiting in batch])

    async def _settle(self, batch: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._worker, self._done, batch)
        except Exception as problem:
            if len(batch) > 1:
                # One of them is to blame: each has to stand for itself.
                log.warning("a batch of %d failed (%s); its items are tried by themselves", len(batch), type(problem))
                for one in batch:
                    if not one.answer.done():
                        await self._settle([one])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(problem)
            return
        for one, result in zip(batch, results, strict=True):
            if not one.answer.done():
                one.answer.set_result(result)


def _advanced(steps: Generator[Any, None, Any]) -> tuple[bool, Any]:
    """A generator one step on: whether that was its end, and what it returned."""
    try:
        next(steps)
    except StopIteration as end:
        return True, end.value
    return False, None
