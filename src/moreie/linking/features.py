"""What speaks for a candidate, and for none of them, in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import regex
from numpy.typing import NDArray

from moreie.knowledge.names import normal_name, title_names
from moreie.linking.anchors import AnchorStatistics
from moreie.linking.candidates import Candidate, Candidates
from moreie.retrieval.stop_words import STOP_WORDS

# Of a candidate: ln of the share of its name's links that lead to it, smoothed; 1 where links do and the name is none
# of the following; the title as written; the title, or a redirect, in normal form; the title but for its brackets or
# what follows a comma; a word of the brackets in the text; the share of the text's other words, weighed by rarity, that
# its introduction has; 1 / rank among the evidence. None of them speaks against a candidate.
ARTICLE = (
    "anchored",
    "linked",
    "title",
    "normal title",
    "title in part",
    "brackets in text",
    "context",
    "retrieved",
)
# Of none: always 1; ln of the share of the name's links that lead outside, smoothed; 1 where links have no such name.
NIL = ("always", "outside", "unlinked")
# Links added to what was counted for each candidate and for none of them.
SMOOTHING = 0.5
_BRACKETS = regex.compile(r"\(([^()]*)\)\s*$")


def context_words(text: str, surface: str) -> frozenset[str]:
    """Content words of a text without those of a mention in it."""
    own = set(normal_name(surface).split())
    words = set(normal_name(text).split())
    return frozenset(w for w in words - own if w not in STOP_WORDS and len(w) > 1 and not w.startswith("http"))


def article_features(text: str, found: Candidates, anchors: AnchorStatistics) -> NDArray[np.float64]:
    """[C, len(ARTICLE)]: a row for each candidate of a mention in a text."""
    words = context_words(text, found.surface)
    rarity = {word: anchors.rarity(word) for word in sorted(words)}
    rows = [_row(candidate, found, rarity) for candidate in found.articles]
    return np.array(rows, np.float64).reshape(len(rows), len(ARTICLE))


def nil_features(found: Candidates) -> NDArray[np.float64]:
    """[len(NIL)]"""
    return np.array([1.0, _share(found.anchors.outside, found), float(found.anchors.total == 0)], np.float64)


def _share(links: int, found: Candidates) -> float:
    everything = found.anchors.total + SMOOTHING * (len(found.articles) + 1)
    return math.log((links + SMOOTHING) / everything)


def _row(candidate: Candidate, found: Candidates, rarity: dict[str, float]) -> Sequence[float]:
    title = candidate.passage.title
    brackets = _BRACKETS.search(title)
    whole = normal_name(title) in found.names
    part = not whole and not {*title_names(title), normal_name(title.partition(",")[0])}.isdisjoint(found.names)
    # What bears the name but in its title bears it as a redirect, which is as good.
    whole = whole or (candidate.named and not part)
    introduction = set(normal_name(candidate.passage.text).split())
    inside = set(normal_name(brackets.group(1)).split()) if brackets else set()
    all_words = sum(rarity.values())
    return (
        _share(candidate.anchored, found),
        float(candidate.anchored > 0 and not whole and not part),
        float(title == found.surface),
        float(whole),
        float(part),
        float(bool(inside & rarity.keys())),
        sum(weight for word, weight in rarity.items() if word in introduction) / all_words if all_words else 0.0,
        1 / candidate.rank if candidate.rank else 0.0,
    )
