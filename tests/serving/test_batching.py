"""The queue: what comes together, what waits, what fails, what is given up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator, Sequence

import pytest

from moreie.datasets import post_from_text
from moreie.schema import Extraction, GateWeights
from moreie.serving.batching import Asked, Batcher, QueueFullError, fit_together
from moreie.serving.settings import ServiceSettings

Queue = Batcher[Asked, Extraction]


def asked(text: str, pixels: int = 0) -> Asked:
    return Asked(post_from_text(text, id=text[:20]), {}, pixels)


class Work:
    """Extractions that find nothing; posts that say `bad` fail, and `hold` keeps the worker busy."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, batch: Sequence[Asked]) -> list[Extraction]:
        self.batches.append([one.post.id for one in batch])
        assert self.hold.wait(30)
        if any(one.post.text == "bad" for one in batch):
            raise ValueError("bad post")
        gate = GateWeights()
        return [Extraction(one.post.id, one.post.text, (), (), (), gate, (), "none", None) for one in batch]

    async def begun(self, batcher: Queue) -> asyncio.Task[list[Extraction]]:
        """The extraction of a first post, which the worker has begun and holds."""
        self.hold.clear()
        first = asyncio.create_task(batcher.together([asked("first")]))
        while not self.batches:
            await asyncio.sleep(0.001)
        return first


def run(work: Work, settings: ServiceSettings, scenario) -> None:  # type: ignore[no-untyped-def]
    async def whole() -> None:
        batcher = Batcher(work, settings, fit=fit_together)
        batcher.start()
        try:
            await asyncio.wait_for(scenario(batcher), 30)
        finally:
            work.hold.set()
            await batcher.stop()

    asyncio.run(whole())


def test_posts_that_come_together_are_extracted_together_and_get_their_own_answers() -> None:
    work = Work()

    async def scenario(batcher: Queue) -> None:
        answers = await asyncio.gather(*(batcher.together([asked(str(i))]) for i in range(40)))
        assert [answer.text for (answer,) in answers] == [str(i) for i in range(40)]

    run(work, ServiceSettings(batch_size=16, batch_wait=0.05), scenario)
    assert [len(batch) for batch in work.batches] == [16, 16, 8]


def test_a_bad_post_fails_alone() -> None:
    async def scenario(batcher: Queue) -> None:
        one, bad, two = await asyncio.gather(
            *(batcher.together([asked(text)]) for text in ("one", "bad", "two")), return_exceptions=True
        )
        assert isinstance(bad, ValueError)
        assert [one[0].text, two[0].text] == ["one", "two"]  # type: ignore[index]
        with pytest.raises(ValueError, match="bad post"):
            await batcher.together([asked("good"), asked("bad")])

    run(Work(), ServiceSettings(batch_wait=0.05), scenario)


def test_what_finds_no_room_is_refused_and_what_has_it_is_answered() -> None:
    work = Work()

    async def scenario(batcher: Queue) -> None:
        first = await work.begun(batcher)
        waiting = [asyncio.create_task(batcher.together([asked(str(i))])) for i in range(3)]
        await asyncio.sleep(0)
        assert batcher.length == 3
        with pytest.raises(QueueFullError):
            await batcher.together([asked("more")])
        work.hold.set()
        answers = await asyncio.gather(first, *waiting)
        assert [answer.text for (answer,) in answers] == ["first", "0", "1", "2"]
        many = await batcher.together([asked(str(i)) for i in range(9)])
        assert len(many) == 9, "more than the queue holds are taken where nobody waits"

    run(work, ServiceSettings(queue_size=3, batch_wait=0), scenario)


def test_what_is_given_up_before_it_begins_is_not_worked_on() -> None:
    work = Work()

    async def scenario(batcher: Queue) -> None:
        first = await work.begun(batcher)
        gone = asyncio.create_task(batcher.together([asked("gone")]))
        kept = asyncio.create_task(batcher.together([asked("kept")]))
        await asyncio.sleep(0)
        gone.cancel()
        first.cancel()
        await asyncio.sleep(0)
        assert batcher.length == 1
        work.hold.set()
        assert (await kept)[0].text == "kept"

    run(work, ServiceSettings(), scenario)
    assert work.batches == [["first"], ["kept"]]


def test_large_posts_come_alone_and_other_work_in_its_turn() -> None:
    work = Work()

    async def scenario(batcher: Queue) -> None:
        posts = [asked("a", 40_000_000), asked("b", 40_000_000), asked("c"), asked("d " * 15_000), asked("e " * 15_000)]
        tasks = [asyncio.create_task(batcher.together([post])) for post in posts]
        tasks.append(asyncio.create_task(batcher.alone(lambda: [len(work.batches)])))
        tasks.append(asyncio.create_task(batcher.together([asked("f")])))
        done = await asyncio.gather(*tasks)
        assert done[-2] == [4]

    run(work, ServiceSettings(batch_wait=0.05), scenario)
    assert [len(batch) for batch in work.batches] == [1, 2, 1, 1, 1]


class Steps:
    """Work in steps that notes when it is done, and what has been extracted by then."""

    def __init__(self, work: Work, steps: int, fault: int | None = None):
        self.work, self.steps, self.fault = work, steps, fault
        self.done: list[int] = []

    def __iter__(self) -> Generator[None, None, str]:
        for step in range(self.steps):
            assert self.work.hold.wait(30)
            if step == self.fault:
                raise ValueError("bad step")
            self.done.append(len(self.work.batches))
            yield
        return f"{self.steps} steps"


def test_batches_and_steps_are_done_by_turns() -> None:
    work = Work()
    steps, more = Steps(work, 4), Steps(work, 1)

    async def scenario(batcher: Queue) -> None:
        first = await work.begun(batcher)
        long = [asyncio.create_task(batcher.in_steps(iter(one))) for one in (steps, more)]
        posts = [asyncio.create_task(batcher.together([asked(str(i))])) for i in range(3)]
        await asyncio.sleep(0)
        assert batcher.length == 5
        work.hold.set()
        assert await asyncio.gather(*long) == ["4 steps", "1 steps"]
        assert [answer.text for (answer,) in await asyncio.gather(first, *posts)] == ["first", "0", "1", "2"]

    run(work, ServiceSettings(batch_size=1, batch_wait=0), scenario)
    assert work.batches == [["first"], ["0"], ["1"], ["2"]]
    assert steps.done == [1, 2, 3, 4], "after each step a batch, as long as somebody waits"
    assert more.done == [4], "one after another"


def test_steps_that_are_given_up_or_fail_end_and_others_go_on() -> None:
    work = Work()
    given_up, bad, good = Steps(work, 1_000_000), Steps(work, 3, fault=1), Steps(work, 2)

    async def scenario(batcher: Queue) -> None:
        gone = asyncio.create_task(batcher.in_steps(iter(given_up)))
        while not given_up.done:
            await asyncio.sleep(0.001)
        assert batcher.length == 0, "what has begun takes no room"
        failing, going = (asyncio.create_task(batcher.in_steps(iter(one))) for one in (bad, good))
        await asyncio.sleep(0)
        assert batcher.length == 2
        with pytest.raises(QueueFullError):
            await batcher.in_steps(iter(Steps(work, 1)))
        gone.cancel()
        with pytest.raises(ValueError, match="bad step"):
            await failing
        assert await going == "2 steps"
        assert (await batcher.together([asked("post")]))[0].text == "post"

    run(work, ServiceSettings(queue_size=2, batch_wait=0), scenario)
    assert len(given_up.done) < 1_000_000
    assert len(bad.done) == 1


def test_a_post_that_nobody_joins_waits_no_longer_than_it_must() -> None:
    work = Work()

    async def scenario(batcher: Queue) -> None:
        first = await work.begun(batcher)
        second = asyncio.create_task(batcher.together([asked("second")]))
        await asyncio.sleep(0.01)
        start = time.perf_counter()
        work.hold.set()
        await asyncio.gather(first, second)
        assert 0.2 <= time.perf_counter() - start < 5

    run(work, ServiceSettings(batch_wait=0.2), scenario)


def test_who_asks_one_thing_after_another_does_not_wait_for_others() -> None:
    work = Work()

    async def scenario(batcher: Queue) -> None:
        clock = asyncio.get_running_loop().time
        start = clock()
        for i in range(5):
            await batcher.together([asked(str(i))])
        assert clock() - start < 1

    run(work, ServiceSettings(batch_size=16, batch_wait=1), scenario)
    assert [len(batch) for batch in work.batches] == [1] * 5


def test_where_others_ask_the_first_waits_for_them() -> None:
    work = Work()

    async def later(batcher: Queue, id: str) -> None:
        await asyncio.sleep(0.05)
        await batcher.together([asked(id)])

    async def scenario(batcher: Queue) -> None:
        first = await work.begun(batcher)
        second = asyncio.create_task(batcher.together([asked("second")]))
        await asyncio.sleep(0.01)
        work.hold.set()  # the second, which has waited, is joined by the third
        await asyncio.gather(first, second, later(batcher, "third"))
        # So is who comes behind a batch of several.
        await asyncio.gather(batcher.together([asked("fourth")]), later(batcher, "fifth"))

    run(work, ServiceSettings(batch_size=2, batch_wait=1), scenario)
    assert work.batches == [["first"], ["second", "third"], ["fourth", "fifth"]]
