"""Annotation of entities: overlaps, posts and types left out, the same words annotated here and not there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from moreie.checking.findings import EXAMPLES, CheckedFile, Finding, quoted
from moreie.schema import Mention, Post

# So often words have to be annotated, and to stand somewhere without annotation, to be an example.
OFTEN = 2
# Longest run of words that is looked for.
LONGEST = 6


def annotation_findings(file: CheckedFile) -> Iterator[Finding]:
    """All about the entities of a file that NER experts are to learn from or be scored on."""
    if "ner" not in file.tasks:
        return
    yield from _overlaps(file)
    yield from _not_annotated(file)
    yield from _untyped(file)
    annotated = [p for p in file.posts if p.mentions is not None]
    yield from _here_and_not_there(file, annotated)
    yield from _several_types(file, annotated)


def _overlaps(file: CheckedFile) -> Iterator[Finding]:
    nested: list[str] = []
    crossing: list[str] = []
    for post in file.posts:
        for one, other in combinations(sorted(post.mentions or (), key=lambda m: (m.first, -m.last)), 2):
            if other.first <= one.last:
                shown = f"{post.id}: {quoted(post.surface(one))} and {quoted(post.surface(other))}"
                (nested if other.last <= one.last else crossing).append(shown)
    if nested or crossing:
        yield Finding(
            "error",
            "overlapping-mentions",
            file.where,
            f"mentions inside another one: {len(nested):,}, that cross another one: {len(crossing):,}; a flat tag "
            "sequence (CRF) cannot hold both",
            len(nested) + len(crossing),
            tuple([*nested, *crossing][:EXAMPLES]),
            "keep one of each, the longer as a rule",
        )


def _not_annotated(file: CheckedFile) -> Iterator[Finding]:
    without = [p.id for p in file.posts if p.mentions is None]
    if not without or len(without) == len(file.posts):
        return
    what = {
        "train": "nothing is learnt from them",
        "": "nothing is learnt from them, and in a file to be scored on they count as posts without entities",
    }.get(file.split, "they count as posts without entities, so whatever is found there is an error")
    yield Finding(
        "warning",
        "not-annotated",
        file.where,
        f"{len(without):,} of {len(file.posts):,} posts have no `mentions`: {what}",
        len(without),
        tuple(without[:EXAMPLES]),
        'leave them out, or write "mentions": [] where they have been annotated and have none',
    )


def _untyped(file: CheckedFile) -> Iterator[Finding]:
    found = [f"{p.id}: {quoted(p.surface(m))}" for p in file.posts for m in p.mentions or () if m.type is None]
    if found and "re" not in file.tasks:
        yield Finding(
            "error",
            "untyped-mentions",
            file.where,
            f"mentions without a type: {len(found):,}",
            len(found),
            tuple(found[:EXAMPLES]),
            "give each a type",
        )


def _here_and_not_there(file: CheckedFile, posts: Sequence[Post]) -> Iterator[Finding]:
    """Words that are an entity in some posts and not annotated at all in others."""
    annotated: Counter[tuple[str, ...]] = Counter()
    for post in posts:
        annotated.update(_words(post, m) for m in post.mentions or () if m.last - m.first < LONGEST)
    sought = {words for words, count in annotated.items() if count >= OFTEN}
    beginnings = {words[0] for words in sought}
    bare: Counter[tuple[str, ...]] = Counter()
    where: dict[tuple[str, ...], str] = {}
    for post in posts:
        words = [w.text for w in post.words]
        taken = {i for m in post.mentions or () for i in range(m.first, m.last + 1)}
        for first, word in enumerate(words):
            for last in range(first, min(first + LONGEST, len(words))) if word in beginnings else ():
                run = tuple(words[first : last + 1])
                if run in sought and taken.isdisjoint(range(first, last + 1)):
                    bare[run] += 1
                    where.setdefault(run, post.id)
    found = sorted(
        (run for run, count in bare.items() if count >= OFTEN), key=lambda run: -min(annotated[run], bare[run])
    )
    if found:
        yield Finding(
            "warning",
            "inconsistent-annotation",
            file.where,
            f"names annotated in some places and not in others: {len(found):,}",
            len(found),
            tuple(
                f"{quoted(' '.join(run))}: annotated {annotated[run]:,} times, not {bare[run]:,} times ({where[run]})"
                for run in found[:EXAMPLES]
            ),
            "see whether annotators agree; what is right in each place is fine",
        )


def _several_types(file: CheckedFile, posts: Sequence[Post]) -> Iterator[Finding]:
    types: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for post in posts:
        for m in post.mentions or ():
            if m.type:
                types[_words(post, m)][m.type] += 1
    several = {words: own for words, own in types.items() if sum(count >= OFTEN for count in own.values()) > 1}
    if several:
        found = sorted(several, key=lambda words: -sorted(several[words].values())[-2])
        yield Finding(
            "note",
            "several-types",
            file.where,
            f"names of different types in different places: {len(found):,}",
            len(found),
            tuple(
                f"{quoted(' '.join(words))}: " + ", ".join(f"{t} {n:,}" for t, n in several[words].most_common())
                for words in found[:EXAMPLES]
            ),
        )


def _words(post: Post, mention: Mention) -> tuple[str, ...]:
    return tuple(w.text for w in post.words[mention.first : mention.last + 1])
