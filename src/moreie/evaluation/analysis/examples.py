"""A few posts for each kind of error, for local reading only: texts of posts may not be passed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moreie.evaluation.analysis.errors import Category, judge
from moreie.evaluation.analysis.scored import Scored
from moreie.evaluation.predictions import MIXTURE, Evaluation

MOST = 5


@dataclass(frozen=True, slots=True)
class Marked:
    """A stretch of a text; `label` is the type of what it is marked as, None for text between marks."""

    text: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorExample:
    """A case with its gold marks and the mixture's; of a pair head and tail are marked, and `answer` says the rest."""

    id: str
    category: str
    gold: tuple[Marked, ...]
    predicted: tuple[Marked, ...]
    answer: str = ""


def error_examples(evaluation: Evaluation, scored: Sequence[Scored]) -> list[ErrorExample]:
    """Up to five of each category of the mixture, drawn at random but always the same."""
    judged = judge(evaluation.task, evaluation.gold, evaluation.predictions[MIXTURE])
    order = np.random.default_rng(0).permutation(len(judged)).tolist()
    found = []
    for category in Category:
        own = [
            n
            for n in order
            if (judged[n].spurious if category is Category.spurious else category in [c for _, c in judged[n].gold])
        ]
        found += [_example(evaluation, scored[n], n, category.value) for n in own[:MOST]]
    return found


def _example(evaluation: Evaluation, case: Scored, n: int, category: str) -> ErrorExample:
    gold, answer = evaluation.gold[n], evaluation.predictions[MIXTURE][n]
    if case.pair is None:
        return ErrorExample(evaluation.ids[n], category, _marked(case, gold), _marked(case, answer))
    head, tail = case.pair
    pair = _marked(case, [("head", head.first, head.last), ("tail", tail.first, tail.last)])
    return ErrorExample(evaluation.ids[n], category, pair, (), f"gold {gold}, answer {answer}")


def _marked(case: Scored, spans: Sequence[Any]) -> tuple[Marked, ...]:
    """The text of the case's words; of spans that overlap the first is marked."""
    words, text = case.post.words, case.post.text
    parts, position, end = [], words[0].start if words else 0, words[-1].end if words else 0
    for label, first, last in sorted(spans, key=lambda span: (span[1], span[2])):
        start, stop = words[first].start, words[last].end
        if start >= position:
            parts += [Marked(text[position:start]), Marked(text[start:stop], label)]
            position = stop
    return tuple(part for part in (*parts, Marked(text[position:end])) if part.text)
