"""Batches without their padding."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from moreie.encoders.packed_rows import packed_rows


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 4))
def test_what_is_there_is_packed_and_finds_its_place_again(counts: list[int], behind: int) -> None:
    mask = torch.arange(max(counts) + behind) < torch.tensor(counts)[:, None]
    rows = packed_rows(mask.long())
    assert rows is not None
    assert rows.counts == counts
    states = torch.rand(*mask.shape, 3)
    packed = rows.pack(states)
    assert torch.equal(packed, states[mask])
    assert torch.equal(rows.columns, mask.nonzero()[:, 1])
    assert torch.equal(packed[rows.starts], states[:, 0])
    assert torch.equal(rows.spread(packed), states * mask[..., None])


def test_rows_with_gaps_or_nothing_are_not() -> None:
    assert packed_rows(torch.tensor([[1, 0, 1], [1, 1, 1]])) is None
    assert packed_rows(torch.tensor([[0, 1], [1, 1]])) is None
    assert packed_rows(torch.tensor([[0, 0], [1, 1]])) is None
    assert packed_rows(torch.tensor([[1, 2, 0], [1, 2, 3]])) is not None, "numbers above 1 are read by some"
