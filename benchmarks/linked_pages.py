"""Links of a corpus' pages as mentions whose article is known, with what their own page says hidden (`linking.py`)."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from moreie.datasets import post_from_text
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.names import normal_name
from moreie.knowledge.sentences import split_sentences
from moreie.knowledge.stores.store import PASSAGES
from moreie.linking.anchors import OUTSIDE, AnchorCounts, Anchors, AnchorStatistics
from moreie.linking.candidates import Candidate, Candidates, MentionsInText, gather
from moreie.linking.counting import called_otherwise, page_title
from moreie.retrieval.filters import Filtered
from moreie.retrieval.text import TextRetriever
from moreie.schema import Mention

K = 10
LINKS_PER_PAGE = 40


@dataclass(frozen=True)
class Sentence:
    """A sentence with links in it: their offsets, the keys they lead to (OUTSIDE: no article of the corpus), titles."""

    page: str
    text: str
    spans: tuple[tuple[int, int], ...]
    keys: tuple[int, ...]
    titles: tuple[str, ...]


@dataclass(frozen=True)
class LinkedMention:
    """A link as a mention: its sentence, the title it leads to, whether the corpus has that, what it may refer to, and
    what is known of links elsewhere."""

    page: str
    text: str
    title: str
    here: bool
    found: Candidates
    anchors: AnchorStatistics


class NoLinks:
    """Anchors of a corpus without links, and the word frequencies of another's."""

    def __init__(self, other: AnchorStatistics):
        self.rarity = other.rarity

    def counts(self, name: str) -> AnchorCounts:
        return AnchorCounts()


class WithoutPage:
    """Anchors without the links of one page."""

    def __init__(self, anchors: Anchors, own: Mapping[tuple[str, int], int]):
        self.anchors, self.own, self.rarity = anchors, own, anchors.rarity

    def counts(self, name: str) -> AnchorCounts:
        found = self.anchors.counts(name)
        left = {key: n - self.own.get((name, key), 0) for key, n in found.targets.items()}
        outside = found.outside - self.own.get((name, OUTSIDE), 0)
        return AnchorCounts({key: n for key, n in left.items() if n > 0}, outside)


def share(text: str) -> float:
    """A number in [0, 1) that is always the same for a text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8


def read_links(corpus: KnowledgeCorpus) -> tuple[list[Sentence], dict[str, Counter[tuple[str, int]]], dict[int, str]]:
    """Sentences with links, the links of each page by name and key, titles by key."""
    rows = pa.concat_tables(corpus.scan(PASSAGES, ["key", "title", "text", "links"]))
    firsts = rows.select(["title", "key"]).group_by("title").aggregate([("key", "min")])
    firsts = firsts.rename_columns({"key_min": "key"})
    keys = dict(zip(firsts["title"].to_pylist(), firsts["key"].to_pylist(), strict=True))
    linked = [row for batch in rows.select(["title", "text", "links"]).to_batches() for row in _linked(batch)]
    targets = {page_title(link["target"]) for row in linked for link in row["links"]}
    lost = sorted(target for target in targets if target and target not in keys)
    others = called_otherwise(corpus, lost, firsts)
    own: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
    sentences = []
    for row in linked:
        placed = []
        for link in row["links"]:
            name, title = normal_name(row["text"][link["start"] : link["end"]]), page_title(link["target"])
            if name and title:
                key = keys.get(title, others.get(title, OUTSIDE))
                own[row["title"]][name, key] += 1
                placed.append((link["start"], link["end"], key, title))
        for start, end in split_sentences(row["text"]):
            text = row["text"][start:end]
            inside = [p for p in placed if start <= p[0] and p[1] <= end and _capital(row["text"][p[0]])]
            if inside:
                spans = tuple((a - start, b - start) for a, b, _, _ in inside)
                found = tuple(k for _, _, k, _ in inside), tuple(t for _, _, _, t in inside)
                sentences.append(Sentence(row["title"], text, spans, *found))
    return sentences, own, {key: title for title, key in keys.items()}


def _linked(batch: pa.RecordBatch) -> Iterator[dict]:
    return (row for row in batch.to_pylist() if row["links"])


def _capital(letter: str) -> bool:
    return letter.isupper() or letter.isdigit()


def chosen(sentences: Sequence[Sentence]) -> dict[str, list[Sentence]]:
    """By page sentences with `LINKS_PER_PAGE` links at most, spread over the page by chance that is always the same."""
    pages: dict[str, list[Sentence]] = defaultdict(list)
    for sentence in sorted(sentences, key=lambda s: share(s.text)):
        if sum(len(s.spans) for s in pages[sentence.page]) + len(sentence.spans) <= LINKS_PER_PAGE:
            pages[sentence.page].append(sentence)
    return pages


def with_evidence(corpus: KnowledgeCorpus, sentences: Sequence[Sentence]) -> list[MentionsInText]:
    """Sentences as posts with evidence, less what their own page says."""
    retriever = Filtered(TextRetriever(corpus, K + 5), K)
    found = retriever.retrieve([post_from_text(s.text, id=str(i)) for i, s in enumerate(sentences)])
    texts = []
    for sentence, retrieved in zip(sentences, found, strict=True):
        kept = [e for e in retrieved.evidence if e.passage.title != sentence.page]
        evidence = tuple(replace(e, rank=rank) for rank, e in enumerate(kept, 1))
        mentions = tuple(Mention(None, 0, 0, start, end) for start, end in sentence.spans)
        texts.append(MentionsInText(sentence.text, mentions, evidence))
    return texts


@dataclass(frozen=True)
class Held:
    """Everything that is judged: pages with their sentences as texts, own links, titles by key."""

    corpus: KnowledgeCorpus
    anchors: Anchors
    pages: Mapping[str, Sequence[tuple[Sentence, MentionsInText]]]
    own: Mapping[str, Mapping[tuple[str, int], int]]
    titles: Mapping[int, str]

    def links(self, pages: Sequence[str], *, counted: bool = True, evidence: bool = True) -> list[LinkedMention]:
        """Links of pages with their candidates and the anchors they are scored by."""
        found = []
        for page in pages:
            anchors = WithoutPage(self.anchors, self.own[page]) if counted else NoLinks(self.anchors)
            texts = [t if evidence else replace(t, evidence=()) for _, t in self.pages[page]]
            rows = zip(self.pages[page], texts, gather(self.corpus, anchors, texts), strict=True)
            for (sentence, _), text, row in rows:
                for key, title, candidates in zip(sentence.keys, sentence.titles, row, strict=True):
                    name, here = self.titles.get(key, title), key != OUTSIDE
                    found.append(LinkedMention(page, text.text, name, here, _once(candidates), anchors))
        return found


def _once(found: Candidates) -> Candidates:
    """Of articles with one title the first: some pages are in the corpus twice, from two sources."""
    titles: dict[str, Candidate] = {}
    for candidate in found.articles:
        titles.setdefault(candidate.passage.title, candidate)
    return replace(found, articles=tuple(titles.values()))


def removed(link: LinkedMention) -> LinkedMention:
    """The same link in a corpus that lacks its target."""
    gone = {c.key for c in link.found.articles if c.passage.title == link.title}
    counts = link.found.anchors
    outside = counts.outside + sum(n for key, n in counts.targets.items() if key in gone)
    left = AnchorCounts({key: n for key, n in counts.targets.items() if key not in gone}, outside)
    articles = tuple(c for c in link.found.articles if c.key not in gone)
    return replace(link, here=False, found=replace(link.found, anchors=left, articles=articles))


def both_ways(links: Sequence[LinkedMention]) -> list[LinkedMention]:
    """Links whose target the corpus has, as they are and in a corpus that lacks it: half of the answers are NIL."""
    here = [link for link in links if link.here]
    return [*here, *map(removed, here)]
