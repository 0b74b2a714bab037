"""What each variant costs: operations, time, tokens and memory on posts as they come."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moreie.encoders.batches import computing_with
from moreie.encoders.pictures import embed_pictures
from moreie.evaluation.analysis.figures import Cost, Costs
from moreie.evaluation.predictions import MIXTURE
from moreie.models.assembly import Assembled
from moreie.models.expert import Expert
from moreie.models.gate import Gate
from moreie.models.gate_inputs import gate_features
from moreie.models.outputs import run_experts
from moreie.training.data import cases, load_split, within_limit
from moreie.training.experts import load_experts
from moreie.training.pictures import GatePictures
from moreie.training.recipe import Recipe
from moreie.training.run import seed_folder

GATE = "gate"
MOST_CASES = 200
# Operations are the same every time; so few cases are enough for their mean, one by one and without padding.
COUNTED_CASES = 50


def costs(recipe: Recipe, split: str, folder: Path | None = None) -> Costs:
    """Every expert of a seed, the gate, and the mixture as their sum (the most, for memory). They lie in `folder`, by
    default that of the first seed.

    Operations are floating-point ones of matrix products (a multiplication and an addition count two), by torch's
    counter on real forward passes. Seconds are wall time of assembly and batched forward passes on this machine.

    Raises:
        MoreieError: the experts are not trained yet.
    """
    folder = folder or seed_folder(recipe, recipe.seeds[0])
    experts: list[Expert] = load_experts(recipe, folder)
    read = load_split(recipe.splits[split], mention_types=recipe.data.mention_types)
    loaded = within_limit(read, experts[0].encoder)
    task_cases, evidence, _ = cases(recipe.task, loaded)
    task_cases = task_cases[:MOST_CASES]
    evidence = {name: rows[:MOST_CASES] for name, rows in evidence.items()}
    rows = []
    for expert in experts:
        own = evidence[expert.spec.view.retriever] if expert.spec.view.retriever else [()] * len(task_cases)
        rows.append(_expert_cost(expert, task_cases, own))
    members = [e for e in experts if e.spec.name in recipe.members]
    if len(members) > 1:
        outputs = run_experts(members, task_cases, evidence)
        spec = Gate.load(folder).spec

        encoder = GatePictures(recipe).encoder if recipe.gate.reads_pictures else None
        posts = [members[0].post_of(case) for case in task_cases]

        def weigh() -> None:
            images = torch.from_numpy(embed_pictures(posts, encoder).vectors) if encoder else None
            gate_features(spec, members, task_cases, evidence, outputs, images)

        gate = _measured(GATE, len(task_cases), 0.0, weigh, weigh, len(task_cases))
        parts = [row for row in rows if row.variant in recipe.members]
        rows += [gate, _sum([*parts, gate])]
    device = experts[0].encoder.device.type
    return Costs(cases=len(task_cases), device=device, threads=torch.get_num_threads(), rows=tuple(rows))


def _expert_cost(expert: Expert, task_cases: Sequence[Any], evidence: Sequence[Any]) -> Cost:
    inputs: list[Assembled] = expert.assemble(task_cases, evidence)
    few = inputs[:COUNTED_CASES]
    tokens = sum(len(x.input_ids) for x in inputs) / len(inputs)
    return _measured(
        expert.spec.name,
        len(inputs),
        tokens,
        lambda: expert.log_probabilities(expert.assemble(task_cases, evidence)),
        lambda: expert.log_probabilities(few, tokens_per_batch=1),
        len(few),
    )


def _measured(
    name: str, cases: int, tokens: float, timed: Callable[[], Any], counted: Callable[[], Any], counted_cases: int
) -> Cost:
    # The counter knows no fused attention of the processor: written out as products it counts on every machine alike.
    with computing_with(1), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        counted()
    _forget_peak()
    clock = time.perf_counter()
    timed()
    seconds = time.perf_counter() - clock
    return Cost(
        variant=name,
        gflops=round(counter.get_total_flops() / counted_cases / 1e9, 6),
        seconds_per_100=round(100 * seconds / cases, 3),
        tokens=round(tokens, 1),
        peak_mib=round(_peak() / 2**20, 1),
    )


def _sum(parts: Sequence[Cost]) -> Cost:
    return Cost(
        variant=MIXTURE,
        gflops=round(sum(p.gflops for p in parts), 6),
        seconds_per_100=round(sum(p.seconds_per_100 for p in parts), 3),
        tokens=round(sum(p.tokens for p in parts), 1),
        peak_mib=max(p.peak_mib for p in parts),
    )


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    # Linux lets a process forget its peak; elsewhere it is the highest since the start.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Bytes."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
