"""From posts and their evidence to training examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from moreie.errors import MoreieError
from moreie.models.assembly import Assembled, assemble_pairs, assemble_posts
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.schema import Evidence, Post

PLAIN = "plain_"


@dataclass(frozen=True, slots=True)
class Example:
    """An encoder input with what the model should say: tags per word (None: no gold) or the relation's index.

    `plain`: the same post without its evidence, for two-view training.
    """

    input: Assembled
    tags: tuple[int, ...] | None = None
    relation: int | None = None
    teacher: Tensor | None = None
    plain: Assembled | None = None


class HasInput(Protocol):
    """What is sampled by the length of its input."""

    @property
    def input(self) -> Assembled: ...


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """Examples as the trainer samples them; `input_ids` gives it their lengths."""

    def __init__(self, examples: Sequence[HasInput]):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.examples[index]
        return {"input_ids": example.input.input_ids, "example": example}


def without_some_evidence(evidence: Sequence[Sequence[Evidence]], share: float, seed: int) -> list[Sequence[Evidence]]:
    """The same rows, a random `share` of them emptied."""
    chance = random.Random(seed)
    return [() if chance.random() < share else row for row in evidence]


def ner_examples(
    expert: NerExpert,
    posts: Sequence[Post],
    evidence: Sequence[Sequence[Evidence]],
    teacher: Sequence[Tensor] | None = None,
) -> list[Example]:
    """One example a post. Posts without annotation (`mentions` None) need a `teacher` [T, L] each.

    Raises:
        MoreieError: a post's mentions overlap or are of a type that the expert does not know.
    """
    inputs = assemble_posts(expert.encoder, posts, evidence, expert.spec.view)
    examples = []
    for index, (post, assembled) in enumerate(zip(posts, inputs, strict=True)):
        try:
            tags = None if post.mentions is None else tuple(expert.tagset.encode(post.mentions, len(post.words)))
        except MoreieError as problem:
            raise MoreieError(f"post {post.id}: {problem}") from problem
        examples.append(Example(assembled, tags=tags, teacher=teacher[index] if teacher is not None else None))
    return examples


def relation_examples(
    expert: RelationExpert, posts: Sequence[Post], evidence: Sequence[Sequence[Evidence]]
) -> list[Example]:
    """One example a gold relation of a post, `None` relations included."""
    pairs, rows, labels = [], [], []
    index = {label: i for i, label in enumerate(expert.spec.labels)}
    for post, row in zip(posts, evidence, strict=True):
        for relation in post.relations or ():
            if relation.type not in index:
                known = ", ".join(expert.spec.labels)
                raise MoreieError(f"post {post.id}: relation label {relation.type!r} is unknown; known are {known}")
            mentions = post.mentions or ()
            pairs.append((post, mentions[relation.head], mentions[relation.tail]))
            rows.append(row)
            labels.append(index[relation.type])
    inputs = assemble_pairs(expert.encoder, pairs, rows, expert.spec.view)
    return [Example(assembled, relation=label) for assembled, label in zip(inputs, labels, strict=True)]


def with_plain_view(examples: Sequence[Example], plain: Sequence[Example]) -> list[Example]:
    """The examples, each with the input of its counterpart without evidence."""
    return [replace(example, plain=other.input) for example, other in zip(examples, plain, strict=True)]


class Collator:
    """Pads examples to their batch's longest and stacks the targets, all on the processor (the trainer moves them);
    keys of plain views begin with `plain_`."""

    def __init__(self, expert: NerExpert | RelationExpert):
        self.expert = expert

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        examples: list[Example] = [row["example"] for row in rows]
        batch = self.expert.collate([e.input for e in examples])
        plain = [e.plain for e in examples if e.plain is not None]
        if plain:
            batch |= {f"{PLAIN}{key}": value for key, value in self.expert.collate(plain).items()}
        if isinstance(self.expert, RelationExpert):
            batch["labels"] = torch.tensor([e.relation for e in examples])
            return batch
        words = int(batch["lengths"].max())
        batch["labels"] = torch.full((len(examples), words), -100)
        for i, example in enumerate(examples):
            if example.tags is not None:
                batch["labels"][i, : len(example.tags)] = torch.tensor(example.tags)
        if examples[0].teacher is not None:
            batch["teacher"] = torch.zeros(len(examples), words, len(self.expert.tagset))
            for i, example in enumerate(examples):
                if example.teacher is not None:
                    batch["teacher"][i, : len(example.teacher)] = example.teacher
        return batch
