"""The experts of a recipe: checked, trained one by one, loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

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
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.training import configuration
from moreie.training.data import Split, with_swapped_none, within_limit
from moreie.training.features import Example, ner_examples, relation_examples, with_plain_view, without_some_evidence
from moreie.training.kept import SCORE_FILE, is_trained
from moreie.training.recipe import ExpertRecipe, Recipe
from moreie.training.trainer import train_expert

KINDS: dict[str, type[Expert]] = {"ner": NerExpert, "re": RelationExpert}


def check_experts(recipe: Recipe, train: Split) -> None:
    """See that the training posts have what the experts are to read and to score.

    Raises:
        RecipeError: an expert has typed markers and no mention a type, or scores spans and a mention is longer.
    """
    _check_types(recipe, train)
    _check_lengths(recipe, train)


def _check_types(recipe: Recipe, train: Split) -> None:
    typed = [e.name for e in recipe.experts if e.view.markers == "typed"]
    if typed and recipe.task == "re" and not any(m.type for post in train.posts for m in post.mentions or ()):
        raise RecipeError(
            f"expert {typed[0]} has typed markers, but no mention in {recipe.data.train.posts} has a type; name an NER "
            "model that gives them in data.mention_types"
        )


def _check_lengths(recipe: Recipe, train: Split) -> None:
    limits = [e.spans.longest for e in recipe.experts if e.spans]
    mentions = ((post, mention) for post in train.posts for mention in post.mentions or ())
    for post, mention in mentions if limits else ():
        if (words := mention.last - mention.first + 1) > min(limits):
            raise RecipeError(
                f"{recipe.data.train.posts}: post {post.id} has a mention of {words} words "
                f"({post.surface(mention)!r}), more than the {min(limits)} of spans.longest"
            )


def train_experts(
    recipe: Recipe,
    experts: Sequence[ExpertRecipe],
    labels: tuple[str, ...],
    train: Split,
    validation: Split,
    seed: int,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Train experts one after the other into `folder`; those that are there and depend on nothing else are kept.

    Raises:
        RecipeError: one that is there depends on other settings, evidence or posts than the recipe says.
    """
    for expert in experts:
        target = folder / expert.name
        configuration.claim(target, configuration.expert_configuration(recipe, expert))
        if is_trained(target):
            say(f"{target}: trained before, kept")
            continue
        f1 = _train_one(recipe, expert, labels, train, validation, seed, target)
        (target / SCORE_FILE).write_text(json.dumps({"f1": f1}) + "\n")
        say(f"{target}: validation F1 {f1:.2f}")


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
        spans=expert_recipe.spans,
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
        posts = with_swapped_none(train.posts) if recipe.swapped_none else train.posts
        examples = relation_examples(expert, posts, rows)
        held = relation_examples(expert, validation.posts, validation.rows(retriever))
        plain = relation_examples(expert, posts, train.rows(None)) if expert_recipe.two_view else []
    else:
        examples = _ner_training_examples(recipe, expert, train, rows)
        held = ner_examples(expert, validation.posts, validation.rows(retriever))
        plain = ner_examples(expert, train.posts, train.rows(None)) if expert_recipe.two_view else []
    if expert_recipe.two_view:
        examples = with_plain_view(examples, plain)
    return train_expert(
        expert,
        examples,
        held,
        settings,
        output=target,
        seed=seed,
        teacher_weight=recipe.teacher.weight if recipe.teacher else 0.0,
        two_view=expert_recipe.two_view,
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


def load_experts(recipe: Recipe, folder: Path, names: Sequence[str] | None = None) -> list[Any]:
    """The experts of a recipe (those in `names`) in its order, encoders shared where they are the same.

    Raises:
        MoreieError: an expert has not been trained yet.
    """
    pool = EncoderPool(default_device())
    wanted = [e.name for e in recipe.experts if names is None or e.name in names]
    for name in wanted:
        if not (folder / name / CONFIG_FILE).exists():
            raise MoreieError(f"{folder / name}: not trained yet; run `moreie train` first")
    return [load_expert(KINDS[recipe.task], folder / name, pool) for name in wanted]
