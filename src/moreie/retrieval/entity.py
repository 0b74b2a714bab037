"""Entity retrieval: the names in a post are asked for one by one, against titles and sentences (paper, §3.1.1,
"iterative entity retrieval"; the title match is exact here, where the paper boosts it)."""

from __future__ import annotations

from collections.abc import Sequence

from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.names import normal_name
from moreie.retrieval.names import Span, candidate_spans, known_names, mention_spans, unknown_names
from moreie.retrieval.query import post_query
from moreie.retrieval.retrieved import Retrieved, ranked
from moreie.schema import Mention, Passage, Post

# Of k passages so many at most are introductions of articles that the post names.
TITLE_SHARE = 0.6
# Sentences looked at for one that holds a name word by word.
NAME_HITS = 6
NAMES_PER_POST = 8
# Articles of one name that are compared with the post.
NAMESAKES = 5
_NOT_KEPT = "the corpus keeps no names of articles (`moreie corpus compact` adds them): found by sentences alone"


class EntityRetriever:
    """Introductions of the articles a post names, then sentences with its other names, then those of the whole post.

    With `mentions` (predicted ones, a row a post) those are the names; without, names are guessed from capitals,
    hashtags and the titles of the corpus.
    """

    name = "text"

    def __init__(self, corpus: KnowledgeCorpus, k: int = 10):
        self.corpus, self.k = corpus, k

    def retrieve(self, posts: Sequence[Post], mentions: Sequence[Sequence[Mention]] | None = None) -> list[Retrieved]:
        """k distinct paragraphs a post, all posts in three batches of queries."""
        spans = [candidate_spans(post) for post in posts]
        predicted = [mention_spans(p, m) for p, m in zip(posts, mentions, strict=True)] if mentions else None
        asked = {span.name for row in [*spans, *(predicted or [])] for span in row}
        found = self.corpus.named(sorted(asked))
        articles = found or {}
        most = round(TITLE_SHARE * self.k)
        known = [_known(row, predicted[i] if predicted else [], articles, most) for i, row in enumerate(spans)]
        names = [
            _unknown(post, known[i], predicted[i] if predicted else None)[:NAMES_PER_POST]
            for i, post in enumerate(posts)
        ]
        by_name = self._sentences(sorted({name for row in names for name in row}))
        by_post = self.corpus.search_sentences([post_query(post) for post in posts], self.k)
        warning = () if found is not None else (_NOT_KEPT,)
        results = []
        for i, post in enumerate(posts):
            introductions = [(_closest(articles[span.name], post), 0.0) for span in known[i]]
            rows = [introductions, *([hit] for name in names[i] if (hit := by_name.get(name))), by_post[i]]
            kept = _scored(_distinct(rows, self.k))
            nothing = () if kept else ("no text evidence found",)
            results.append(Retrieved(ranked(kept, self.name), (*warning, *nothing)))
        return results

    def _sentences(self, names: Sequence[str]) -> dict[str, tuple[Passage, float]]:
        """For each name the paragraph of a sentence that holds it word by word, or at least all or any of its words."""
        found: dict[str, tuple[Passage, float]] = {}
        for name, hits in zip(names, self.corpus.search_sentences(names, NAME_HITS, all_words=True), strict=True):
            if hits:
                found[name] = next((h for h in hits if f" {name} " in f" {normal_name(h[0].sentence or '')} "), hits[0])
        rest = [name for name in names if name not in found and " " in name]
        for name, hits in zip(rest, self.corpus.search_sentences(rest, 1), strict=True):
            if hits:
                found[name] = hits[0]
        return found


def _known(
    spans: Sequence[Span], predicted: Sequence[Span], articles: dict[str, list[Passage]], most: int
) -> list[Span]:
    first = [span for span in predicted if articles.get(span.name)]
    rest = known_names(spans, {name for name, found in articles.items() if found}, most)
    once = {span.name: span for span in (*rest, *first)}  # in the order of rest, unless predicted
    ordered = [*first, *(span for span in rest if span.name not in {s.name for s in first})]
    return [once[name] for name in dict.fromkeys(span.name for span in ordered)][:most]


def _unknown(post: Post, known: Sequence[Span], predicted: Sequence[Span] | None) -> list[str]:
    named = {span.name for span in known}
    first = [span.name for span in predicted or () if span.name not in named]
    return list(dict.fromkeys([*first, *unknown_names(post, known)]))


def _closest(namesakes: Sequence[Passage], post: Post) -> Passage:
    """Of articles of the same name the one whose introduction shares most words with the post."""
    if len(namesakes) == 1:
        return namesakes[0]
    words = set(normal_name(post.text).split())
    return max(namesakes[:NAMESAKES], key=lambda passage: len(words & set(normal_name(passage.text).split())))


def _distinct(rows: Sequence[Sequence[tuple[Passage, float]]], k: int) -> list[tuple[Passage, float]]:
    kept: dict[str, tuple[Passage, float]] = {}
    for row in rows:
        for passage, score in row:
            kept.setdefault(passage.id, (passage, score))
    return list(kept.values())[:k]


def _scored(found: Sequence[tuple[Passage, float]]) -> list[tuple[Passage, float]]:
    """BM25 scores of different queries do not compare: what counts is the order, so the score is 1 / rank."""
    return [(passage, 1 / rank) for rank, (passage, _) in enumerate(found, 1)]
