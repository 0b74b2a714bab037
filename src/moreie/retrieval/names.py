"""Names in a post, guessed without a model: runs of words that some article is called by, and capitalised words.

A post's names drown among its common words when all of it is one query; asked for one by one they are found.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from moreie.knowledge.names import normal_name
from moreie.retrieval.query import QUERY_WORDS, split_case
from moreie.retrieval.stop_words import STOP_WORDS
from moreie.schema import Mention, Post

LONGEST_NAME = 6  # words
# A hashtag or handle in lower case (`#kawhileonard`) is believed to be a name from so many letters on.
SHORTEST_JOINED = 6
_INSIDE_NAMES = frozenset(".'’&-–")


@dataclass(frozen=True, slots=True)
class Span:
    """Words [first, last) of a post, the normal form they are looked up by, the share of their content words that are
    capitalised, and the words themselves in lower case."""

    first: int
    last: int
    name: str
    capitalised: float
    written: str


@dataclass(frozen=True, slots=True)
class Name:
    """A name's normal form, and how the post writes it (in lower case)."""

    normal: str
    written: str


def candidate_spans(post: Post) -> list[Span]:
    """Runs of at most `LONGEST_NAME` words that could be a name."""
    words = _words(post)
    spans = []
    for first, word in enumerate(words):
        if not word:
            continue
        inside: list[str] = []
        for last in range(first, min(first + LONGEST_NAME + 3, len(words))):
            following = words[last]
            if following is None:
                break
            if not following:
                continue
            inside.append(following)
            if len(inside) > LONGEST_NAME:
                break
            spans += _spans(inside, first, last + 1, tagged=_tagged(post, first))
    return spans


def _tagged(post: Post, place: int) -> bool:
    """Is the word a hashtag or handle? Some data sets keep the sign as a word of its own."""
    return post.words[place].text[0] in "#@" or (place > 0 and post.words[place - 1].text in ("#", "@"))


def _words(post: Post) -> list[str | None]:
    """Each word without its sign: empty for punctuation, None for what parts names (links)."""
    words: list[str | None] = []
    for word in post.words[: 4 * QUERY_WORDS]:
        text = word.text.lstrip("#@").replace("_", " ").strip()
        words.append(None if text.startswith("http") or text == "RT" else text if normal_name(text) else "")
    return words


def _spans(words: Sequence[str], first: int, last: int, tagged: bool = False) -> list[Span]:
    name = normal_name(" ".join(words))
    content = [word for word in words if word.lower() not in STOP_WORDS]
    if not content or len(name) < 2 or name.replace(" ", "").isdigit():
        return []
    capitalised = sum(word[0].isupper() for word in content) / len(content)
    if len(words) == 1 and tagged and len(name) >= SHORTEST_JOINED:
        capitalised = max(capitalised, 0.5)
    written = " ".join(words).lower()
    spans = [Span(first, last, name, capitalised, written)]
    if len(words) == 1 and len(parts := split_case(words[0])) > 1:
        spans.append(Span(first, last, normal_name(" ".join(parts)), capitalised, written))
    return spans


def known_names(spans: Sequence[Span], known: Collection[str], most: int) -> list[Span]:
    """The spans that articles are called by: capitalised ones and those of several content words, the longest first
    where they overlap; at most `most`, the likeliest names first."""
    likely = [span for span in spans if span.name in known and _likely(span)]
    taken: list[Span] = []
    for span in sorted(likely, key=lambda s: (-s.name.count(" "), -s.capitalised, s.first)):
        if not any(other.first <= span.first and span.last <= other.last for other in taken):
            taken.append(span)
    taken.sort(key=lambda s: (-s.capitalised, -s.name.count(" "), -len(s.name), s.first))
    return taken[:most]


def _likely(span: Span) -> bool:
    words = span.name.split()
    several = len(words) > 1 and words[0] not in STOP_WORDS and words[-1] not in STOP_WORDS
    return span.capitalised >= 0.5 or several


def unknown_names(post: Post, known: Sequence[Span]) -> list[Name]:
    """Runs of capitalised words, less what articles of several words are called by."""
    words = _words(post)
    covered = {place for span in known if span.last - span.first > 1 for place in range(span.first, span.last)}
    single = {span.name for span in known}
    names: list[Name] = []
    run: list[str] = []
    for place, word in enumerate([*words, None]):
        if word and place not in covered and (word[0].isupper() or (word[0].isdigit() and run)):
            run += split_case(word) if " " not in word else word.split()
        elif word == "" and run and place < len(post.words) and post.words[place].text in _INSIDE_NAMES:
            continue
        else:
            names.append(_trimmed(run))
            run = []
    return [name for name in dict.fromkeys(names) if name.normal and name.normal not in single]


def _trimmed(run: list[str]) -> Name:
    """A run without function words at its ends; empty where nothing is left."""
    while run and run[0].lower() in STOP_WORDS:
        run = run[1:]
    while run and run[-1].lower() in STOP_WORDS:
        run = run[:-1]
    name = normal_name(" ".join(run))
    usable = len(name) > 1 and not name.replace(" ", "").isdigit()
    return Name(name if usable else "", " ".join(run).lower())


def mention_spans(post: Post, mentions: Sequence[Mention]) -> list[Span]:
    """Predicted mentions as spans, the most confident first."""
    spans = []
    for mention in sorted(mentions, key=lambda m: -m.confidence):
        words = [word for word in _words(post)[mention.first : mention.last + 1] if word]
        spans += _spans(words, mention.first, mention.last + 1) if words else []
    return spans
