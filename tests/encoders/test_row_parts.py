"""Rows are computed once each, by as many threads as torch has here."""

from __future__ import annotations

import threading

import pytest

from moreie.encoders.batches import computing_with
from moreie.encoders.row_parts import LEAST, UNIT, in_parts


def parts_of(rows: int, threads: int) -> tuple[list[tuple[int, int]], set[int]]:
    """First row and number of each part, and the threads that they were computed by."""
    found: list[tuple[int, int]] = []
    by: set[int] = set()

    def compute(first: int, count: int) -> None:
        found.append((first, count))
        by.add(threading.get_ident())

    with computing_with(threads):
        in_parts(compute, rows, LEAST)
    return sorted(found), by


@pytest.mark.parametrize("rows", [0, 1, LEAST, 2 * LEAST - 1, 2 * LEAST, 200, 257, 1000])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_row_is_in_one_part(rows: int, threads: int) -> None:
    parts, by = parts_of(rows, threads)
    assert [row for first, count in parts for row in range(first, first + count)] == list(range(rows))
    assert len(parts) == max(min(threads, rows // LEAST), 1)
    assert all(count % UNIT == 0 for _, count in parts[:-1])
    assert threading.get_ident() in by


def test_what_a_part_raises_is_raised_once_all_have_ended() -> None:
    ended: list[int] = []

    def compute(first: int, count: int) -> None:
        if first:
            ended.append(first)
            raise ArithmeticError(str(first))
        ended.append(first)

    with computing_with(2), pytest.raises(ArithmeticError):
        in_parts(compute, 4 * LEAST, LEAST)
    assert sorted(ended) == [0, 2 * LEAST]
