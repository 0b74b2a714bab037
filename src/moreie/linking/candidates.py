"""Articles that a mention may refer to: those of its name, those that links of its text lead to, and those retrieved
for the post whose title is akin to it (`Merkel`, `NBA`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.names import title_names
from moreie.linking.anchors import AnchorCounts, AnchorStatistics
from moreie.linking.surfaces import surface_names
from moreie.schema import Evidence, Mention, Passage

# Articles weighed for one mention, those that most links lead to first.
MOST = 40


@dataclass(frozen=True, slots=True)
class MentionsInText:
    """A text, the mentions in it, and the evidence that was retrieved for it: what linking reads of a post."""

    text: str
    mentions: tuple[Mention, ...]
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An article by the introduction it is read by, the key of that, whether it bears the mention's name, the number of
    links of that name that lead to it, and the best rank it was retrieved with (None: it was not)."""

    passage: Passage
    key: int
    named: bool
    anchored: int
    rank: int | None


@dataclass(frozen=True, slots=True)
class Candidates:
    """What one mention may refer to. `names`: the forms it was looked up by; `anchors`: those of the first of its names
    that links have."""

    surface: str
    names: tuple[str, ...]
    anchors: AnchorCounts
    articles: tuple[Candidate, ...]


def gather(
    corpus: KnowledgeCorpus, anchors: AnchorStatistics, texts: Sequence[MentionsInText]
) -> list[list[Candidates]]:
    """The candidates of each mention of each text; the corpus is asked twice, however many there are: for names and for
    introductions."""
    names = [[surface_names(t.text[m.start : m.end]) for m in t.mentions] for t in texts]
    ranks = [_ranks(t.evidence) for t in texts]
    akin = [[_akin(t.evidence, own) for own in row] for t, row in zip(texts, names, strict=True)]
    asked = {name for row in names for own in row for name in own}
    titles = {title_names(title)[0] for row in akin for own in row for title in own.values() if title_names(title)}
    named = corpus.named_keys(sorted(asked | titles)) or {}
    counts = {name: anchors.counts(name) for name in asked}
    found = [
        [_keys(own, near, counts, named) for own, near in zip(*rows, strict=True)]
        for rows in zip(names, akin, strict=True)
    ]
    passages = corpus.passages(sorted({key for row in found for keys in row for key in (*keys.own, *keys.akin)}))
    return [
        [
            Candidates(
                t.text[m.start : m.end],
                own,
                _anchors(own, counts),
                _articles(keys, set(near), _anchors(own, counts), passages, ranked),
            )
            for m, own, keys, near in zip(t.mentions, names[i], found[i], akin[i], strict=True)
        ]
        for i, (t, ranked) in enumerate(zip(texts, ranks, strict=True))
    ]


def _ranks(evidence: Sequence[Evidence]) -> dict[str, int]:
    """The best rank of each article retrieved."""
    ranks: dict[str, int] = {}
    for e in evidence:
        ranks[e.passage.article_id] = min(e.rank, ranks.get(e.passage.article_id, e.rank))
    return ranks


def _akin(evidence: Sequence[Evidence], names: Sequence[str]) -> dict[str, str]:
    """Titles of retrieved articles by their ids, as far as a name is a part of the title, its initials, or holds it."""
    distinct = {e.passage.article_id: e.passage.title for e in evidence}
    return {article: title for article, title in distinct.items() if any(_is_akin(name, title) for name in names)}


def _is_akin(name: str, title: str) -> bool:
    words = set(name.split())
    written = next(iter(title_names(title)), "").split()
    initials = "".join(word[0] for word in written)
    part = words <= set(written) or (len(written) > 1 and set(written) <= words)
    return bool(written) and (part or (len(written) > 1 and name == initials))


@dataclass(frozen=True, slots=True)
class _Keys:
    """Introductions to be read: of the articles of a mention's names (`named`) and those that its links lead to (both
    `own`), and of those whose names are the titles of retrieved articles (`akin`)."""

    own: tuple[int, ...]
    akin: tuple[int, ...]
    named: frozenset[int]


def _keys(
    names: Sequence[str], akin: Mapping[str, str], counts: Mapping[str, AnchorCounts], named: Mapping[str, list[int]]
) -> _Keys:
    linked = _anchors(names, counts).targets
    by_links = sorted(linked, key=lambda key: (-linked[key], key))
    by_name = dict.fromkeys(key for name in names for key in named.get(name, ()))
    retrieved = (key for title in akin.values() for name in title_names(title)[:1] for key in named.get(name, ()))
    own = dict.fromkeys([*by_links[:MOST], *[*by_name][:MOST]])
    return _Keys(tuple(own), tuple(dict.fromkeys(key for key in retrieved if key not in own)), frozenset(by_name))


def _anchors(names: Sequence[str], counts: Mapping[str, AnchorCounts]) -> AnchorCounts:
    return next((counts[name] for name in names if counts[name].total), AnchorCounts())


def _articles(
    keys: _Keys, akin: set[str], anchors: AnchorCounts, passages: Mapping[int, Passage], ranks: Mapping[str, int]
) -> tuple[Candidate, ...]:
    found = []
    for key in (*keys.own, *keys.akin):
        passage = passages.get(key)
        # A retrieved article's namesakes are no candidates.
        if passage is not None and (key in keys.own or passage.article_id in akin):
            links, rank = anchors.targets.get(key, 0), ranks.get(passage.article_id)
            found.append(Candidate(passage, key, key in keys.named, links, rank))
    return tuple(found)
