"""A trained recipe scored on a split: every expert alone, the mixture, and what each of them said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreie.errors import RecipeError
from moreie.evaluation.predictions import (
    BASELINE,
    CERTAINTY,
    FOR_F1,
    MEAN,
    MIXTURE,
    MIXTURE_BEST,
    MIXTURE_PER_POSITION,
    MIXTURE_SELECTIVE,
    MIXTURE_TOLD,
    Evaluation,
    Scaled,
)
from moreie.models.decoding import decode, decode_spans, decode_tags_per_position, span_confidences
from moreie.models.expert import Expert
from moreie.models.gate import Gate
from moreie.models.mixture import MIXTURE_FILE, MixtureSpec, read_spec
from moreie.models.ner import NerExpert
from moreie.models.outputs import (
    ExpertOutputs,
    Rows,
    certainties,
    first_without_evidence,
    mean_weights,
    run_experts,
)
from moreie.models.temperature import scaled
from moreie.schema import NO_RELATION
from moreie.training import configuration
from moreie.training.data import Split, cases, load_split, within_limit
from moreie.training.experts import load_experts
from moreie.training.gate import GateData, gate_data, unseen_log_weights
from moreie.training.pictures import GatePictures
from moreie.training.recipe import Recipe
from moreie.training.run import gate_folder, mixture_experts, seed_folder, trained_together
from moreie.training.temperature import cross_validated_temperatures


def evaluate_seed(recipe: Recipe, split_name: str, seed: int, pictures: GatePictures | None = None) -> Evaluation:
    """Score the experts, alone and with their evidence taken away or exchanged, and the mixture of one seed.

    On the validation split with a gate that was fitted there, each post's gate weights are cross-validated: they
    come from a gate that has not seen the post. `pictures` remembers embedded pictures between seeds.
    """
    files = {"validation": recipe.data.validation, "test": recipe.data.test}.get(split_name)
    if files is None:
        raise RecipeError(f"the recipe has no {split_name} split")
    folder = seed_folder(recipe, seed)
    experts = mixture_experts(recipe, folder, folder)
    configuration.check(folder, configuration.configuration(recipe))
    split: Split = within_limit(load_split(files, mention_types=recipe.data.mention_types), experts[0].encoder)
    data = gate_data(recipe, experts, split, pictures=pictures)
    outputs = data.outputs
    task_cases, evidence, gold = cases(recipe.task, split)
    here = split_name == "validation"
    gate = Gate.load(folder) if len(experts) > 1 else None
    if gate is not None:
        gate.check_image_encoder(data.image_encoder)
    log_weights = unseen_log_weights(recipe, data, gate, fitted_here=here and recipe.gate.from_validation)
    distributions: dict[str, list[Tensor]] = {}
    together = trained_together(recipe)
    others = [e for e in load_experts(recipe, folder) if together or e.spec.name not in recipe.members]
    distributions.update(_alone(run_experts(others, task_cases, evidence)) if others else {})
    for name, said in _alone(outputs).items():
        distributions[f"{name}, trained together" if together else name] = said
    order = [e.name for e in recipe.experts]
    distributions = {name: distributions[name] for name in sorted(distributions, key=lambda n: _place(order, n))}
    for expert in others if together else (*others, *experts):
        if expert.spec.view.retriever is not None:
            distributions.update(_ablated(expert, task_cases, evidence[expert.spec.view.retriever]))
    distributions[MEAN] = outputs.mix(_equal(outputs))
    distributions[MIXTURE] = outputs.mix(log_weights)
    pictures = pictures or GatePictures(recipe)
    known = None if together else (experts, outputs)
    for name in recipe.gates:
        under = recipe.with_gate(name)
        distributions[f"{MIXTURE}, {name} gate"] = _under_gate(
            under, folder, gate_folder(folder, name), split, known, pictures.of(under), here=here
        )
    if len(experts) > 1:
        distributions |= _otherwise(experts, data, distributions[MIXTURE])
    first = experts[0]
    predictions = {variant: answers_of(first, log_p) for variant, log_p in distributions.items()}
    mixed = distributions[MIXTURE]
    saved = read_spec(folder) if (folder / MIXTURE_FILE).is_file() else None
    if isinstance(first, NerExpert):
        per_position = decode_tags_per_position(mixed)
        predictions[MIXTURE_PER_POSITION] = [first.tagset.spans(path) for path in per_position]
        if saved is not None and saved.threshold is not None:
            for name in dict.fromkeys((BASELINE, *outputs.names, MIXTURE)):
                if name in distributions:
                    spans = decode_spans(first.tagset, distributions[name], saved.threshold)
                    predictions[f"{name}, {FOR_F1}"] = spans
    else:
        predictions[MIXTURE_TOLD] = _told(first.spec.labels, mixed, gold)
    temperatures = _temperatures(recipe, data, mixed, saved, here=here)
    at_temperature = None
    if temperatures is not None:
        softened = [scaled(p, t) for p, t in zip(mixed, temperatures, strict=True)]
        at_temperature = Scaled(confidences_of(first, predictions[MIXTURE], softened), temperatures)
    confidences = confidences_of(first, predictions[MIXTURE], mixed)
    ids = [first.post_of(case).id for case in task_cases]
    weights = mean_weights(log_weights, len(experts))
    return Evaluation(recipe.task, seed, ids, gold, predictions, outputs.names, weights, confidences, at_temperature)


def _under_gate(
    recipe: Recipe,
    folder: Path,
    mixture: Path,
    split: Split,
    alone: tuple[list[Any], ExpertOutputs] | None,
    pictures: GatePictures,
    *,
    here: bool,
) -> list[Tensor]:
    """Distributions of each case under another gate of a seed, which lies in `mixture`.

    `alone`: the experts trained alone, and what they say of the split, where that is known already.
    """
    known = None if trained_together(recipe) else alone
    experts, outputs = known or (mixture_experts(recipe, folder, mixture), None)
    data = gate_data(recipe, experts, split, outputs, pictures)
    gate = Gate.load(mixture)
    gate.check_image_encoder(data.image_encoder)
    log_weights = unseen_log_weights(recipe, data, gate, fitted_here=here and recipe.gate.from_validation)
    return data.outputs.mix(log_weights)


def _otherwise(experts: Sequence[Expert], data: GateData, mixed: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """The mixture that is told the best expert; where an expert reads no evidence also that which reads it in doubt."""
    said = {MIXTURE_BEST: data.outputs.mix(_best_known(data))}
    if (first := first_without_evidence(experts)) is not None:
        alone = [p for p in data.outputs.log_probabilities[first] if p is not None]
        sure = (certainties(alone) >= CERTAINTY).tolist()
        said[MIXTURE_SELECTIVE] = [a if left else p for left, a, p in zip(sure, alone, mixed, strict=True)]
    return said


def _best_known(data: GateData) -> Tensor:
    """Log-weights [N, M] that are 0 for the expert with the most probable gold, -inf for the others."""
    outputs = data.outputs
    likelihood = torch.full(outputs.available.shape, -torch.inf)
    for m, column in enumerate(outputs.log_probabilities):
        for n, (log_p, targets) in enumerate(zip(column, data.targets, strict=True)):
            if log_p is not None:
                likelihood[n, m] = log_p.reshape(len(targets), -1).gather(1, targets[:, None]).sum()
    return torch.nn.functional.one_hot(likelihood.argmax(1), likelihood.shape[1]).float().log()


def _told(labels: Sequence[str], mixed: Sequence[Tensor], gold: Sequence[str]) -> list[str]:
    """Relations chosen by an oracle's help: `None` where there is none, else the best of the others."""
    none = torch.tensor([label == NO_RELATION for label in labels])
    best = [labels[int(p.masked_fill(none, -torch.inf).argmax())] for p in mixed]
    return [NO_RELATION if g == NO_RELATION else b for g, b in zip(gold, best, strict=True)]


def _place(order: Sequence[str], variant: str) -> tuple[bool, int]:
    """Experts trained alone in the order of the recipe, then those trained together."""
    name, _, together = variant.partition(", ")
    return bool(together), order.index(name)


def _temperatures(
    recipe: Recipe, data: GateData, mixed: Sequence[Tensor], saved: MixtureSpec | None, *, here: bool
) -> list[float] | None:
    """A temperature for each case: cross-validated on the split it is fitted on, else that of the trained mixture."""
    if here:
        return cross_validated_temperatures(recipe, data, mixed)
    if saved is None or saved.temperature is None:
        return None
    return [saved.temperature] * len(mixed)


def answers_of(expert: Expert, log_probabilities: Sequence[Tensor]) -> list[Any]:
    """What distributions [T, L] or [C] of each case say: the spans of a post, or the relation of a pair."""
    if isinstance(expert, NerExpert):
        return decode(expert.tagset, log_probabilities, None)
    return [expert.spec.labels[int(p.argmax())] for p in log_probabilities]


def confidences_of(expert: Expert, answers: Sequence[Any], log_probabilities: Sequence[Tensor]) -> list[list[float]]:
    """Confidences of answers under distributions [T, L] or [C] of each case."""
    if not isinstance(expert, NerExpert):
        places = [expert.spec.labels.index(answer) for answer in answers]
        return [[float(p[place].exp())] for p, place in zip(log_probabilities, places, strict=True)]
    lengths = [len(p) for p in log_probabilities]
    return span_confidences(expert.tagset, torch.cat(list(log_probabilities)), lengths, answers)


def _equal(outputs: ExpertOutputs) -> Tensor:
    """Log-weights [N, M] that let all experts that can speak on a case speak alike."""
    return torch.log_softmax(torch.zeros(outputs.available.shape).masked_fill(~outputs.available, -torch.inf), dim=1)


def _alone(outputs: ExpertOutputs) -> dict[str, list[Tensor]]:
    """Each expert's own distributions. Where it has no evidence, the others speak for it."""
    alone, equal = {}, _equal(outputs)
    for m, name in enumerate(outputs.names):
        weights = torch.full(outputs.available.shape, -torch.inf)
        weights[:, m] = 0
        silent = ~outputs.available[:, m]
        weights[silent] = equal[silent]
        alone[name] = outputs.mix(weights)
    return alone


def _ablated(expert: Expert, task_cases: Sequence[Any], rows: Rows) -> dict[str, list[Tensor]]:
    """What an expert says without its evidence, and with that of another post: does it read it at all?"""
    order = np.random.default_rng(0).permutation(len(rows))
    name = expert.spec.name
    return {
        f"{name}, no evidence": expert.log_probabilities(expert.assemble(task_cases, [()] * len(rows))),
        f"{name}, another post's evidence": expert.log_probabilities(
            expert.assemble(task_cases, [rows[i] for i in order])
        ),
    }
