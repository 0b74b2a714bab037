"""Entity retrieval: the names in a post are asked for one by one, against titles and sentences (paper, §3.1.1,
"iterative entity retrieval"; the title match is exact here, where the paper boosts it)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.names import normal_name
from moreie.knowledge.stores.store import SentenceHit
from moreie.retrieval.names import Name, Span, candidate_spans, known_names, mention_spans, unknown_names
from moreie.retrieval.query import post_query
from moreie.retrieval.retrieved import Retrieved, ranked
from moreie.schema import Mention, Passage, Post

# Of k passages so many at most are introductions of articles that the post names.
TITLE_SHARE = 0.6
# Sentences looked at for one that holds a name as the post writes it.
NAME_HITS = 128
NAMES_PER_POST = 8
# Articles of one name that are compared with the post.
NAMESAKES = 5
Predict = Callable[[Sequence[Post]], Sequence[Sequence[Mention]]]
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
        introductions = [
            [_closest(articles[span.name], post) for span in row] for post, row in zip(posts, known, strict=True)
        ]
        names = [
            _unknown(post, known[i], predicted[i] if predicted else None)[:NAMES_PER_POST]
            for i, post in enumerate(posts)
        ]
        respelt = [_respelt(*pair) for pair in zip(known, introductions, strict=True)]
        by_name = self._sentences(names, respelt)
        by_post = self.corpus.search_sentences([post_query(post) for post in posts], self.k)
        warning = () if found is not None else (_NOT_KEPT,)
        results = []
        for i in range(len(posts)):
            kept = _distinct([*introductions[i], *by_name[i], *(passage for passage, _ in by_post[i])], self.k)
            nothing = () if kept else ("no text evidence found",)
            results.append(Retrieved(ranked(_scored(kept), self.name), (*warning, *nothing)))
        return results

    def _sentences(self, names: Sequence[Sequence[Name]], respelt: Sequence[Sequence[Name]]) -> list[list[Passage]]:
        """For each post and name the paragraph of a sentence that holds the name as the post writes it; for `names`
        also one of a sentence that holds it otherwise, or at least any of its words."""
        asked = sorted({name.normal for row in (*names, *respelt) for name in row})
        hits = dict(zip(asked, self.corpus.matching_sentences(asked, NAME_HITS), strict=True))
        rest = sorted({n.normal for row in names for n in row if not hits[n.normal] and " " in n.normal})
        loosely = dict(zip(rest, self.corpus.search_sentences(rest, 1), strict=True))
        chosen = [
            [*(_best(n, hits[n.normal]) for n in own), *(_as_written(n, hits[n.normal]) for n in other)]
            for own, other in zip(names, respelt, strict=True)
        ]
        passages = self.corpus.passages([hit.passage for row in chosen for hit in row if hit])
        results = []
        for own, row in zip(names, chosen, strict=True):
            found = [replace(passages[hit.passage], sentence=hit.sentence) for hit in row if hit]
            found += [passage for n in own for passage, _ in loosely.get(n.normal, [])]
            results.append(found)
        return results


class IterativeRetriever:
    """Iterative entity retrieval: the names are the mentions that `predict` finds in the posts without evidence."""

    name = "text"

    def __init__(self, corpus: KnowledgeCorpus, predict: Predict, k: int = 10):
        self.entities, self.predict = EntityRetriever(corpus, k), predict

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        """k distinct paragraphs a post."""
        return self.entities.retrieve(posts, self.predict(posts))


def _known(
    spans: Sequence[Span], predicted: Sequence[Span], articles: dict[str, list[Passage]], most: int
) -> list[Span]:
    first = [span for span in predicted if articles.get(span.name)]
    rest = known_names(spans, {name for name, found in articles.items() if found}, most)
    once = {span.name: span for span in (*rest, *first)}  # in the order of rest, unless predicted
    ordered = [*first, *(span for span in rest if span.name not in {s.name for s in first})]
    return [once[name] for name in dict.fromkeys(span.name for span in ordered)][:most]


def _unknown(post: Post, known: Sequence[Span], predicted: Sequence[Span] | None) -> list[Name]:
    named = {span.name for span in known}
    first = [Name(span.name, span.written) for span in predicted or () if span.name not in named]
    names: dict[str, Name] = {}
    for name in (*first, *unknown_names(post, known)):
        names.setdefault(name.normal, name)
    return list(names.values())


def _respelt(spans: Sequence[Span], introductions: Sequence[Passage]) -> list[Name]:
    """Names whose article's introduction writes them in another way than the post (`JLo`, `Beyonce`)."""
    return [
        Name(span.name, span.written)
        for span, passage in zip(spans, introductions, strict=True)
        if span.written not in f"{passage.title}\n{passage.text}".lower()
    ]


def _as_written(name: Name, hits: Sequence[SentenceHit]) -> SentenceHit | None:
    return next((hit for hit in hits if name.written in hit.sentence.lower()), None)


def _best(name: Name, hits: Sequence[SentenceHit]) -> SentenceHit | None:
    together = (hit for hit in hits if f" {name.normal} " in f" {normal_name(hit.sentence)} ")
    return _as_written(name, hits) or next(together, None) or (hits[0] if hits else None)


def _closest(namesakes: Sequence[Passage], post: Post) -> Passage:
    """Of articles of the same name the one whose introduction shares most words with the post."""
    if len(namesakes) == 1:
        return namesakes[0]
    words = set(normal_name(post.text).split())
    return max(namesakes[:NAMESAKES], key=lambda passage: len(words & set(normal_name(passage.text).split())))


def _distinct(passages: Sequence[Passage], k: int) -> list[Passage]:
    kept: dict[str, Passage] = {}
    for passage in passages:
        kept.setdefault(passage.id, passage)
    return list(kept.values())[:k]


def _scored(passages: Sequence[Passage]) -> list[tuple[Passage, float]]:
    """BM25 scores of different queries do not compare: what counts is the order, so the score is 1 / rank."""
    return [(passage, 1 / rank) for rank, passage in enumerate(passages, 1)]
