"""What the experts of a mixture say of a set of cases, before any gate weighs it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from moreie.encoders.batches import Batch, read_together
from moreie.models.assembly import Assembled
from moreie.models.crf import IMPOSSIBLE
from moreie.models.expert import Expert
from moreie.models.gate import GateLevel
from moreie.schema import Evidence

Rows = Sequence[Sequence[Evidence]]


@dataclass(frozen=True)
class ExpertOutputs:
    """What M experts say of N cases, before the gate.

    `log_probabilities[m][n]`: [T, L] or [C], None where the expert has no evidence. `available` [N, M] bool.
    `entropies` [N, M]: mean entropy in nats, 0 where not available. `dropped[m][n]`: passages that found no room.
    """

    names: tuple[str, ...]
    log_probabilities: tuple[tuple[Tensor | None, ...], ...]
    available: Tensor
    entropies: Tensor
    dropped: tuple[tuple[int, ...], ...]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Distributions of each case: T words, or 1 of a pair."""
        said = (next(p for p in column if p is not None) for column in zip(*self.log_probabilities, strict=True))
        return tuple(p.numel() // p.shape[-1] for p in said)

    def available_rows(self, level: GateLevel) -> Tensor:
        """[R, M] of `available`: a row a case, or at token level a row a word."""
        return (
            self.available if level == "sequence" else self.available.repeat_interleave(torch.tensor(self.lengths), 0)
        )

    def of(self, cases: Sequence[int]) -> ExpertOutputs:
        """Those of some of the cases."""
        index = torch.tensor(list(cases), dtype=torch.long)
        return ExpertOutputs(
            self.names,
            tuple(tuple(column[n] for n in cases) for column in self.log_probabilities),
            self.available[index],
            self.entropies[index],
            tuple(tuple(out[n] for n in cases) for out in self.dropped),
        )

    def per_case(self, log_weights: Tensor, level: GateLevel) -> list[Tensor]:
        """Log-weights [R, M] of a gate's rows, case by case: [M], or at token level [T, M]."""
        return list(log_weights) if level == "sequence" else list(torch.split(log_weights, list(self.lengths)))

    def mix(self, log_weights: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """log Σ_m g_m p_m of each case ([T, L] or [C]) under log-weights, for each case [M] or [T, M]."""
        if not len(self.available):
            return []
        available = self.available_rows("token")
        logs = self._weights_of_rows(log_weights)
        weighed: list[Tensor] = []
        for m, (column, speaks) in enumerate(zip(self.log_probabilities, self.available.T.tolist(), strict=True)):
            said = [p for p, here in zip(column, speaks, strict=True) if here and p is not None]
            if said:
                rows = stacked(said)
                own = rows.new_full((len(available), rows.shape[1]), -torch.inf)
                own[available[:, m]] = rows
                weighed.append(own + logs[:, m, None])
        mixed = torch.logsumexp(torch.stack(weighed), dim=0)
        return list(mixed if self._of_pairs else torch.split(mixed, list(self.lengths)))

    @property
    def _of_pairs(self) -> bool:
        """Whether a case has one distribution [C], not [T, L]."""
        return next(p.ndim for column in self.log_probabilities for p in column if p is not None) == 1

    def _weights_of_rows(self, log_weights: Tensor | Sequence[Tensor]) -> Tensor:
        """[R, M], a row a word or pair."""
        if isinstance(log_weights, Tensor) or log_weights[0].ndim == 1:
            each = log_weights if isinstance(log_weights, Tensor) else torch.stack(list(log_weights))
            return each.repeat_interleave(torch.tensor(self.lengths), 0)
        return torch.cat(list(log_weights))


def stacked(log_probabilities: Sequence[Tensor]) -> Tensor:
    """Distributions of cases, [T, L] or [C] each, as rows [R, L] of one tensor."""
    rows = list(log_probabilities)
    return torch.cat(rows) if rows[0].ndim == 2 else torch.stack(rows)


@dataclass(frozen=True)
class SaidAhead:
    """What experts say of cases whose evidence is not there yet: by the place of the expert, its inputs of all cases
    and its log-distributions."""

    inputs: Mapping[int, list[Assembled]]
    said: Mapping[int, list[Tensor]]


def say_ahead(
    experts: Sequence[Expert], cases: Sequence[Any], certainty: float | None = None, *also: Sequence[Batch[Any]]
) -> SaidAhead:
    """What `run_experts` needs no evidence for: of the experts that read none, with `certainty` of the first of them.
    Batches of `also` are read beside theirs."""
    own = [m for m, expert in enumerate(experts) if expert.spec.view.retriever is None]
    if certainty is not None:
        own = own[:1]
    inputs = {m: experts[m].assemble(cases, [()] * len(cases)) for m in own}
    device = experts[0].encoder.device
    said = _read([experts[m] for m in own], list(inputs.values()), device, *also)
    return SaidAhead(inputs, dict(zip(own, said, strict=True)))


def run_experts(
    experts: Sequence[Expert],
    cases: Sequence[Any],
    evidence: Mapping[str, Rows],
    certainty: float | None = None,
    ahead: SaidAhead | None = None,
) -> ExpertOutputs:
    """Every expert on every case it can speak on (see `availability`); what has been said `ahead` is not asked again.

    With `certainty` the first expert without evidence reads first, and cases of which it is at least so sure
    (`certainties`) are left to it alone.
    """
    rows = {
        m: evidence.get(e.spec.view.retriever, [()] * len(cases)) if e.spec.view.retriever else [()] * len(cases)
        for m, e in enumerate(experts)
    }
    available = availability([e.spec.view.retriever for e in experts], rows)

    read: dict[int, list[Assembled]] = dict(ahead.inputs) if ahead else {}
    said: dict[int, list[Tensor]] = dict(ahead.said) if ahead else {}

    def ask(asked: Sequence[int]) -> None:
        for m in asked:
            own = _places(available, m)
            read[m] = experts[m].assemble([cases[i] for i in own], [rows[m][i] for i in own])
        device = experts[0].encoder.device
        said.update(zip(asked, _read([experts[m] for m in asked], [read[m] for m in asked], device), strict=True))

    first = first_without_evidence(experts)
    if certainty is not None and first is not None:
        if first not in said:
            ask([first])
        available[certainties(said[first]) >= certainty] = torch.arange(len(experts)) == first
    ask([m for m in range(len(experts)) if m not in said])
    entropies = torch.zeros(len(cases), len(experts))
    distributions: list[tuple[Tensor | None, ...]] = []
    dropped: list[tuple[int, ...]] = []
    for m in range(len(experts)):
        column: list[Tensor | None] = [None] * len(cases)
        out = [0] * len(cases)
        own = _places(available, m)
        for i, assembled, log_p in zip(own, read[m], said[m], strict=True):
            column[i] = log_p
            out[i] = assembled.dropped
        entropies[own, m] = entropies_of(said[m])
        distributions.append(tuple(column))
        dropped.append(tuple(out))
    return ExpertOutputs(
        tuple(e.spec.name for e in experts), tuple(distributions), available, entropies, tuple(dropped)
    )


def first_without_evidence(experts: Sequence[Expert]) -> int | None:
    """The place of the first expert that reads no evidence."""
    return next((m for m, expert in enumerate(experts) if expert.spec.view.retriever is None), None)


def certainties(log_probabilities: Sequence[Tensor]) -> Tensor:
    """[N] probabilities of the likeliest answer of each case; of a post's words that of the least certain one."""
    if not log_probabilities:
        return torch.empty(0)
    rows = stacked(log_probabilities)
    return torch.segment_reduce(rows.max(1).values.exp(), "min", lengths=_rows_of(log_probabilities))


def _rows_of(log_probabilities: Sequence[Tensor]) -> Tensor:
    """[N]: distributions of each case."""
    return torch.tensor([p.numel() // p.shape[-1] for p in log_probabilities])


def _places(available: Tensor, m: int) -> list[int]:
    places: list[int] = torch.nonzero(available[:, m])[:, 0].tolist()
    return places


def _read(
    experts: Sequence[Expert],
    inputs: Sequence[Sequence[Assembled]],
    device: torch.device,
    *also: Sequence[Batch[Any]],
) -> list[list[Tensor]]:
    """What each expert says of its inputs: batches of all experts, and those of `also`, side by side, the experts that
    read most first, so that all threads end at about the same time."""
    most_first = sorted(range(len(experts)), key=lambda m: -sum(len(x.input_ids) for x in inputs[m]))
    readings = [*(experts[m].saying(inputs[m]) for m in most_first), *also]
    said = dict(zip(most_first, read_together(readings, device), strict=False))
    return [said[m] for m in range(len(experts))]


def entropies_of(log_probabilities: Sequence[Tensor]) -> Tensor:
    """Mean entropy [N] in nats of the log-distributions [T, L] or [C] of each case."""
    if not log_probabilities:
        return torch.zeros(0)
    rows = stacked(log_probabilities)
    entropies = -(rows.exp() * rows.clamp_min(IMPOSSIBLE)).sum(1)
    return torch.segment_reduce(entropies, "mean", lengths=_rows_of(log_probabilities))


def availability(retrievers: Sequence[str | None], rows: Mapping[int, Rows]) -> Tensor:
    """[N, M] bool: an expert speaks where it found evidence or needs none; where none may, all do."""
    columns = [
        [True] * len(rows[m]) if retriever is None else [len(row) > 0 for row in rows[m]]
        for m, retriever in enumerate(retrievers)
    ]
    available = torch.tensor(columns, dtype=torch.bool).T.reshape(-1, len(columns))
    return available | ~available.any(1, keepdim=True)


def mean_weights(log_weights: Sequence[Tensor], experts: int) -> Tensor:
    """Weights [N, M] of the experts in each case, at token level the means over its words."""
    if not len(log_weights):
        return torch.empty(0, experts)
    if log_weights[0].ndim == 1:
        return torch.stack(list(log_weights)).exp()
    lengths = torch.tensor([len(w) for w in log_weights])
    return torch.segment_reduce(torch.cat(list(log_weights)).exp(), "mean", lengths=lengths, axis=0)


def joined(parts: Sequence[ExpertOutputs]) -> ExpertOutputs:
    """The outputs of the same experts on several sets of cases, one set after the other."""
    experts = range(len(parts[0].names))
    return ExpertOutputs(
        parts[0].names,
        tuple(tuple(p for part in parts for p in part.log_probabilities[m]) for m in experts),
        torch.cat([part.available for part in parts]),
        torch.cat([part.entropies for part in parts]),
        tuple(tuple(d for part in parts for d in part.dropped[m]) for m in experts),
    )


def save_outputs(outputs: ExpertOutputs, path: Path) -> None:
    """Write outputs as one safetensors file; a file under the name is complete."""
    tensors = {
        "available": outputs.available,
        "entropies": outputs.entropies,
        "dropped": torch.tensor(outputs.dropped),
    }
    flat = False
    for m, column in enumerate(outputs.log_probabilities):
        said = [p for p in column if p is not None]
        flat = flat or any(p.ndim == 1 for p in said)
        tensors[f"rows.{m}"] = torch.tensor([0 if p is None else p.numel() // p.shape[-1] for p in column])
        tensors[f"log_probabilities.{m}"] = (
            torch.cat([p.reshape(-1, p.shape[-1]) for p in said]) if said else torch.empty(0, 1)
        )
    metadata = {"names": json.dumps(outputs.names), "flat": json.dumps(flat)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata=metadata)
    os.replace(temporary, path)


def load_outputs(path: Path) -> ExpertOutputs:
    """What `save_outputs` wrote."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names, flat = tuple(json.loads(metadata["names"])), json.loads(metadata["flat"])
        columns = []
        for m in range(len(names)):
            rows = file.get_tensor(f"rows.{m}").tolist()
            parts = file.get_tensor(f"log_probabilities.{m}").split([r for r in rows if r])
            said = iter([p[0] for p in parts] if flat else parts)
            columns.append(tuple(next(said) if r else None for r in rows))
        dropped = tuple(map(tuple, file.get_tensor("dropped").tolist()))
        return ExpertOutputs(names, tuple(columns), file.get_tensor("available"), file.get_tensor("entropies"), dropped)
