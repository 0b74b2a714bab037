"""The cases that predictions are about, read again from the data files, and what the training posts hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import regex

from moreie.datasets import read_posts, read_relation_labels
from moreie.errors import DataFormatError, MoreieError, RecipeError
from moreie.retrieval.cache import load_evidence
from moreie.schema import Evidence, Mention, Post
from moreie.training.data import Split, cases
from moreie.training.recipe import Recipe, SplitFiles

_PARTS = regex.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Scored:
    """A case as it was scored: a post or a window of one, its evidence, and (RE) the pair that is asked about.

    `evidence` holds of each retriever the passages that an expert may read; retrievers whose file is not there are
    left out.
    """

    post: Post
    evidence: Mapping[str, tuple[Evidence, ...]]
    gold: Any
    pair: tuple[Mention, Mention] | None = None

    @property
    def asked(self) -> tuple[Mention, Mention]:
        """Head and tail of a relation's case.

        Raises:
            MoreieError: the case is a post, of which no pair is asked.
        """
        if self.pair is None:
            raise MoreieError(f"post {self.post.id}: no pair of mentions is asked about")
        return self.pair

    def surface(self, first: int, last: int) -> str:
        """The words `first..last` as one name, compared without regard to case or punctuation."""
        return folded(" ".join(word.text for word in self.post.words[first : last + 1]))


def folded(text: str) -> str:
    """Words of letters and digits in lower case, one space between them."""
    return " ".join(_PARTS.findall(text.casefold()))


@dataclass(frozen=True)
class Known:
    """What the training split holds: types of each name, how often each relation occurs, relations of each pair."""

    types: Mapping[str, frozenset[str]]
    relations: Mapping[str, int]
    pairs: Mapping[tuple[str, str], frozenset[str]]


def known(recipe: Recipe) -> Known:
    """Read the training split of a recipe."""
    split = _read(recipe, recipe.data.train)
    types, pairs = defaultdict(set), defaultdict(set)
    relations: Counter[str] = Counter()
    for post in split.posts:
        for mention in post.mentions or ():
            if mention.type:
                types[folded(post.surface(mention))].add(mention.type)
        for relation in post.relations or ():
            head, tail = (post.mentions or ())[relation.head], (post.mentions or ())[relation.tail]
            pairs[folded(post.surface(head)), folded(post.surface(tail))].add(relation.type)
            relations[relation.type] += 1
    return Known({k: frozenset(v) for k, v in types.items()}, relations, {k: frozenset(v) for k, v in pairs.items()})


def scored_cases(recipe: Recipe, split: str, ids: Sequence[str], gold: Sequence[Any]) -> list[Scored]:
    """The cases with these ids, in their order.

    Raises:
        RecipeError: the recipe has no such split.
        DataFormatError: the posts are not those of the predictions.
    """
    files = recipe.splits.get(split)
    if files is None:
        raise RecipeError(f"the recipe has no {split} split")
    read = _read(recipe, files)
    found = _posts(read, ids) if recipe.task == "ner" else _pairs(read, ids)
    if [case.gold for case in found] != list(gold):
        raise DataFormatError("not the posts that the predictions are of", files.posts)
    return found


def _read(recipe: Recipe, files: SplitFiles) -> Split:
    """As the files say: types that a model gives are read by experts alone, no figure here depends on them."""
    labels = read_relation_labels(recipe.data.labels) if recipe.data.labels else None
    posts = read_posts(files.posts, labels=labels)
    most = {
        e.view.retriever: max(o.view.k for o in recipe.experts if o.view.retriever == e.view.retriever)
        for e in recipe.experts
    }
    evidence = {
        name: [row[: most.get(name, 0)] for row in load_evidence(path, posts)[1]]
        for name, path in files.evidence.items()
        if path.is_file() and most.get(name)
    }
    return Split(tuple(posts), evidence)


def _posts(split: Split, ids: Sequence[str]) -> list[Scored]:
    """A post under its id; `id#40` is the window that begins at its 40th word and ends where the next one begins."""
    place = {post.id: n for n, post in enumerate(split.posts)}
    found = []
    for number, id in enumerate(ids):
        own, _, first = (id, "", "0") if id in place else id.rpartition("#")
        if own not in place or not first.isdigit():
            return []
        post = split.posts[place[own]]
        if id not in place:
            following, _, end = ids[number + 1].rpartition("#") if number + 1 < len(ids) else ("", "", "")
            post = _window(post, int(first), int(end) if following == own else len(post.words))
        evidence = {name: tuple(rows[place[own]]) for name, rows in split.evidence.items()}
        gold = [(m.type, m.first, m.last) for m in sorted(post.mentions or (), key=lambda m: m.first)]
        found.append(Scored(post, evidence, gold))
    return found


def _window(post: Post, first: int, end: int) -> Post:
    inside = [m for m in post.mentions or () if m.first >= first and m.last < end]
    moved = tuple(replace(m, first=m.first - first, last=m.last - first) for m in inside)
    return replace(post, id=f"{post.id}#{first}", words=post.words[first:end], mentions=moved)


def _pairs(split: Split, ids: Sequence[str]) -> list[Scored]:
    """The pairs of the posts with these ids: posts cut into windows have none."""
    triples, evidence, gold = cases("re", split)
    wanted = set(ids)
    found = [
        Scored(post, {name: tuple(rows[n]) for name, rows in evidence.items()}, gold[n], (head, tail))
        for n, (post, head, tail) in enumerate(triples)
        if post.id in wanted
    ]
    return found if [case.post.id for case in found] == list(ids) else []
