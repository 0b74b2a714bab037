"""Kinds of errors: what became of each gold mention or relation, and what was found where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from moreie.models.tagset import Span
from moreie.schema import NO_RELATION

Item = Span | str
"""A mention's span, or a relation's name."""


class Category(str, Enum):
    """All but `spurious` are said of gold items."""

    right = "right"
    type_wrong = "type wrong"
    boundary_wrong = "boundary wrong"
    both_wrong = "type and boundary wrong"
    missed = "missed"
    spurious = "spurious"


@dataclass(frozen=True, slots=True)
class Judged:
    """The category of each gold item of a case, and the items that answer no gold item."""

    gold: tuple[tuple[Item, Category], ...]
    spurious: tuple[Item, ...]


def judge_mentions(gold: Sequence[Span], predicted: Sequence[Span]) -> Judged:
    """Each gold mention with the prediction that comes nearest to it.

    Exact answers are taken first, then same words, then same type with most words in common, then any overlap. A
    prediction answers one gold mention at most: what is left over on either side is missed, or spurious.
    """
    pairs = []
    for g, ours in enumerate(gold):
        for p, theirs in enumerate(predicted):
            common = min(ours[2], theirs[2]) - max(ours[1], theirs[1]) + 1
            if common > 0:
                pairs.append((_order(ours, theirs), -common, g, p))
    found: dict[int, Category] = {}
    used: set[int] = set()
    for order, _, g, p in sorted(pairs):
        if g not in found and p not in used:
            found[g] = (Category.right, Category.type_wrong, Category.boundary_wrong, Category.both_wrong)[order]
            used.add(p)
    return Judged(
        tuple((span, found.get(g, Category.missed)) for g, span in enumerate(gold)),
        tuple(span for p, span in enumerate(predicted) if p not in used),
    )


def _order(ours: Span, theirs: Span) -> int:
    return 2 * (ours[1:] != theirs[1:]) + (ours[0] != theirs[0])


def judge_relation(gold: str, predicted: str) -> Judged:
    """A pair's relation, `None` being no item: it has no boundary to be wrong."""
    if gold == NO_RELATION:
        return Judged((), () if predicted == NO_RELATION else (predicted,))
    wrong = Category.missed if predicted == NO_RELATION else Category.type_wrong
    return Judged(((gold, Category.right if gold == predicted else wrong),), ())


def judge(task: str, gold: Sequence[Any], predicted: Sequence[Any]) -> list[Judged]:
    """Every case of a split."""
    one = judge_mentions if task == "ner" else judge_relation
    return [one(a, b) for a, b in zip(gold, predicted, strict=True)]  # type: ignore[operator]


def category_counts(judged: Sequence[Judged]) -> dict[Category, int]:
    """How often each category occurs; all but `spurious` add up to the gold items."""
    counts = Counter(category for case in judged for _, category in case.gold)
    counts[Category.spurious] = sum(len(case.spurious) for case in judged)
    return {category: counts[category] for category in Category}


NOTHING = "nothing"
"""What stands on one side of a flip where a spurious item is only on the other."""


def flip_counts(before: Sequence[Judged], after: Sequence[Judged]) -> Counter[tuple[str, str]]:
    """(category before, category after) of every gold item; spurious items are followed by being the same."""
    flips: Counter[tuple[str, str]] = Counter()
    for ours, theirs in zip(before, after, strict=True):
        for (_, a), (_, b) in zip(ours.gold, theirs.gold, strict=True):
            flips[a.value, b.value] += 1
        was, now = Counter(ours.spurious), Counter(theirs.spurious)
        kept = sum((was & now).values())
        flips[Category.spurious.value, Category.spurious.value] += kept
        flips[Category.spurious.value, NOTHING] += sum(was.values()) - kept
        flips[NOTHING, Category.spurious.value] += sum(now.values()) - kept
    return +flips
