"""Scores of spans from the states of their first and last word: the emissions of a `SegmentCRF`."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import pad


class SpanHead(BaseModel):
    """An NER head over whole spans in place of one over words.

    `scorer`: `endpoints` reads the states of the first and the last word and the length through one hidden layer;
    `biaffine` multiplies the two (Yu et al., ACL 2020). `longest`: the most words of a mention. `hidden`: units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scorer: Literal["endpoints", "biaffine"]
    longest: int = Field(default=10, ge=1)
    hidden: int = Field(default=128, ge=1)


class SpanScores(nn.Module):
    """States [B, T, H] → `SegmentCRF` scores [B, T, 1 + K C]; undefined for spans that would begin before word 0."""

    def __init__(self, size: int, types: int, head: SpanHead, dropout: float):
        super().__init__()
        self.longest = head.longest
        self.outside = nn.Linear(size, 1)
        self.first = nn.Linear(size, head.hidden)
        self.last = nn.Linear(size, head.hidden)
        self.length = nn.Embedding(head.longest, head.hidden)
        self.linear = nn.Linear(head.hidden, types)
        self.product = nn.Parameter(torch.empty(types, head.hidden, head.hidden)) if head.scorer == "biaffine" else None
        if self.product is not None:
            nn.init.xavier_uniform_(self.product)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        first, last = self.first(states), self.last(states)
        batch, words = states.shape[:2]
        # [B, T, K, hidden]: the first word of a span of k words that ends at t.
        firsts = torch.stack([pad(first, (0, 0, k, 0))[:, :words] for k in range(self.longest)], dim=2)
        hidden = self.dropout(torch.relu(firsts + last[:, :, None] + self.length.weight))
        spans = self.linear(hidden)
        if self.product is not None:
            turned = torch.einsum("bth,cgh->btcg", self.dropout(torch.relu(last)), self.product)
            spans = spans + torch.einsum("btkg,btcg->btkc", self.dropout(torch.relu(firsts)), turned)
        return torch.cat([self.outside(states), spans.reshape(batch, words, -1)], dim=2)
