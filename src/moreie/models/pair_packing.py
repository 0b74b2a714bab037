"""Pairs with levitated markers: many of one text in one input, and what each token of it reads."""

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


def positions_and_reach(inputs: Sequence[Assembled], width: int) -> tuple[Tensor, Tensor]:
    """Positions [B, S] of inputs with levitated markers, padded to S = `width`, and what each token reads [B, S, S].

    A text's tokens read the text, a pair's markers the text and each other.
    """
    lengths = torch.tensor([len(x.input_ids) - len(x.levitated) for x in inputs])[:, None]
    places = torch.arange(width)[None].repeat(len(inputs), 1)
    markers = torch.tensor([len(x.levitated) for x in inputs])[:, None]
    # Which pair a marker belongs to, counted from 0; -1 for the text, and none alike for padding.
    pair = (places - lengths).div(PAIR_MARKERS, rounding_mode="floor")
    is_text, is_marker = places < lengths, (places >= lengths) & (places < lengths + markers)
    own = (pair[:, :, None] == pair[:, None, :]) & is_marker[:, :, None] & is_marker[:, None, :]
    reach = is_text[:, None, :] | own
    positions = torch.where(is_text, places, 0)
    positions[is_marker] = torch.tensor([p for x in inputs for p in x.levitated], dtype=torch.long)
    return positions, reach.long()
