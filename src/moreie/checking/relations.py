"""Annotation of relations: pairs without one, their direction, pairs annotated twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from moreie.checking.findings import EXAMPLES, CheckedFile, Finding, quoted
from moreie.schema import NO_RELATION

# Of pairs against the text's direction so many have to be without a relation, lest experts take any such pair for one.
SHARE_REVERSED = 0.1


def relation_findings(file: CheckedFile, *, swapped_none: bool = False) -> Iterator[Finding]:
    """All about the pairs that relation experts learn from or are scored on; `swapped_none`: as the recipe has it."""
    if "re" not in file.tasks:
        return
    yield from _none(file, swapped_none)
    yield from _twice(file)
    if file.split == "train" and (without := [p.id for p in file.posts if not p.relations]):
        yield Finding(
            "note",
            "no-pairs",
            file.where,
            f"{len(without):,} of {len(file.posts):,} posts have no pair: nothing is learnt from them",
            len(without),
            tuple(without[:EXAMPLES]),
        )


def _none(file: CheckedFile, swapped_none: bool) -> Iterator[Finding]:
    """Does the file say which pairs have no relation, in either direction?"""
    # (is without a relation, head stands behind tail)
    counts: Counter[tuple[bool, bool]] = Counter()
    for post in file.posts:
        for r in post.relations or ():
            mentions = post.mentions or ()
            counts[r.type == NO_RELATION, mentions[r.head].first > mentions[r.tail].first] += 1
    total, none = counts.total(), counts[True, False] + counts[True, True]
    if not total:
        return
    if not none:
        yield Finding(
            "warning",
            "no-none",
            file.where,
            f"each of the {total:,} pairs has a relation: a model of them finds one between any two entities",
            total,
            remedy=f'annotate pairs without a relation as "{NO_RELATION}" too',
        )
        return
    reversed_pairs = counts[False, True] + counts[True, True]
    said = (
        f"{none:,} of {total:,} pairs are without a relation ({none / total:.0%}); of pairs against the text's "
        f"direction {counts[True, True]:,} of {reversed_pairs:,}"
    )
    lopsided = none >= 20 and counts[True, True] < SHARE_REVERSED * none and counts[False, True] > 0
    if lopsided and not swapped_none and file.split in ("", "train"):
        yield Finding(
            "warning",
            "none-in-text-order",
            file.where,
            f"{said}. Pairs without a relation are given in the order of the text only, so experts take any pair the "
            "other way round for a relation; extraction corrects that in part",
            none,
            remedy="swapped_none: true in the recipe",
        )
    else:
        yield Finding("note", "pairs", file.where, said, total)


def _twice(file: CheckedFile) -> Iterator[Finding]:
    found = []
    for post in file.posts:
        pairs: dict[tuple[int, int], str] = {}
        for r in post.relations or ():
            if pairs.setdefault((r.head, r.tail), r.type) != r.type:
                mentions = post.mentions or ()
                pair = f"{quoted(post.surface(mentions[r.head]))}, {quoted(post.surface(mentions[r.tail]))}"
                found.append(f"{post.id}: {pair}: {pairs[r.head, r.tail]} and {r.type}")
    if found:
        yield Finding(
            "warning",
            "two-relations",
            file.where,
            f"pairs with two relations, where an expert gives one: {len(found):,}",
            len(found),
            tuple(found[:EXAMPLES]),
            "keep the one that matters more",
        )
