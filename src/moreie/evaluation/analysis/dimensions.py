"""Ways to sort mentions and relations into buckets, gold and predicted ones by the same rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from moreie.evaluation.analysis.errors import Category, Item, Judged, judge
from moreie.evaluation.analysis.scored import Known, Scored, folded
from moreie.evaluation.predictions import BASELINE, Evaluation
from moreie.models.tagset import Span


@dataclass(frozen=True)
class Dimension:
    """`place(n, item)`: the bucket of an item of the n-th case; `buckets` is their order in tables."""

    name: str
    buckets: tuple[str, ...]
    place: Callable[[int, Item], str]


def dimensions(evaluation: Evaluation, scored: Sequence[Scored], known: Known) -> list[Dimension]:
    """All that apply to the task; those of gate and picture depend on the seed."""
    own = _mention_dimensions(scored, known) if evaluation.task == "ner" else _relation_dimensions(scored, known)
    return [
        _per_case("words of the post", [_upto(len(s.post.words), (10, 15, 20)) for s in scored], _ranges((10, 15, 20))),
        *own,
        *_gate_thirds(evaluation),
        *_against_baseline(evaluation),
    ]


def _mention_dimensions(scored: Sequence[Scored], known: Known) -> list[Dimension]:
    def words(n: int, item: Item) -> str:
        _, first, last = cast(Span, item)
        return _upto(last - first + 1, (1, 2))

    def seen(n: int, item: Item) -> str:
        type, first, last = cast(Span, item)
        types = known.types.get(scored[n].surface(first, last), frozenset())
        return SEEN[0] if type in types else SEEN[1] if types else SEEN[2]

    def ambiguous(n: int, item: Item) -> str:
        _, first, last = cast(Span, item)
        types = len(known.types.get(scored[n].surface(first, last), ()))
        return AMBIGUOUS[0] if types > 1 else AMBIGUOUS[1] if types else AMBIGUOUS[2]

    found = [
        Dimension("words of the mention", _ranges((1, 2)), words),
        Dimension("name in the training posts", SEEN, seen),
        Dimension("types of the name in the training posts", AMBIGUOUS, ambiguous),
    ]
    for retriever in sorted({name for s in scored for name in s.evidence}):
        titles, texts = _evidence_words(scored, retriever)

        def place(n: int, item: Item, titles: list[str] = titles, texts: list[str] = texts) -> str:
            _, first, last = cast(Span, item)
            name = scored[n].surface(first, last)
            return FOUND[0] if _holds(titles[n], name) else FOUND[1] if _holds(texts[n], name) else FOUND[2]

        found.append(Dimension(f"name in the {retriever} evidence", FOUND, place))
    return found


SEEN = ("seen with this type", "seen with another type", "not seen")
AMBIGUOUS = ("several", "one", "not seen")
FOUND = ("in a title", "in the text only", "absent")
PAIR_FOUND = ("both names", "one name", "none")
PAIR_SEEN = ("seen with this relation", "seen with another relation", "not seen")


def _relation_dimensions(scored: Sequence[Scored], known: Known) -> list[Dimension]:
    names, gaps = [], []
    for case in scored:
        head, tail = case.asked
        names.append((case.surface(head.first, head.last), case.surface(tail.first, tail.last)))
        gaps.append(max(0, max(head.first, tail.first) - min(head.last, tail.last) - 1))

    def frequency(n: int, item: Item) -> str:
        return _upto(known.relations.get(str(item), 0), (49, 199, 499), lowest=0)

    def seen(n: int, item: Item) -> str:
        relations = known.pairs.get(names[n], frozenset())
        return PAIR_SEEN[0] if item in relations else PAIR_SEEN[1] if relations else PAIR_SEEN[2]

    found = [
        Dimension("training pairs of the relation", _ranges((49, 199, 499), lowest=0), frequency),
        _per_case("words between head and tail", [_upto(g, (1, 4, 9), lowest=0) for g in gaps], _ranges((1, 4, 9), 0)),
        Dimension("pair of names in the training posts", PAIR_SEEN, seen),
    ]
    for retriever in sorted({name for s in scored for name in s.evidence}):
        titles, texts = _evidence_words(scored, retriever)
        held = [
            sum(_holds(title, name) or _holds(text, name) for name in pair)
            for pair, title, text in zip(names, titles, texts, strict=True)
        ]
        found.append(_per_case(f"names in the {retriever} evidence", [PAIR_FOUND[2 - h] for h in held], PAIR_FOUND))
    return found


def _gate_thirds(evaluation: Evaluation) -> list[Dimension]:
    """Cases by the weight that an expert has in them: thirds of the split, where equal weights do not join them."""
    if len(evaluation.names) < 2 or not len(evaluation.gate):
        return []
    thirds = ("lowest third", "middle third", "highest third")
    found = []
    for name, weights in zip(evaluation.names, evaluation.gate.T.numpy(), strict=True):
        edges = np.quantile(weights, [1 / 3, 2 / 3])
        places = np.searchsorted(edges, weights, side="right")
        found.append(_per_case(f"gate weight of {name}", [thirds[p] for p in places], thirds))
    return found


def _against_baseline(evaluation: Evaluation) -> list[Dimension]:
    """Posts by whether an evidence expert or the baseline is right on a mention where the other is wrong.

    A pair has one answer: there `Decided` says it all.
    """
    if BASELINE not in evaluation.predictions or evaluation.task != "ner":
        return []
    found = []
    base = judge(evaluation.task, evaluation.gold, evaluation.predictions[BASELINE])
    for name in evaluation.names:
        if name == BASELINE:
            continue
        own = judge(evaluation.task, evaluation.gold, evaluation.predictions[name])
        buckets = (f"only {name} right", "only baseline right", "each right once", "no difference")
        decided = [decides(a, b) for a, b in zip(base, own, strict=True)]
        places = [buckets[0 if m and not s else 1 if s and not m else 2 if m else 3] for s, m in decided]
        found.append(_per_case(f"{name} against baseline", places, buckets))
    return found


def decides(base: Judged, own: Judged) -> tuple[int, int]:
    """Gold items of a case that only the first has right, and those that only the second has."""
    pairs = [(a is Category.right, b is Category.right) for (_, a), (_, b) in zip(base.gold, own.gold, strict=True)]
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _per_case(name: str, buckets_of: Sequence[str], buckets: tuple[str, ...]) -> Dimension:
    return Dimension(name, buckets, lambda n, _: buckets_of[n])


def _ranges(ends: tuple[int, ...], lowest: int = 1) -> tuple[str, ...]:
    """Names of the ranges that close with each of `ends`, and of the open one behind them."""
    return tuple(dict.fromkeys(_upto(value, ends, lowest) for end in ends for value in (end, end + 1)))


def _upto(value: int, ends: tuple[int, ...], lowest: int = 1) -> str:
    for first, end in zip((lowest, *(e + 1 for e in ends)), ends, strict=False):
        if value <= end:
            return str(end) if first == end else f"{first}–{end}"
    return f"{ends[-1] + 1} or more"


def _evidence_words(scored: Sequence[Scored], retriever: str) -> tuple[list[str], list[str]]:
    """Of each case the words of all titles, and of all texts, passages kept apart."""
    rows = [case.evidence.get(retriever, ()) for case in scored]
    titles = [" | ".join(folded(e.passage.title) for e in row) for row in rows]
    texts = [" | ".join(folded(e.passage.text) for e in row) for row in rows]
    return titles, texts


def _holds(words: str, name: str) -> bool:
    return bool(name) and f" {name} " in f" {words} "
