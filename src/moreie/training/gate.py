"""Fitting a gate to what experts say of posts with gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moreie.encoders.images import ImageEncoder
from moreie.models.expert import Expert
from moreie.models.gate import Gate, GateSpec, chosen, cross_validated_log_weights, fit_gate
from moreie.models.gate_inputs import gate_features, input_sizes
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert
from moreie.models.outputs import ExpertOutputs, run_experts
from moreie.training.data import Split, attached_titles, cases, within_limit
from moreie.training.pictures import GatePictures
from moreie.training.recipe import Recipe

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class GateData:
    """All that fitting or scoring a gate needs, in rows: R posts or pairs, or at token level R words.

    `features` [R, F], `available` [R, M], log p_m(gold) `gold` [R, T, M] with the mask `real` [R, T] (T = 1 at token
    level), `share` [R]: what a row counts (a post counts 1, however many words it has), `groups`: its post's text.
    `targets`: of each case the gold tags [T] or relation [1] as indices; `case_groups`: its post's text.
    `image_encoder`: the one that embedded the pictures in `features`, None where the gate reads none.
    """

    spec: GateSpec
    features: Tensor
    available: Tensor
    outputs: ExpertOutputs
    gold: Tensor
    real: Tensor
    share: Tensor
    groups: list[str]
    targets: list[Tensor]
    case_groups: list[str]
    image_encoder: ImageEncoder | None = None

    def negative_log_likelihood(self, log_weights: Tensor, rows: Sequence[int]) -> Tensor:
        """Mean over posts of the mean over words of -log Σ_m g_m p_m(gold)."""
        own, real, share = self.gold[rows], self.real[rows], self.share[rows]
        mixed = torch.logsumexp(log_weights[:, None, :].clamp_min(-1e4) + own, dim=2)
        return -((mixed * real).sum(1) / real.sum(1) * share).sum() / share.sum()


def expert_outputs(recipe: Recipe, experts: Sequence[Expert], split: Split) -> ExpertOutputs:
    """What experts say of a split's posts or pairs, as far as they fit into their encoder."""
    task_cases, evidence, _ = cases(recipe.task, within_limit(split, experts[0].encoder))
    return run_experts(experts, task_cases, evidence)


def gate_data(
    recipe: Recipe,
    experts: Sequence[Expert],
    split: Split,
    outputs: ExpertOutputs | None = None,
    pictures: GatePictures | None = None,
) -> GateData:
    """Lay out what the gate learns from: what the experts say of a split with gold.

    `outputs` are those of other experts of the same names (cross-fitting); without them the experts are run.
    `pictures` remembers embedded pictures between calls.

    Raises:
        RecipeError: the gate reads pictures, and no post has one that can be read.
    """
    split = within_limit(split, experts[0].encoder)
    task_cases, evidence, gold = cases(recipe.task, split)
    outputs = outputs or run_experts(experts, task_cases, evidence)
    posts = [experts[0].post_of(case) for case in task_cases]
    sizes = input_sizes(experts)
    images = image_encoder = None
    if recipe.gate.reads_pictures:
        pictures = pictures or GatePictures(recipe)
        images, image_encoder = pictures.rows(posts), pictures.encoder
        sizes["image"] = image_encoder.dimension + 1
    spec = GateSpec(
        experts=tuple(e.spec.name for e in experts),
        inputs=recipe.gate.inputs,
        sizes=tuple(sizes[kind] for kind in recipe.gate.inputs),
        level=recipe.gate.level,
        choice=recipe.gate.choice,
        image_encoder=recipe.gate.image_encoder,
        image_encoder_fingerprint=image_encoder.fingerprint if image_encoder else None,
    )
    features = gate_features(spec, experts, task_cases, evidence, outputs, images)
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
    share = torch.ones(len(index))
    groups = case_groups = [post.text for post in posts]
    if spec.level == "token":
        lengths = torch.tensor(outputs.lengths)
        share = (1 / lengths).repeat_interleave(lengths)
        groups = [group for group, length in zip(groups, outputs.lengths, strict=True) for _ in range(length)]
        log_gold, real = log_gold[real.bool()][:, None], torch.ones(len(groups), 1)
    available = outputs.available_rows(spec.level)
    return GateData(
        spec, features, available, outputs, log_gold, real, share, groups, index, case_groups, image_encoder
    )


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
        data.available,
        data.negative_log_likelihood,
        penalty,
        data.groups,
        folds,
    )


def cross_validated_weights(recipe: Recipe, data: GateData) -> Tensor:
    """Log-weights [R, M] for the split the gate is fitted on, each post's from a gate that has not seen it."""
    soft = _cross_validated(data, choose_penalty(data, recipe.gate.folds), recipe.gate.folds)
    return chosen(data.spec.choice, soft)


def unseen_log_weights(recipe: Recipe, data: GateData, gate: Gate | None, *, fitted_here: bool) -> list[Tensor]:
    """Log-weights of each case, [M] or [T, M], from a gate that has not seen it.

    `fitted_here`: the gate was fitted on these very posts, so that theirs are cross-validated; else they are the gate's
    own. Without a gate (one expert) they are 0.
    """
    if gate is None:
        rows = torch.zeros(len(data.features), len(data.spec.experts))
    elif fitted_here:
        rows = cross_validated_weights(recipe, data)
    else:
        rows = gate.weigh(data.features, data.available)
    return data.outputs.per_case(rows, data.spec.level)


def fitted_gate(recipe: Recipe, data: GateData) -> tuple[Gate, float]:
    """A gate fitted on `data`, and the penalty that was chosen."""
    penalty = choose_penalty(data, recipe.gate.folds)
    return fit_gate(data.spec, data.features, data.available, data.negative_log_likelihood, penalty), penalty


def fit_mixture(
    recipe: Recipe, experts: Sequence[Any], data: GateData, reversed_none: float = 0.0
) -> tuple[Mixture[Any], float]:
    """The experts with a gate fitted on `data`, and the penalty that was chosen; `reversed_none`: see `MixtureSpec`."""
    gate, penalty = fitted_gate(recipe, data) if len(experts) > 1 else (None, 0.0)
    titles = attached_titles(recipe.data.train, experts)
    mixture = Mixture(experts, gate, image_encoder=data.image_encoder, titles=titles, reversed_none=reversed_none)
    return mixture, penalty
