"""The CRF against `pytorch-crf`: a training step (log-likelihood and its gradient) and decoding.

python benchmarks/crf.py
"""

from __future__ import annotations

import torch
from rows import Row, compare, save
from torchcrf import CRF

from moreie.models import crf as ours

SHAPES = ((1, 32, 17), (32, 32, 17), (32, 128, 17))


def rows_for(batch: int, length: int, labels: int) -> list[Row]:
    torch.manual_seed(0)
    emissions = torch.randn(batch, length, labels, requires_grad=True)
    tags = torch.randint(labels, (batch, length))
    lengths = torch.full((batch,), length)
    mask = torch.ones(batch, length, dtype=torch.bool)
    theirs = CRF(labels, batch_first=True)
    transitions = theirs.transitions.detach().clone().requires_grad_()
    start = theirs.start_transitions.detach().clone().requires_grad_()
    end = theirs.end_transitions.detach().clone().requires_grad_()

    def our_step() -> None:
        score = ours.log_score(emissions, tags, lengths, transitions, start, end)
        (ours.log_partition(emissions, lengths, transitions, start, end) - score).mean().backward()

    def their_step() -> None:
        loss = -theirs(emissions, tags, mask=mask, reduction="mean")
        loss.backward()

    def our_decoding() -> None:
        with torch.no_grad():
            ours.viterbi(emissions, lengths, transitions, start, end)

    def their_decoding() -> None:
        with torch.no_grad():
            theirs.decode(emissions, mask=mask)

    shape = f"B={batch}, T={length}, L={labels}"
    return [
        compare("CRF training step", shape, our_step, their_step, "pytorch-crf", unit="steps/s", repeats=15),
        compare("CRF Viterbi", shape, our_decoding, their_decoding, "pytorch-crf", unit="steps/s", repeats=15),
    ]


def main() -> None:
    save("crf", [row for shape in SHAPES for row in rows_for(*shape)])


if __name__ == "__main__":
    main()
