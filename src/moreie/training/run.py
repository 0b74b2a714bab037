"""A recipe carried out: every expert, then the gate, for every seed. What is already trained is kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moreie.datasets import read_posts
from moreie.encoders.precision import default_device
from moreie.encoders.text import TextEncoder
from moreie.errors import MoreieError, RecipeError
from moreie.models.expert import (
    CONFIG_FILE,
    ENCODER_FOLDER,
    EncoderPool,
    Expert,
    ExpertSpec,
    load_expert,
    load_weights,
)
from moreie.models.gate import GateSpec, cross_validated_log_weights, fit_gate
from moreie.models.mixture import ExpertOutputs, Mixture, gate_features, run_experts
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.training.data import Split, cases, hold_out, load_split, recipe_labels, within_limit
from moreie.training.features import Example, ner_examples, relation_examples, without_some_evidence
from moreie.training.recipe import ExpertRecipe, Recipe
from moreie.training.trainer import train_expert

log = logging.getLogger(__name__)
SCORE_FILE = "validation.json"
KINDS: dict[str, type[Expert]] = {"ner": NerExpert, "re": RelationExpert}


def seed_folder(recipe: Recipe, seed: int) -> Path:
    return recipe.output / f"seed-{seed}"


def train_recipe(recipe: Recipe, say: Callable[[str], None] = log.info) -> None:
    """Train all experts and the gate of a recipe; called again after a stop, it goes on where it stopped."""
    train = load_split(recipe.data.train)
    validation = load_split(recipe.data.validation)
    labels = recipe_labels(recipe, train)
    fit, gate_split = hold_out(train, recipe.gate.held_out) if recipe.gate.held_out else (train, validation)
    for seed in recipe.seeds:
        folder = seed_folder(recipe, seed)
        for expert in recipe.experts:
            target = folder / expert.name
            if (target / CONFIG_FILE).exists() and (target / SCORE_FILE).exists():
                say(f"{target}: trained before, kept")
                continue
            f1 = _train_one(recipe, expert, labels, fit, validation, seed, target)
            (target / SCORE_FILE).write_text(json.dumps({"f1": f1}) + "\n")
            say(f"{target}: validation F1 {f1:.2f}")
        mixture, penalty = fit_mixture(recipe, folder, gate_split)
        mixture.save_spec(folder, recipe.members, {})
        say(f"{folder}: mixture of {', '.join(recipe.members)} (gate penalty {penalty:g})")


def _train_one(
    recipe: Recipe,
    expert_recipe: ExpertRecipe,
    labels: tuple[str, ...],
    train: Split,
    validation: Split,
    seed: int,
    target: Path,
) -> float:
    torch.manual_seed(seed)
    settings = expert_recipe.training or recipe.training
    start = target.parent / expert_recipe.start_from if expert_recipe.start_from else None
    own_encoder = start / ENCODER_FOLDER if start and not recipe.adapter else recipe.encoder
    encoder = TextEncoder.from_pretrained(own_encoder).to(default_device())
    spec = ExpertSpec(
        task=recipe.task,
        name=expert_recipe.name,
        labels=labels,
        view=expert_recipe.view,
        encoder=recipe.encoder,
        adapter=recipe.adapter,
    )
    expert: NerExpert | RelationExpert
    if recipe.task == "ner":
        expert = NerExpert(spec, encoder, settings.dropout)
    else:
        expert = RelationExpert(spec, encoder, settings.dropout)
    if recipe.adapter:
        encoder.add_adapter(expert.adapter_name, recipe.adapter)
    if start:
        load_weights(expert, start)
    expert.to(default_device())
    train, validation = within_limit(train, encoder), within_limit(validation, encoder)
    retriever = expert_recipe.view.retriever
    rows = without_some_evidence(train.rows(retriever), settings.evidence_dropout, seed)
    if isinstance(expert, RelationExpert):
        examples = relation_examples(expert, train.posts, rows)
        held = relation_examples(expert, validation.posts, validation.rows(retriever))
    else:
        examples = _ner_training_examples(recipe, expert, train, rows)
        held = ner_examples(expert, validation.posts, validation.rows(retriever))
    return train_expert(
        expert,
        examples,
        held,
        settings,
        output=target,
        seed=seed,
        teacher_weight=recipe.teacher.weight if recipe.teacher else 0.0,
    )


def _ner_training_examples(recipe: Recipe, expert: NerExpert, train: Split, rows: Sequence[Any]) -> list[Example]:
    if recipe.teacher is None:
        return ner_examples(expert, train.posts, rows)
    teacher = load_expert(NerExpert, recipe.teacher.expert, EncoderPool(default_device()))
    if teacher.spec.labels != expert.spec.labels:
        raise RecipeError(f"the teacher knows {teacher.spec.labels}, the student {expert.spec.labels}")
    if recipe.teacher.extra_posts and any(len(row) for row in rows):
        raise RecipeError("a teacher's extra_posts have no evidence: use them for a baseline expert only")
    posts = [*train.posts]
    known = {post.text for post in posts}
    for path in recipe.teacher.extra_posts:
        for post in within_limit(Split(_unlabelled(path), {}), expert.encoder).posts:
            if post.text not in known:
                known.add(post.text)
                posts.append(post)
    inputs = teacher.assemble(posts, [()] * len(posts))
    marginals = [log_p.exp() for log_p in teacher.log_probabilities(inputs)]
    return ner_examples(expert, posts, [*rows, *[()] * (len(posts) - len(rows))], marginals)


def _unlabelled(path: Path) -> tuple[Any, ...]:
    return tuple(
        replace(post, id=f"{path}:{post.id}", mentions=None, relations=None) for post in read_posts(path) if post.words
    )


# --- the gate -------------------------------------------------------------------------------------------------------

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class GateData:
    """All that fitting or scoring a gate needs: features [N, F], and p_m(gold) [N, T, M] with a mask [N, T]."""

    spec: GateSpec
    features: Tensor
    outputs: ExpertOutputs
    gold: Tensor
    real: Tensor
    groups: list[str]

    def negative_log_likelihood(self, log_weights: Tensor, rows: Sequence[int]) -> Tensor:
        """Mean over posts of the mean over words of -log Σ_m g_m p_m(gold)."""
        own, real = self.gold[rows], self.real[rows]
        mixed = torch.logsumexp(log_weights[:, None, :].clamp_min(-1e4) + own, dim=2)
        return -((mixed * real).sum(1) / real.sum(1)).mean()


def gate_data(recipe: Recipe, experts: Sequence[Expert], split: Split) -> GateData:
    """Run the experts on a split with gold, and lay out what the gate learns from."""
    split = within_limit(split, experts[0].encoder)
    task_cases, evidence, gold = cases(recipe.task, split)
    outputs = run_experts(experts, task_cases, evidence)
    if "image" in recipe.gate.inputs:
        raise RecipeError("gate input 'image' needs the posts' pictures, which recipes do not read yet")
    sizes = {"post": experts[0].encoder.hidden_size, "entropy": len(experts)}
    spec = GateSpec(
        experts=tuple(e.spec.name for e in experts),
        inputs=recipe.gate.inputs,
        sizes=tuple(sizes[kind] for kind in recipe.gate.inputs),
    )
    features = gate_features(recipe.gate.inputs, experts[0], task_cases, outputs, None, {})
    index = [_gold_index(experts[0], case, g) for case, g in zip(task_cases, gold, strict=True)]
    words = max(len(i) for i in index)
    log_gold = torch.full((len(index), words, len(experts)), -1e4)
    real = torch.zeros(len(index), words)
    for n, targets in enumerate(index):
        real[n, : len(targets)] = 1
        for m, column in enumerate(outputs.log_probabilities):
            log_p = column[n]
            if log_p is not None:
                log_gold[n, : len(targets), m] = log_p.reshape(len(targets), -1).gather(1, targets[:, None])[:, 0]
    groups = [experts[0].post_of(case).text for case in task_cases]
    return GateData(spec, features, outputs, log_gold, real, groups)


def _gold_index(expert: Expert, case: Any, gold: Any) -> Tensor:
    if isinstance(expert, NerExpert):
        return torch.tensor(expert.tagset.encode(case.mentions or (), len(case.words)))
    return torch.tensor([expert.spec.labels.index(gold)])


def choose_penalty(data: GateData, folds: int) -> float:
    """The penalty with the best cross-validated likelihood."""
    every = list(range(len(data.features)))
    losses = {
        penalty: float(data.negative_log_likelihood(_cross_validated(data, penalty, folds), every))
        for penalty in PENALTIES
    }
    return min(losses, key=losses.__getitem__)


def _cross_validated(data: GateData, penalty: float, folds: int) -> Tensor:
    return cross_validated_log_weights(
        data.spec,
        data.features,
        data.outputs.available,
        data.negative_log_likelihood,
        penalty,
        data.groups,
        folds,
    )


def fit_mixture(recipe: Recipe, folder: Path, split: Split) -> tuple[Mixture[Any], float]:
    """The trained experts of `folder` with a gate fitted on `split`, and the penalty that was chosen."""
    experts = load_members(recipe, folder)
    if len(experts) == 1:
        return Mixture(experts, None), 0.0
    data = gate_data(recipe, experts, split)
    penalty = choose_penalty(data, recipe.gate.folds)
    gate = fit_gate(data.spec, data.features, data.outputs.available, data.negative_log_likelihood, penalty)
    return Mixture(experts, gate), penalty


def load_members(recipe: Recipe, folder: Path) -> list[Any]:
    """The mixture's experts; see `load_experts`."""
    return [e for e in load_experts(recipe, folder) if e.spec.name in recipe.members]


def load_experts(recipe: Recipe, folder: Path) -> list[Any]:
    """The experts of a recipe in its order, encoders shared where they are the same.

    Raises:
        MoreieError: an expert has not been trained yet.
    """
    pool = EncoderPool(default_device())
    for expert in recipe.experts:
        if not (folder / expert.name / CONFIG_FILE).exists():
            raise MoreieError(f"{folder / expert.name}: not trained yet; run `moreie train` first")
    return [load_expert(KINDS[recipe.task], folder / expert.name, pool) for expert in recipe.experts]


def cross_validated_weights(recipe: Recipe, data: GateData) -> Tensor:
    """Log-weights for the split the gate is fitted on, each post's from a gate that has not seen it."""
    return _cross_validated(data, choose_penalty(data, recipe.gate.folds), recipe.gate.folds)
