"""The CRF against `pytorch-crf`, against our own plain code, and against a floor.

A training step is the log-likelihood and its gradients, beside `pytorch-crf`'s; so is decoding. Marginals, which it
does not give, are beside the same recursion in plain torch operations: torch-struct 0.5 gives them too, but takes
longer than that (and TorchCRF 1.1.0 trains and decodes no faster than pytorch-crf). All on one thread.

The floor is the time of a call of a function with these inputs that only allocates its results, and of the arithmetic
at the rate at which this machine multiplies large matrices, or of the bytes read and written at the rate at which it
copies, whichever is longer. A word takes a training step 6 L² operations (a matrix-vector product forth, one back, an
outer product), marginals 4 L²; both 25 L for exp, marginals 24 L more for log. Viterbi takes 2 L², an addition and a
maximum, an instruction each where a matrix product has one for two. A ratio of 0.5 to the floor is twice its time.
`--as avx2` keeps all of it to the instructions of such a processor.

python benchmarks/crf.py
python benchmarks/crf.py --as avx2
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from machine import AVX2, keep_to, with_vectors
from rows import Row, compare, save, seconds
from torch import Tensor
from torchcrf import CRF

from moreie.models import crf as ours
from moreie.models import crf_kernels

SHAPES = [(batch, length, labels) for batch in (1, 32) for length in (32, 128) for labels in (9, 17)]
FASTER, OF_FLOOR = 5.0, 0.5
EXP, LOG = 25, 24


class Floor:
    """The time that so many operations take at the rate of large products, or that moving so many bytes takes."""

    def __init__(self, operations: float, dtype: torch.dtype, moved: float):
        self.matrix = torch.randn(256, 256, dtype=dtype)
        self.out = torch.empty_like(self.matrix)
        self.share = operations / (2 * 256**3)
        self.moving = moved / bandwidth()

    def product(self) -> None:
        torch.mm(self.matrix, self.matrix, out=self.out)

    def least(self, product: float) -> float:
        """Seconds, where a `product` takes so many."""
        return max(self.share * product, self.moving)


@cache
def bandwidth() -> float:
    """Bytes a second, read and written."""
    memory = torch.zeros(16_000_000)
    copy = torch.empty_like(memory)
    return 2 * 4 * len(memory) / min(seconds(lambda: copy.copy_(memory), 25))


class Nothing(torch.autograd.Function):
    """A call that only allocates: results [B], and gradients of its inputs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return inputs[0].new_empty(len(inputs[0]))

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors)


def beside_floor(
    name: str, work: str, measured: Callable[[], object], empty: Callable[[], object], floor: Floor, repeats: int = 101
) -> Row:
    """`measured`, the `empty` call and a large product in turns, since clocks wander; medians.

    Both stand behind a product, which leaves caches that hold none of theirs.
    """
    taken: tuple[list[float], ...] = ([], [], [])
    products = floor.product, taken[2]
    for _ in range(repeats):
        for run, times in ((measured, taken[0]), products, (empty, taken[1]), products):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    mine, call, product = (statistics.median(t) for t in taken)
    least = floor.least(product)
    whole = call + least
    quarters = statistics.quantiles(taken[0])
    return Row(
        name=name,
        work=work,
        ours=1 / mine,
        theirs=1 / whole,
        unit="steps/s",
        peer=f"floor: {call * 1e6:.0f} µs to call, {least * 1e6:.0f} µs to compute",
        ratio=whole / mine,
        spread=(whole / quarters[2], whole / quarters[0]),
        target=OF_FLOOR,
        met=whole / mine >= OF_FLOOR,
    )


def rows_for(batch: int, length: int, labels: int, like: str) -> list[Row]:
    torch.manual_seed(0)
    emissions = torch.randn(batch, length, labels, requires_grad=True)
    tags = torch.randint(labels, (batch, length))
    lengths = torch.full((batch,), length)
    mask = torch.ones(batch, length, dtype=torch.bool)
    theirs = CRF(labels, batch_first=True)
    scores = [s.detach().clone() for s in (theirs.transitions, theirs.start_transitions, theirs.end_transitions)]
    learnt = [s.clone().requires_grad_() for s in scores]
    fixed = emissions.detach()

    def our_step() -> None:
        (-ours.log_likelihood(emissions, tags, lengths, *learnt).mean()).backward()

    def their_step() -> None:
        (-theirs(emissions, tags, mask=mask, reduction="mean")).backward()

    def empty_step() -> None:
        (-Nothing.apply(emissions, *learnt).mean()).backward()

    shape = f"B={batch}, T={length}, L={labels}{like}"
    words, square, double, single = batch * length, labels**2, torch.float64, torch.float32
    step = words * (6 * square + EXP * labels)
    both = words * (4 * square + (EXP + LOG) * labels)
    emitted = emissions.nbytes
    names = ("CRF training step", "CRF log-marginals", "CRF Viterbi")
    peers = ("pytorch-crf", "plain torch operations", "pytorch-crf")
    measured = (
        our_step,
        lambda: ours.log_marginals(fixed, lengths, *scores),
        lambda: ours.viterbi(fixed, lengths, *scores),
    )
    others = (
        their_step,
        lambda: ours.plain_log_marginals(fixed, lengths, *scores),
        lambda: theirs.decode(fixed, mask=mask),
    )
    empty = (
        empty_step,
        lambda: (Nothing.apply(fixed, *scores), torch.empty_like(fixed)),
        lambda: (Nothing.apply(fixed, *scores), torch.empty_like(tags)),
    )
    floors = (
        Floor(step, double, 2 * emitted + tags.nbytes),
        Floor(both, double, 2 * emitted),
        Floor(2 * 2 * words * square, single, emitted + tags.nbytes),
    )
    rows = []
    for name, peer, mine, other, nothing, floor in zip(names, peers, measured, others, empty, floors, strict=True):
        with torch.set_grad_enabled(mine is our_step):
            rows.append(compare(name, shape, mine, other, peer, unit="steps/s", repeats=15, target=FASTER))
            rows.append(beside_floor(f"{name} beside its floor", shape, mine, nothing, floor))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--as", dest="lesser", choices=["avx2"], help="keep to the instructions of such a processor")
    arguments = parser.parse_args()
    if arguments.lesser:
        keep_to(arguments.lesser, AVX2)
    like = f", as with {arguments.lesser}" if arguments.lesser else ""
    if not crf_kernels.load():
        raise SystemExit("no kernels built: python -m moreie.kernels.build")
    torch.set_num_threads(1)
    save(with_vectors("crf"), [row for shape in SHAPES for row in rows_for(*shape, like)])


if __name__ == "__main__":
    main()
