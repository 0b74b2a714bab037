"""Channels of what an encoder's products read, brought nearer to each other, so that 8 bits lose less.

A row of states in 8 bits has one range for all of its channels. Transformers have channels that are many times as large
as the rest, which then get only a few of the 256 steps. A channel is divided before the product and its weights
multiplied by as much: the same product, but for the rounding (Xiao et al. 2023, SmoothQuant).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from moreie.encoders.merging import weights_of
from moreie.encoders.products import Product
from moreie.encoders.ready_bert import ReadyBert
from moreie.encoders.text import TextEncoder

DIVIDED = 0.25
"""The power of its largest value that a channel is divided by: its weights must not become the large ones."""
SAMPLES, LENGTH = 32, 24


@torch.no_grad()
def divisors(encoder: TextEncoder, adapter: str | None) -> list[Tensor]:
    """What the channels [in] are to be divided by that each product of a `ReadyBert` reads, in the order in which they
    are made. Texts of random sub-tokens show which are large: that depends little on what is read."""
    watched: list[_Watched] = []

    def product(weights: Sequence[Tensor], biases: Sequence[Tensor], *, gelu: bool) -> _Watched:
        watched.append(_Watched(Product(weights, biases, gelu=gelu)))
        return watched[-1]

    ready = ReadyBert(encoder.model, weights_of(encoder, adapter, torch.float32), torch.float32, product)
    embedded = encoder.model.get_input_embeddings()(_samples(encoder))
    ready.states(embedded, None, None, None)
    return [_divisors(each.largest) for each in watched]


class _Watched:
    """A product that keeps the largest absolute value of each channel that it reads."""

    def __init__(self, product: Product):
        self._product = product
        self.largest = torch.zeros(0)

    def __call__(self, states: Tensor) -> Tensor:
        self.largest = states.flatten(0, -2).abs().amax(0)
        return self._product(states)


def _samples(encoder: TextEncoder) -> Tensor:
    """Sub-token ids [SAMPLES, LENGTH]."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(encoder.model.config.vocab_size, (SAMPLES, LENGTH), generator=generator)
    first, last = encoder.frame
    if first:
        ids[:, 0] = first[0]
    if last:
        ids[:, -1] = last[0]
    return ids


def _divisors(largest: Tensor) -> Tensor:
    """By channel, at most 1; `largest`: its largest absolute value."""
    return (largest / largest.amax().clamp_min(1e-30)).clamp_min(1e-6) ** DIVIDED
