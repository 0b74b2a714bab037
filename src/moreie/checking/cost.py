"""What training takes: sub-tokens, counted, and seconds, by a few batches that are really learnt from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from moreie.checking.findings import CheckedFile, ExpertCost
from moreie.encoders.precision import autocast, default_device
from moreie.encoders.text import TextEncoder
from moreie.models.expert import ExpertSpec
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.retrieval.cache import load_evidence
from moreie.training.data import Split, recipe_labels, with_swapped_none, within_limit
from moreie.training.features import Collator, Example, ner_examples, relation_examples
from moreie.training.recipe import ExpertRecipe, Recipe

# A batch that takes longer than this is not measured twice.
SLOW = 5.0
# Seconds of a forward pass without gradients, as a share of a training step.
FORWARD = 1 / 3


def expert_costs(
    recipe: Recipe, encoder: TextEncoder, files: Sequence[CheckedFile], *, measure: bool
) -> list[ExpertCost]:
    """One row an expert, in the recipe's order. The encoder is changed: it gets an adapter, and gradients.

    `files` are the recipe's splits, read without a bad line.
    """
    splits = {file.split: within_limit(_split(recipe, file), encoder) for file in files if file.split != "test"}
    labels = recipe_labels(recipe, splits["train"])
    encoder.to(default_device())
    costs = []
    for own in recipe.experts:
        expert = _expert(recipe, own, labels, encoder)
        examples = {name: _examples(recipe, expert, split) for name, split in splits.items()}
        lengths = {name: [len(e.input.input_ids) for e in found] for name, found in examples.items()}
        settings = own.training or recipe.training
        seconds = None
        if measure and lengths["train"]:
            rate = _seconds_a_token(expert, examples["train"], settings.batch_size)
            tokens = settings.epochs * (sum(lengths["train"]) + FORWARD * sum(lengths["validation"]))
            seconds = rate * tokens * (2 if own.two_view or settings.r_drop or settings.adversarial else 1)
        costs.append(
            ExpertCost(
                expert=own.name,
                epochs=settings.epochs,
                tokens=sum(lengths["train"]),
                longest=max(lengths["train"], default=0),
                dropped=sum(e.input.dropped for e in examples["train"]),
                seconds=seconds,
            )
        )
    return costs


def _split(recipe: Recipe, file: CheckedFile) -> Split:
    evidence = recipe.splits[file.split].evidence
    rows = {retriever: load_evidence(path, file.posts)[1] for retriever, path in evidence.items()}
    return Split(file.posts, rows)


def _expert(
    recipe: Recipe, own: ExpertRecipe, labels: tuple[str, ...], encoder: TextEncoder
) -> NerExpert | RelationExpert:
    spec = ExpertSpec(
        task=recipe.task, name=own.name, labels=labels, view=own.view, encoder=recipe.encoder, adapter=recipe.adapter
    )
    expert: NerExpert | RelationExpert = (NerExpert if recipe.task == "ner" else RelationExpert)(spec, encoder)
    if recipe.adapter:
        encoder.add_adapter(expert.adapter_name, recipe.adapter)
    return expert.to(default_device())


def _examples(recipe: Recipe, expert: NerExpert | RelationExpert, split: Split) -> list[Example]:
    rows = split.rows(expert.spec.view.retriever)
    if isinstance(expert, NerExpert):
        return ner_examples(expert, split.posts, rows)
    posts = with_swapped_none(split.posts) if recipe.swapped_none else split.posts
    return relation_examples(expert, posts, rows)


def _seconds_a_token(expert: NerExpert | RelationExpert, examples: Sequence[Example], batch_size: int) -> float:
    """Of a training step: the second of two batches from the middle of the lengths, which the first has warmed up."""
    middle = sorted(examples, key=lambda e: len(e.input.input_ids))
    start = max(0, len(middle) // 2 - batch_size // 2)
    rows: list[dict[str, Any]] = [{"example": e} for e in middle[start : start + batch_size]]
    expert.train()
    parameters = [p for p in expert.parameters() if p.requires_grad]
    device, seconds = expert.encoder.device, 0.0
    for _ in range(2):
        begun = time.perf_counter()
        batch = {k: v.to(device) for k, v in Collator(expert)(rows).items()}
        with autocast(device):
            loss = expert(**batch)["loss"]
        torch.autograd.grad(loss, parameters, allow_unused=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
        if seconds > SLOW:
            break
    return seconds / batch["input_ids"].numel()
