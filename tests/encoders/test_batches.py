"""Batches side by side: the same answers in the same order, whatever the number of threads."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moreie.encoders import row_parts
from moreie.encoders.batches import (
    Batch,
    at_once,
    between_batches,
    computing_with,
    fast_batches,
    length_batches,
    meanwhile,
    read_together,
    side_by_side,
)
from moreie.encoders.precision import fast_batch
from moreie.encoders.row_parts import LEAST, in_parts

setting: ContextVar[str] = ContextVar("setting")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with computing_with(request.param):
        yield request.param


@given(st.lists(st.integers(1, 512), max_size=60), st.integers(1, 4))
def test_batches_hold_each_input_once_and_are_as_many_as_threads_can_share(lengths: list[int], threads: int) -> None:
    with computing_with(threads):
        batches = fast_batches(lengths, "cpu")
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    rounds = -(-sum(lengths) // (threads * fast_batch("cpu")))
    assert len(batches) <= threads * rounds
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    # None is larger than any way into as many batches needs: one token less, and they would be more.
    largest = max((max(lengths[i] for i in b) * len(b) for b in batches), default=0)
    if largest > max(lengths, default=0):
        assert len(list(length_batches(lengths, largest - 1))) > threads * rounds


def test_results_come_in_order_from_as_many_threads_as_there_may_be(threads: int) -> None:
    together = threading.Barrier(threads)

    def work(batch: int) -> tuple[int, int]:
        together.wait(30)  # passed only where all are in work at once
        return batch, torch.get_num_threads()

    found = side_by_side(work, range(3 * threads), "cpu")
    assert found == [(i, 1) for i in range(3 * threads)]
    assert torch.get_num_threads() == threads
    seen: list[int] = []
    (late := threading.Thread(target=lambda: seen.append(torch.get_num_threads()))).start()
    late.join()
    assert seen == [threads], "nor has it changed for threads that come later"


def test_threads_that_first_compute_in_a_later_call_have_their_number_too() -> None:
    threads = 5
    together = threading.Barrier(threads)

    def idle(_: int) -> None:
        together.wait(30)

    def work(_: int) -> int:
        together.wait(30)
        return torch.get_num_threads()

    with computing_with(threads):
        side_by_side(idle, range(threads), "cpu")
        assert side_by_side(work, range(threads), "cpu") == [1] * threads


def test_fewer_batches_than_threads_share_them() -> None:
    with computing_with(4):
        assert side_by_side(lambda _: torch.get_num_threads(), range(2), "cpu") == [2, 2]
        assert side_by_side(lambda _: torch.get_num_threads(), range(1), "cpu") == [4]
        with computing_with(1):
            assert side_by_side(lambda _: threading.current_thread(), range(5), "cpu") == [threading.main_thread()] * 5
        assert torch.get_num_threads() == 4


def test_what_a_batch_raises_is_raised(threads: int) -> None:
    def work(batch: int) -> int:
        if batch == 2:
            raise ValueError("the third")
        return batch

    with pytest.raises(ValueError, match="the third"):
        side_by_side(work, range(4), "cpu")
    assert side_by_side(abs, [-1, -2, -3, -4], "cpu") == [1, 2, 3, 4], "and the workers go on"


def test_batches_of_several_lists_are_answered_in_the_order_of_their_inputs(threads: int) -> None:
    together = threading.Barrier(threads)

    def batch(places: list[int], times: int) -> Batch[int]:
        def answers() -> list[int]:
            together.wait(30)  # passed only where batches of all lists are in work at once
            return [times * place for place in places]

        return Batch(places, answers)

    lists = [[batch([4, 1], 10), batch([0], 10), batch([3, 2], 10)], [], [batch([1, 0, 2], 100), batch([3], 100)]]
    lists.append([batch([0], 1)])  # six batches: two rounds of three, three of two
    assert read_together(lists, "cpu") == [[0, 10, 20, 30, 40], [], [0, 100, 200, 300], [0]]


def test_two_things_are_done_at_the_same_time_where_there_are_threads(threads: int) -> None:
    setting.set("as here")
    together = threading.Barrier(min(threads, 2))

    def one() -> tuple[threading.Thread, int, str, list[int]]:
        together.wait(30)
        found = threading.current_thread(), torch.get_num_threads(), setting.get()
        return *found, side_by_side(abs, [-1, -2], "cpu")

    apart, here = meanwhile(one, one)
    assert apart[1:] == here[1:] == (threads, "as here", [1, 2])
    assert here[0] is threading.main_thread()
    assert (apart[0] is threading.main_thread()) is (threads == 1)


def test_between_batches_torch_computes_with_one_thread_and_batches_with_all(threads: int) -> None:
    setting.set("as here")

    def counted(_: int) -> int:
        return torch.get_num_threads()

    def work() -> tuple[int, int, str, list[int], list[int], tuple[int, int]]:
        alone, many = side_by_side(counted, range(1), "cpu"), side_by_side(counted, range(2 * threads), "cpu")
        both = meanwhile(torch.get_num_threads, torch.get_num_threads)
        return at_once("cpu"), torch.get_num_threads(), setting.get(), alone, many, both

    found = between_batches(work, "cpu")
    assert found == (threads, 1, "as here", [threads], [1] * 2 * threads, (1, 1))
    assert torch.get_num_threads() == at_once("cpu") == threads
    seen: list[int] = []
    (late := threading.Thread(target=lambda: seen.append(torch.get_num_threads()))).start()
    late.join()
    assert seen == [threads], "nor has it changed for threads that come later"

    def within() -> int:
        with computing_with(2):
            return at_once("cpu")

    assert between_batches(within, "cpu") == 2

    def fails() -> None:
        raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        between_batches(fails, "cpu")


def test_threads_of_batches_that_have_ended_are_for_the_others() -> None:
    both = threading.Barrier(2)

    def work(batch: int) -> list[tuple[int, int]]:
        parts: list[tuple[int, int]] = []
        both.wait(30)  # until both are in work
        if batch == 0:
            in_parts(lambda *part: parts.append(part), 4 * LEAST, LEAST)
            return parts
        until = time.monotonic() + 30
        while row_parts.threads() < 2 and time.monotonic() < until:  # until the other has ended
            time.sleep(0.001)
        in_parts(lambda *part: parts.append(part), 4 * LEAST, LEAST)
        return sorted(parts)

    with computing_with(2):
        assert side_by_side(work, range(2), "cpu") == [[(0, 4 * LEAST)], [(0, 2 * LEAST), (2 * LEAST, 2 * LEAST)]]


def test_what_either_raises_is_raised_once_both_have_ended(threads: int) -> None:
    ended: list[str] = []

    def late() -> None:
        time.sleep(0.05)
        ended.append("late")

    def fails() -> None:
        raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        meanwhile(late, fails)
    assert ended == ["late"]
    with pytest.raises(ValueError, match="midway"):
        meanwhile(fails, late)
    assert len(ended) == (1 if threads == 1 else 2)


def _in_a_child(answers: multiprocessing.Queue[list[int]]) -> None:
    torch.set_num_threads(2)
    answers.put(side_by_side(abs, [-1, -2], "cpu"))


def test_a_forked_process_has_workers_of_its_own() -> None:
    with computing_with(2):
        assert side_by_side(abs, [-1, -2], "cpu") == [1, 2]
        context = multiprocessing.get_context("fork")
        answers: multiprocessing.Queue[list[int]] = context.Queue()
        child = context.Process(target=_in_a_child, args=(answers,))
        child.start()
        assert answers.get(timeout=60) == [1, 2]
        child.join(60)
