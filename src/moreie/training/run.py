"""A recipe carried out: every expert, then the gate, for every seed. What is already trained is kept."""

from __future__ import annotations

import json
import logging
import shutil
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
from moreie.models.outputs import ExpertOutputs, joined, load_outputs, run_experts, save_outputs
from moreie.models.relation import RelationExpert
from moreie.training import configuration
from moreie.training.data import (
    Split,
    cases,
    hold_out,
    joined_splits,
    load_split,
    missing_reversed_none,
    recipe_labels,
    text_folds,
    with_swapped_none,
    within_limit,
)
from moreie.training.features import Example, ner_examples, relation_examples, with_plain_view, without_some_evidence
from moreie.training.gate import GateData, fit_mixture, fitted_gate, gate_data
from moreie.training.joint import joint_examples, train_jointly
from moreie.training.pictures import GatePictures
from moreie.training.recipe import ExpertRecipe, Joint, Recipe
from moreie.training.temperature import with_temperature
from moreie.training.trainer import CHECKPOINTS, train_expert

log = logging.getLogger(__name__)
SCORE_FILE, OUTPUTS_FILE, FOLDS, JOINT = "validation.json", "outputs.safetensors", "folds", "joint"
KINDS: dict[str, type[Expert]] = {"ner": NerExpert, "re": RelationExpert}


def seed_folder(recipe: Recipe, seed: int) -> Path:
    return recipe.output / f"seed-{seed}"


def train_recipe(recipe: Recipe, say: Callable[[str], None] = log.info, pictures: GatePictures | None = None) -> None:
    """Train all experts and the gate of a recipe; called again after a stop, it goes on where it stopped.

    An expert that is there is kept if nothing it depends on has changed; the gate is always fitted anew. `pictures`
    remembers embedded pictures between runs.

    Raises:
        RecipeError: an expert that is there depends on other settings, evidence or posts than the recipe says; one has
            typed markers and no mention a type; one scores spans, and a training mention is longer than any of
            them; the gate is to read pictures, and there are none.
        CheckpointError: the model that gives mentions their types is not there or damaged.
    """
    train = load_split(recipe.data.train, mention_types=recipe.data.mention_types)
    validation = load_split(recipe.data.validation, mention_types=recipe.data.mention_types)
    _check_types(recipe, train)
    _check_lengths(recipe, train)
    labels = recipe_labels(recipe, train)
    fit, gate_split = hold_out(train, recipe.gate.held_out) if recipe.gate.held_out else (train, validation)
    pictures = pictures or GatePictures(recipe)
    learned = with_swapped_none(fit.posts) if recipe.swapped_none else fit.posts
    reversed_none = missing_reversed_none(learned) if recipe.task == "re" else 0.0
    for seed in recipe.seeds:
        folder = seed_folder(recipe, seed)
        _train_experts(recipe, recipe.experts, labels, fit, validation, seed, folder, say)
        experts = load_experts(recipe, folder, recipe.members)
        own, outputs = gate_split, None
        if recipe.gate.cross_fit and len(experts) > 1:
            own, outputs = _out_of_fold(recipe, labels, train, validation, seed, folder, say)
        data = gate_data(recipe, experts, own, outputs, pictures)
        if (joint := recipe.gate.joint) and trained_together(recipe):
            experts = _train_together(recipe, joint, experts, data, fit, seed, folder, pictures, say)
            data = gate_data(recipe, experts, own, pictures=pictures)
        mixture, penalty = fit_mixture(recipe, experts, data, reversed_none)
        held = data if recipe.gate.from_validation else gate_data(recipe, experts, validation, pictures=pictures)
        mixture = with_temperature(recipe, mixture, held)
        place = f"{JOINT}/" if trained_together(recipe) else ""
        mixture.save_spec(folder, [f"{place}{name}" for name in recipe.members], {})
        configuration.write(folder, configuration.configuration(recipe))
        say(
            f"{folder}: mixture of {', '.join(recipe.members)} (gate penalty {penalty:g}, "
            f"temperature {mixture.temperature:g})"
        )


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


def _train_experts(
    recipe: Recipe,
    experts: Sequence[ExpertRecipe],
    labels: tuple[str, ...],
    train: Split,
    validation: Split,
    seed: int,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    for expert in experts:
        target = folder / expert.name
        configuration.claim(target, configuration.expert_configuration(recipe, expert))
        if (target / CONFIG_FILE).exists() and (target / SCORE_FILE).exists():
            say(f"{target}: trained before, kept")
            continue
        f1 = _train_one(recipe, expert, labels, train, validation, seed, target)
        (target / SCORE_FILE).write_text(json.dumps({"f1": f1}) + "\n")
        say(f"{target}: validation F1 {f1:.2f}")


def _train_together(
    recipe: Recipe,
    joint: Joint,
    experts: Sequence[Any],
    data: GateData,
    train: Split,
    seed: int,
    folder: Path,
    pictures: GatePictures,
    say: Callable[[str], None],
) -> list[Any]:
    """The experts of the mixture gone on together, from those trained alone; kept where they are there already.

    `data`: what the experts trained alone say of the posts that the gate is fitted on.
    """
    target = folder / JOINT
    configuration.claim(target, configuration.joint_configuration(recipe))
    done = all((target / name / CONFIG_FILE).exists() for name in recipe.members)
    if done and not (target / CHECKPOINTS).exists():
        say(f"{target}: trained before, kept")
    else:
        gate, _ = fitted_gate(recipe, data)
        examples = joint_examples(recipe.task, experts, train, gate_data(recipe, experts, train, pictures=pictures))
        train_jointly(experts, gate, examples, joint, target, seed)
        say(f"{target}: {', '.join(recipe.members)} trained together")
    return mixture_experts(recipe, folder)


def _out_of_fold(
    recipe: Recipe,
    labels: tuple[str, ...],
    train: Split,
    validation: Split,
    seed: int,
    folder: Path,
    say: Callable[[str], None],
) -> tuple[Split, ExpertOutputs]:
    """The training posts fold by fold, and what experts say of each fold that were trained on the other folds.

    What they said is kept under `folder/folds`; they themselves are deleted then, for whole encoders fill a disk.
    """
    splits, spoken = [], []
    current = {e.name: configuration.expert_configuration(recipe, e) for e in recipe.lineage}
    if configuration.read(folder / FOLDS) not in (None, current):
        say(f"{folder / FOLDS}: of other experts, made anew")
        shutil.rmtree(folder / FOLDS)
    configuration.write(folder / FOLDS, current)
    for place, (rest, own) in enumerate(text_folds(train, recipe.gate.folds), 1):
        fold = folder / FOLDS / f"{place}-of-{recipe.gate.folds}"
        outputs = load_outputs(fold / OUTPUTS_FILE) if (fold / OUTPUTS_FILE).exists() else None
        if outputs is None or outputs.names != recipe.members:
            _train_experts(recipe, recipe.lineage, labels, rest, validation, seed, fold, say)
            experts = load_experts(recipe, fold, recipe.members)
            task_cases, evidence, _ = cases(recipe.task, within_limit(own, experts[0].encoder))
            outputs = run_experts(experts, task_cases, evidence)
            save_outputs(outputs, fold / OUTPUTS_FILE)
        for expert in recipe.lineage:
            shutil.rmtree(fold / expert.name, ignore_errors=True)
        splits.append(own)
        spoken.append(outputs)
    return joined_splits(splits), joined(spoken)


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


def trained_together(recipe: Recipe) -> bool:
    """Are the mixture's experts others than those trained alone?"""
    return recipe.gate.joint is not None and len(recipe.members) > 1


def mixture_experts(recipe: Recipe, folder: Path) -> list[Any]:
    """The experts that the mixture's gate weighs, in the order of the recipe.

    Raises:
        MoreieError: an expert has not been trained yet.
    """
    return load_experts(recipe, folder / JOINT if trained_together(recipe) else folder, recipe.members)
