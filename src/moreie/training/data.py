"""The splits of a recipe: posts with their gold, and evidence per retriever."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moreie.datasets import read_captions, read_posts, read_relation_labels
from moreie.encoders.text import TextEncoder
from moreie.errors import MoreieError
from moreie.models.expert import Expert
from moreie.models.windows import POST_LIMIT, cut_windows
from moreie.retrieval.cache import load_evidence, read_header
from moreie.schema import NO_RELATION, Evidence, Post, Relation
from moreie.training.mention_types import typed_posts, types_given
from moreie.training.recipe import Recipe, SplitFiles

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Posts and, for each retriever, one row of evidence a post."""

    posts: tuple[Post, ...]
    evidence: Mapping[str, Sequence[Sequence[Evidence]]]

    def rows(self, retriever: str | None) -> Sequence[Sequence[Evidence]]:
        """Evidence of one retriever; empty rows for None (the baseline's view)."""
        return [()] * len(self.posts) if retriever is None else self.evidence[retriever]

    def where(self, keep: Sequence[bool]) -> Split:
        """The posts marked in `keep`."""
        index = [i for i, kept in enumerate(keep) if kept]
        return Split(
            tuple(self.posts[i] for i in index), {k: [rows[i] for i in index] for k, rows in self.evidence.items()}
        )


def load_split(files: SplitFiles, labels: Sequence[str] | None = None, *, mention_types: Path | None = None) -> Split:
    """Read posts, captions and evidence of a split; `mention_types`: who gives types to mentions without one.

    Posts without words are left out, since nothing can be found in them; how many is logged.

    Raises:
        DataFormatError: a malformed line, or evidence made for other posts.
        CheckpointError: `mention_types` is no NER model.
    """
    captions = read_captions(files.captions, files.caption_field) if files.captions else None
    posts = read_posts(files.posts, images=files.images, captions=captions, labels=labels)
    evidence = {retriever: load_evidence(path, posts)[1] for retriever, path in files.evidence.items()}
    split = Split(tuple(posts), evidence)
    if empty := sum(not post.words for post in posts):
        log.warning("%s: %d posts without words are left out", files.posts, empty)
        split = split.where([bool(post.words) for post in posts])
    if mention_types is None:
        return split
    typed = typed_posts(mention_types, split.posts, POST_LIMIT)
    log.warning("%s: %s (by %s)", files.posts, types_given(split.posts, typed), mention_types)
    return replace(split, posts=typed)


def attached_titles(files: SplitFiles, experts: Sequence[Expert]) -> dict[str, str]:
    """By retriever: the title before each text, where what experts read is attached to posts, not retrieved.

    Raises:
        DataFormatError: an evidence file is missing or damaged.
    """
    retrievers = {e.spec.view.retriever for e in experts} & files.evidence.keys()
    sources = {name: read_header(files.evidence[name]).source for name in sorted(filter(None, retrievers))}
    return {name: source.title for name, source in sources.items() if source is not None}


def within_limit(split: Split, encoder: TextEncoder) -> Split:
    """The split with overlong posts cut into windows; each window keeps its post's evidence."""
    windows = cut_windows(encoder, split.posts, POST_LIMIT)
    if len(windows) == len(split.posts):
        return split
    lost = sum(w.straddling for w in windows)
    log.warning("%d windows of %d posts; %d mentions straddle a cut", len(windows), len(split.posts), lost)
    return Split(
        tuple(w.post for w in windows),
        {name: [rows[w.origin] for w in windows] for name, rows in split.evidence.items()},
    )


def with_swapped_none(posts: Sequence[Post]) -> list[Post]:
    """The posts, each pair without a relation annotated in the other direction too, where that is not annotated yet."""
    return [post if post.relations is None else replace(post, relations=_both_ways(post.relations)) for post in posts]


def _both_ways(relations: Sequence[Relation]) -> tuple[Relation, ...]:
    known = {(r.head, r.tail) for r in relations}
    swapped = (
        Relation(r.tail, r.head, NO_RELATION)
        for r in relations
        if r.type == NO_RELATION and (r.tail, r.head) not in known
    )
    return (*relations, *swapped)


def missing_reversed_none(posts: Sequence[Post]) -> float:
    """By how many nats `None` is too rare among pairs with the head behind the tail: log(n in order / n reversed).

    Pairs are without a relation in whichever direction one asks, so there should be as many of either kind. One is
    added to both numbers.
    """
    ordered = backward = 1
    for post in posts:
        for r in post.relations or ():
            if r.type == NO_RELATION and post.mentions is not None:
                behind = post.mentions[r.head].first - post.mentions[r.tail].first
                ordered, backward = ordered + (behind < 0), backward + (behind > 0)
    return math.log(ordered / backward)


def recipe_labels(recipe: Recipe, train: Split) -> tuple[str, ...]:
    """Entity types or relations: from the recipe's label file, else those of the training posts."""
    if recipe.data.labels:
        return read_relation_labels(recipe.data.labels)
    if recipe.task == "ner":
        found = {m.type for post in train.posts for m in post.mentions or () if m.type}
    else:
        found = {r.type for post in train.posts for r in post.relations or ()}
    if not found:
        what = "mentions" if recipe.task == "ner" else "relations"
        raise MoreieError(f"{recipe.data.train.posts}: no post has {what}, so there is nothing to learn")
    return tuple(sorted(found))


def hold_out(split: Split, share: float) -> tuple[Split, Split]:
    """(rest, held out). Posts of the same text go to the same side, whatever their order or number."""
    held = [_place(post) < share * 2**32 for post in split.posts]
    return split.where([not h for h in held]), split.where(held)


def text_folds(split: Split, folds: int) -> Iterator[tuple[Split, Split]]:
    """(rest, fold) of each fold that is not empty. Posts of the same text go to the same fold."""
    places = [_place(post) % folds for post in split.posts]
    for k in sorted(set(places)):
        yield split.where([p != k for p in places]), split.where([p == k for p in places])


def _place(post: Post) -> int:
    return int.from_bytes(hashlib.sha256(post.text.encode()).digest()[:4], "big")


def joined_splits(splits: Sequence[Split]) -> Split:
    """The posts of several splits with the same retrievers, one after the other."""
    return Split(
        tuple(post for split in splits for post in split.posts),
        {name: [row for split in splits for row in split.evidence[name]] for name in splits[0].evidence},
    )


def cases(task: str, split: Split) -> tuple[list[Any], dict[str, list[Sequence[Evidence]]], list[Any]]:
    """(cases, evidence rows per retriever, gold): posts with their mentions, or triples with their relation."""
    if task == "ner":
        gold: list[Any] = [
            [(m.type, m.first, m.last) for m in sorted(post.mentions or (), key=lambda m: m.first)]
            for post in split.posts
        ]
        return list(split.posts), {k: list(v) for k, v in split.evidence.items()}, gold
    triples, index, gold = [], [], []
    for i, post in enumerate(split.posts):
        for relation in post.relations or ():
            mentions = post.mentions or ()
            triples.append((replace(post, relations=None), mentions[relation.head], mentions[relation.tail]))
            index.append(i)
            gold.append(relation.type)
    return triples, {k: [rows[i] for i in index] for k, rows in split.evidence.items()}, gold
