"""Pairs with levitated markers: many of one text in one input, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moreie.models.assembly import PAIR_MARKERS, Assembled

# Pairs behind one text at most: what attention computes grows with the square of an input's length.
MOST_PAIRS = 32


@dataclass(frozen=True, slots=True)
class Packed:
    """An input of several pairs, and which of the inputs it was made of they were."""

    input: Assembled
    places: tuple[int, ...]


def packed_pairs(inputs: Sequence[Assembled], limit: int) -> list[Packed]:
    """Inputs of one pair each, those of one text together, of at most `limit` sub-tokens.

    The states of a pair's markers are the same either way.
    """
    by_text: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(inputs):
        by_text.setdefault(x.input_ids[:-PAIR_MARKERS], []).append(i)
    found = []
    for text, own in by_text.items():
        most = max(1, min(MOST_PAIRS, (limit - len(text)) // PAIR_MARKERS))
        for start in range(0, len(own), most):
            places = own[start : start + most]
            markers = [m for i in places for m in inputs[i].input_ids[-PAIR_MARKERS:]]
            levitated = tuple(p for i in places for p in inputs[i].levitated)
            anchors = tuple(
                a if a < len(text) else a + PAIR_MARKERS * n for n, i in enumerate(places) for a in inputs[i].anchors
            )
            first = inputs[places[0]]
            together = Assembled((*text, *markers), anchors, first.used, first.dropped, levitated)
            found.append(Packed(together, tuple(places)))
    return found


def positions_and_mask(inputs: Sequence[Assembled], width: int) -> tuple[Tensor, Tensor]:
    """Positions [B, S] of inputs with levitated markers, padded to S = `width`, and their attention mask [B, S].

    It is 1 on the text and another number on each pair's markers (`encoders.bert.reach`).
    """
    positions, mask = (
        torch.zeros(len(inputs), width, dtype=torch.long),
        torch.zeros(len(inputs), width, dtype=torch.long),
    )
    for row, numbers, x in zip(positions, mask, inputs, strict=True):
        end, text = len(x.input_ids), len(x.input_ids) - len(x.levitated)
        row[:text], row[text:end] = torch.arange(text), torch.tensor(x.levitated)
        numbers[:text], numbers[text:end] = 1, torch.arange(end - text) // PAIR_MARKERS + 2
    return positions, mask
