"""A batch without its padding: the tokens of each row behind those of the one before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """Which places of [B, S] are there: the first ones of each row, `counts` of them."""

    counts: list[int]
    starts: Tensor
    """[B]: behind how many others the first of each row lies."""
    places: Tensor
    """[N]: row · S + column of each."""
    shape: tuple[int, int]

    @classmethod
    def of(cls, counts: Tensor, columns: int) -> PackedRows:
        """`counts` [B], at least one in a row, of so many `columns`."""
        there = torch.arange(columns, device=counts.device) < counts[:, None]
        starts = counts.cumsum(0) - counts
        return cls(counts.tolist(), starts, there.flatten().nonzero()[:, 0], (len(counts), columns))

    @property
    def columns(self) -> Tensor:
        """[N]: of each its place in its row."""
        return self.places % self.shape[1]

    def pack(self, states: Tensor) -> Tensor:
        """[N, …]: what is there of [B, S, …]."""
        return states.flatten(0, 1)[self.places]

    def spread(self, states: Tensor) -> Tensor:
        """[B, S, H]: states [N, H] in their places, zeros where nothing is."""
        rows, columns = self.shape
        found = states.new_zeros(rows * columns, states.shape[1])
        return found.index_copy_(0, self.places, states).view(rows, columns, -1)


def packed_rows(attention_mask: Tensor) -> PackedRows | None:
    """Of a mask [B, S], above 0 on real tokens; None where those are not the first of each row, or a row has none."""
    real = attention_mask > 0
    counts = real.sum(1)
    ordered = torch.equal(real, torch.arange(real.shape[1], device=real.device) < counts[:, None])
    return PackedRows.of(counts, real.shape[1]) if ordered and bool((counts > 0).all()) else None
