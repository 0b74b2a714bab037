"""Which passage an answer rests on: what a mixture says of a case with each passage left out in turn.

Leaving one out is exact where gradients are estimates: an expert reads again, without the passage, and the gate weighs
again. Experts that do not read that kind of evidence say what they said before, and are not run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moreie.encoders.batches import at_once
from moreie.encoders.precision import fast_batch
from moreie.models.expert import Expert
from moreie.models.gate_inputs import PostStates
from moreie.models.mixture import Mixture
from moreie.models.outputs import ExpertOutputs, Rows, availability, entropies_of
from moreie.schema import Evidence

# A piece has a variant for so many of the sub-tokens that the device reads at once. At 128 sub-tokens a variant that is
# two batches: smaller pieces take longer in all, larger ones hold others up for longer.
SHARE = 64


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A case without one passage: `log_probabilities` [T, L] or [C] of the mixture. `passage` counts from 0."""

    case: int
    retriever: str
    passage: int
    log_probabilities: Tensor


@torch.no_grad()
def leave_one_out(
    mixture: Mixture[Any], cases: Sequence[Any], evidence: Mapping[str, Rows], images: Tensor | None = None
) -> tuple[list[Tensor], Iterator[list[LeftOut]]]:
    """The mixture's log-distributions of each case with all evidence, and with each passage that an expert may read
    left out; `images` as for the mixture. What no expert has read, since the post alone was certain, is not left out.

    N cases with k passages each have N · k variants. They come in pieces of about two of the device's batches, each
    computed when it is asked for, so that other work finds room between two of them.
    """
    base = mixture.outputs(cases, evidence)
    variants = [
        (n, name, i)
        for name, limit in _readable(mixture.experts).items()
        for n, row in enumerate(evidence.get(name, ()))
        if _was_read(mixture.experts, base, n, name)
        for i in range(min(limit, len(row)))
    ]
    states = PostStates()
    whole = mixture.mix(cases, evidence, base, images, states).log_probabilities
    device = mixture.experts[0].encoder.device
    size = max(1, fast_batch(device) * at_once(device) // SHARE)
    pieces = (variants[i : i + size] for i in range(0, len(variants), size))
    return whole, (_left_out(mixture, cases, evidence, images, base, piece, states) for piece in pieces)


@torch.no_grad()
def _left_out(
    mixture: Mixture[Any],
    cases: Sequence[Any],
    evidence: Mapping[str, Rows],
    images: Tensor | None,
    base: ExpertOutputs,
    variants: Sequence[tuple[int, str, int]],
    states: PostStates,
) -> list[LeftOut]:
    own = [cases[n] for n, _, _ in variants]
    rows: dict[str, list[Sequence[Evidence]]] = {
        name: [_without(columns[n], i) if name == left else columns[n] for n, left, i in variants]
        for name, columns in evidence.items()
    }
    outputs = _outputs(mixture.experts, base, variants, own, rows)
    index = [n for n, _, _ in variants]
    mixed = mixture.mix(own, rows, outputs, None if images is None else images[index], states)
    return [LeftOut(*variant, p) for variant, p in zip(variants, mixed.log_probabilities, strict=True)]


def _readable(experts: Sequence[Expert]) -> dict[str, int]:
    """How many passages at most some expert reads of each kind of evidence."""
    limits: dict[str, int] = {}
    for expert in experts:
        view = expert.spec.view
        if view.retriever is not None:
            limits[view.retriever] = max(view.k, limits.get(view.retriever, 0))
    return limits


def _was_read(experts: Sequence[Expert], outputs: ExpertOutputs, case: int, retriever: str) -> bool:
    """Whether an expert has read such evidence for the case."""
    speaks = outputs.available[case].tolist()
    return any(here and e.spec.view.retriever == retriever for e, here in zip(experts, speaks, strict=True))


def _without(row: Sequence[Evidence], place: int) -> Sequence[Evidence]:
    return [e for i, e in enumerate(row) if i != place]


def _outputs(
    experts: Sequence[Expert],
    base: ExpertOutputs,
    variants: Sequence[tuple[int, str, int]],
    cases: Sequence[Any],
    rows: Mapping[str, Rows],
) -> ExpertOutputs:
    """What the experts say of the variants; an expert is run where its own evidence has changed."""
    retrievers = [e.spec.view.retriever for e in experts]
    empty: Rows = [()] * len(variants)
    available = availability(retrievers, {m: rows.get(r or "", empty) for m, r in enumerate(retrievers)})
    columns: list[tuple[Tensor | None, ...]] = []
    dropped: list[tuple[int, ...]] = []
    for m, (expert, retriever) in enumerate(zip(experts, retrievers, strict=True)):
        column: list[Tensor | None] = [base.log_probabilities[m][n] for n, _, _ in variants]
        out = [base.dropped[m][n] for n, _, _ in variants]
        changed = [v for v, (_, left, _) in enumerate(variants) if left == retriever]
        # An expert without evidence speaks only where no other can: then it had not spoken before.
        changed += [v for v, said in enumerate(column) if said is None and available[v, m]]
        for v in changed:
            column[v] = None
        again = [v for v in changed if available[v, m]]
        own_rows = rows.get(retriever, empty) if retriever else empty
        inputs = expert.assemble([cases[v] for v in again], [own_rows[v] for v in again])
        for v, assembled, log_p in zip(again, inputs, expert.log_probabilities(inputs), strict=True):
            column[v], out[v] = log_p, assembled.dropped
        columns.append(tuple(column))
        dropped.append(tuple(out))
    entropies = torch.zeros(len(variants), len(experts))
    for m, said_of in enumerate(columns):
        spoken = [v for v, p in enumerate(said_of) if p is not None]
        entropies[spoken, m] = entropies_of([p for p in said_of if p is not None])
    return ExpertOutputs(base.names, tuple(columns), available, entropies, tuple(dropped))
