"""Experts and gate trained together: −log Σ_m g_m(x) p_m(y_t | x) of each word is the loss of all of them at once.

The experts start as they were trained alone, the gate as it was fitted over them. Afterwards a gate is fitted to the
experts once more, as over any others, on posts they have not seen: the one that learned with them has seen them on
posts they know by heart, and trusts them too much.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from transformers import Trainer, set_seed

from moreie.models.assembly import Assembled
from moreie.models.expert import Expert
from moreie.models.gate import Gate
from moreie.training import trained_with
from moreie.training.data import Split, cases, within_limit
from moreie.training.features import Examples
from moreie.training.gate import GateData
from moreie.training.recipe import Joint
from moreie.training.trainer import CHECKPOINTS, last_checkpoint, parameter_groups, training_arguments


@dataclass(frozen=True, slots=True)
class JointExample:
    """A case as every expert reads it (None: it has no evidence), what the gate reads of it, and its gold.

    `features` [1, F], or of a token-level gate [T, F]; `available` [M] bool; `targets` [T] (RE: [1]).
    """

    inputs: tuple[Assembled | None, ...]
    features: Tensor
    available: Tensor
    targets: Tensor

    @property
    def input(self) -> Assembled:
        """The longest of the inputs: batches are made by its length."""
        return max((i for i in self.inputs if i is not None), key=lambda i: len(i.input_ids))


class JointMixture(nn.Module):
    """M experts and the gate over them as one model; its `state_dict` holds what is trained, once."""

    def __init__(self, experts: Sequence[Expert], gate: Gate, settings: Joint):
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.gate = gate.requires_grad_(True)
        self.groups = []
        for expert in experts:
            expert.use()
            self.groups += parameter_groups(expert, settings.optimisation)
        self.groups.append({"params": [*gate.parameters()], "lr": settings.gate_learning_rate, "weight_decay": 0.0})
        self.trained = nn.ParameterList([p for group in self.groups for p in group["params"]])

    def forward(
        self, batches: Sequence[dict[str, Tensor] | None], features: Tensor, available: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        """The loss: mean over cases of the mean over their words.

        `batches[m]`: the collated inputs of the cases in which `available` [N, M] lets expert m speak. `features`
        [R, F]: a row a case, or at token level a row a word. `targets` [N, T]: gold, -1 behind a case's last word.
        """
        real = targets >= 0
        log_gold = torch.full((*targets.shape, len(self.experts)), -torch.inf, device=targets.device)
        for m, (expert, batch) in enumerate(zip(self.experts, batches, strict=True)):
            if batch is not None:
                said = cast(Expert, expert).posteriors(expert(**batch), batch["lengths"])
                own = real & available[:, m, None]
                log_gold[..., m][own] = said.gather(1, targets[own][:, None])[:, 0]
        words = real.sum(1)
        rows = available if self.gate.spec.level == "sequence" else available.repeat_interleave(words, 0)
        log_weights = self.gate(features, rows)
        if self.gate.spec.level == "sequence":
            log_weights = log_weights.repeat_interleave(words, 0)
        mixed = torch.logsumexp((log_weights + log_gold[real]).clamp_min(-1e4), dim=1)
        for parameter in self.trained:  # an adapter that is put aside for the next one gets no gradient otherwise
            parameter.requires_grad_(True)
        return {"loss": -(mixed / words.repeat_interleave(words)).sum() / len(targets)}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The trained weights alone: experts share a trunk, which a file must not hold twice."""
        return {f"trained.{i}": p.detach() for i, p in enumerate(self.trained)}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Take up what `state_dict` gave."""
        with torch.no_grad():
            for i, parameter in enumerate(self.trained):
                parameter.copy_(state_dict[f"trained.{i}"])
        return _IncompatibleKeys([], [])


class JointTrainer(Trainer):
    """Trainer with a learning rate each for encoders, heads, CRFs and gate."""

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(cast(JointMixture, self.model).groups, fused=True)  # type: ignore[arg-type]
        return self.optimizer


@dataclass(frozen=True)
class _Collator:
    experts: Sequence[Expert]

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        examples: list[JointExample] = [row["example"] for row in rows]
        batches = []
        for m, expert in enumerate(self.experts):
            own = [e.inputs[m] for e in examples if e.inputs[m] is not None]
            batches.append(expert.collate(cast(Sequence[Assembled], own)) if own else None)
        return {
            "batches": batches,
            "features": torch.cat([e.features for e in examples]),
            "available": torch.stack([e.available for e in examples]),
            "targets": nn.utils.rnn.pad_sequence([e.targets for e in examples], batch_first=True, padding_value=-1),
        }


def joint_examples(task: str, experts: Sequence[Expert], split: Split, data: GateData) -> list[JointExample]:
    """The cases of a split, with what the gate reads of them in `data` (of the same experts and split)."""
    task_cases, evidence, _ = cases(task, within_limit(split, experts[0].encoder))
    columns: list[list[Assembled | None]] = []
    for m, expert in enumerate(experts):
        own = torch.nonzero(data.outputs.available[:, m])[:, 0].tolist()
        rows = evidence[expert.spec.view.retriever] if expert.spec.view.retriever else [()] * len(task_cases)
        column: list[Assembled | None] = [None] * len(task_cases)
        for i, assembled in zip(
            own, expert.assemble([task_cases[i] for i in own], [rows[i] for i in own]), strict=True
        ):
            column[i] = assembled
        columns.append(column)
    rows_of = data.outputs.lengths if data.spec.level == "token" else (1,) * len(task_cases)
    return [
        JointExample(tuple(inputs), features, available, targets)
        for inputs, features, available, targets in zip(
            zip(*columns, strict=True),
            torch.split(data.features, list(rows_of)),
            data.outputs.available,
            data.targets,
            strict=True,
        )
    ]


def train_jointly(
    experts: Sequence[Expert], gate: Gate, examples: Sequence[JointExample], settings: Joint, output: Path, seed: int
) -> None:
    """Train experts and gate in place and save the experts under their names in `output`.

    A run that was cut off goes on from its last finished epoch when called again with the same `output`.
    """
    set_seed(seed)
    checkpoints = output / CHECKPOINTS
    model = JointMixture(experts, gate, settings)
    trainer = JointTrainer(
        model=model,
        args=training_arguments(settings.optimisation, len(examples), checkpoints, seed),
        train_dataset=Examples(examples),
        data_collator=_Collator(experts),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    for expert in experts:
        expert.save(output / expert.spec.name)
        trained_with.note(output / expert.spec.name, trainer.args)
    gate.eval().requires_grad_(False)
    shutil.rmtree(checkpoints, ignore_errors=True)
