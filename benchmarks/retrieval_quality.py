"""Is what a post mentions in the evidence found for it? Each step of text retrieval, and its speed.

python benchmarks/retrieval_quality.py --corpus wiki --steps twitter2017/valid.txt --all twitter2017/test.txt …

(a) title: share of gold mentions that a title among the passages found is equal to, without case, accents, punctuation
and a last parenthesis. (b) text: share whose string occurs in a passage found or its title, in any case; loosely: also
without spaces and punctuation (`# MetGala` in "Met Gala"). Gold mentions are never part of a query. The ceilings are
what no retriever can pass: (a) mentions that the corpus has such a title for, (b) mentions whose string stands anywhere
in it (with --ceiling, which reads all of it and needs pyahocorasick). What is not measured again keeps its
result.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lancedb
import regex
from rows import Row, load, save
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from moreie.datasets import read_posts
from moreie.extractor import Extractor
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.names import title_names
from moreie.retrieval.entity import EntityRetriever
from moreie.retrieval.fusion import FusedRetriever
from moreie.retrieval.names import candidate_spans, known_names
from moreie.retrieval.query import split_case
from moreie.retrieval.rerank import Reranked, SentenceSimilarity
from moreie.retrieval.retrieved import Retrieved, Retriever, ranked
from moreie.retrieval.text import TextRetriever
from moreie.schema import Mention, Post
from moreie.shipped import IMAGE_ENCODER

K = 10
BATCH = 256
_SIGNS = regex.compile(r"[\W_]+")


def name_of(text: str) -> str:
    return (title_names(text) or ("",))[0]


@dataclass(frozen=True)
class QueryRetriever:
    """BM25 over sentences with any query."""

    corpus: KnowledgeCorpus
    query: Callable[[Post], str]
    name: str = "text"

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        found = self.corpus.search_sentences([self.query(post) for post in posts], K)
        return [Retrieved(ranked(hits, self.name)) for hits in found]


@dataclass(frozen=True)
class TitleRetriever:
    """Introductions of the articles a post names, alone."""

    corpus: KnowledgeCorpus
    name: str = "text"

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        spans = [candidate_spans(post) for post in posts]
        found = self.corpus.named(sorted({span.name for row in spans for span in row})) or {}
        chosen = [known_names(row, found.keys(), K) for row in spans]
        return [Retrieved(ranked([(found[s.name][0], 1.0) for s in row], self.name)) for row in chosen]


class Iterative:
    """Entity retrieval with the mentions that a model without evidence predicts, beforehand: `moreie extract` needs
    them anyway, and their time is not counted."""

    name = "text"

    def __init__(self, corpus: KnowledgeCorpus, k: int = K):
        self.entities, self.extractor = EntityRetriever(corpus, k), Extractor.from_pretrained()
        self.mentions: dict[str, Sequence[Mention]] = {}

    def predict(self, posts: Sequence[Post]) -> None:
        for first in range(0, len(posts), BATCH):
            part = posts[first : first + BATCH]
            self.mentions.update(zip((p.id for p in part), self.extractor.mentions_alone(part), strict=True))

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        return self.entities.retrieve(posts, [self.mentions[post.id] for post in posts])


def plain(post: Post) -> str:
    kept = []
    for word in (w.text for w in post.words):
        if word.startswith("http") or word == "RT":
            continue
        tagged = word[0] in "#@" and len(word) > 1
        kept.append(" ".join(split_case(word[1:])) if tagged else word)
    return " ".join(kept)


def content(post: Post) -> str:
    return " ".join(
        w for w in plain(post).split() if w.lower() not in ENGLISH_STOP_WORDS or (len(w) > 1 and w.isupper())
    )


def shares(posts: Sequence[Post], found: Sequence[Retrieved]) -> tuple[float, float, float]:
    titles = exact = loose = total = 0
    for post, retrieved in zip(posts, found, strict=True):
        names = {name_of(e.passage.title) for e in retrieved.evidence}
        text = "\n".join(f"{e.passage.title}\n{e.passage.text}" for e in retrieved.evidence).lower()
        joined = _SIGNS.sub("", text)
        for mention in post.mentions or ():
            surface = post.surface(mention).lower()
            total += 1
            titles += name_of(surface) in names
            exact += surface in text
            loose += surface in text or _SIGNS.sub("", surface) in joined
    return titles / total, exact / total, loose / total


def run(retriever: Retriever, posts: Sequence[Post]) -> tuple[list[Retrieved], float]:
    retriever.retrieve(posts[:64])
    start = time.perf_counter()
    found: list[Retrieved] = []
    for first in range(0, len(posts), BATCH):
        found += retriever.retrieve(posts[first : first + BATCH])
    return found, len(posts) / (time.perf_counter() - start)


def ceilings(corpus: KnowledgeCorpus, posts: Sequence[Post]) -> tuple[float, float]:
    import ahocorasick

    mentions = [post.surface(m) for post in posts for m in post.mentions or ()]
    named = corpus.named(sorted({name_of(m) for m in mentions})) or {}
    titled = {name for name, found in named.items() if any(name_of(p.title) == name for p in found)}
    automaton = ahocorasick.Automaton()
    for mention in {m.lower() for m in mentions}:
        automaton.add_word(mention, mention)
    automaton.make_automaton()
    there: set[str] = set()
    table = lancedb.connect(corpus.location).open_table("passages").search().select(["title", "text"]).limit(None)
    for batch in table.to_batches():
        for column in ("title", "text"):
            for text in batch[column].to_pylist():
                there.update(found for _, found in automaton.iter(text.lower()))
    total = len(mentions)
    return sum(name_of(m) in titled for m in mentions) / total, sum(m.lower() in there for m in mentions) / total


def measured(label: str, work: str, posts: Sequence[Post], retriever: Retriever, base: float | None) -> list[Row]:
    found, speed = run(retriever, posts)
    title, exact, loose = shares(posts, found)
    ratio = None if base is None else speed / base
    rows = [
        Row(f"{label}: (a) title", work, title, "share of gold mentions"),
        Row(f"{label}: (b) text", work, exact, "share of gold mentions"),
        Row(f"{label}: (b) loosely", work, loose, "share of gold mentions"),
        Row(
            f"{label}: speed",
            work,
            speed,
            "posts/s",
            peer=None if base is None else "plain query",
            theirs=base,
            ratio=ratio,
            spread=None if ratio is None else (ratio, ratio),
            target=None if base is None else 0.5,
            met=None if ratio is None else ratio >= 0.5,
        ),
    ]
    for row in rows:
        print(f"{row.name} | {row.work} | {row.ours:.3f} {row.unit}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--steps", type=Path, nargs="*", default=[], help="posts that every step is measured on")
    parser.add_argument("--all", type=Path, nargs="*", default=[], help="posts that the main steps are measured on")
    parser.add_argument("--ceiling", action="store_true")
    arguments = parser.parse_args()
    corpus = KnowledgeCorpus.open(arguments.corpus)
    iterative = Iterative(corpus)
    for path in (*arguments.steps, *arguments.all):
        rows: list[Row] = []
        posts = read_posts(path)
        mentions = sum(len(post.mentions or ()) for post in posts)
        work = f"{path.parent.name}/{path.stem}, {mentions:,} mentions"
        iterative.predict(posts)
        base = run(QueryRetriever(corpus, plain), posts)[1]
        steps: list[tuple[str, Retriever]] = [("1 plain query", QueryRetriever(corpus, plain))]
        if path in arguments.steps:
            steps += [("2 without function words", QueryRetriever(corpus, content))]
        steps += [("3 names twice (mode sentences)", TextRetriever(corpus, K))]
        if path in arguments.steps:
            titles, sentences = TitleRetriever(corpus), TextRetriever(corpus, K)
            steps += [
                ("4 titles alone", titles),
                ("5 titles and sentences fused", FusedRetriever((titles, sentences), K, (1.1, 1.0))),
            ]
        steps += [("6 entities (mode entities)", EntityRetriever(corpus, K)), ("7 entities, iterative", iterative)]
        if path in arguments.steps:
            scorer = SentenceSimilarity.from_pretrained(IMAGE_ENCODER.with_name("minilm"))
            fused = FusedRetriever((EntityRetriever(corpus, K), TextRetriever(corpus, K)), K)
            steps += [
                ("8 entities and sentences fused", fused),
                ("9 thirty of mode entities re-ranked by MiniLM", Reranked(EntityRetriever(corpus, 30), scorer, K)),
            ]
        for label, retriever in steps:
            rows += measured(label, work, posts, retriever, None if label.startswith("1") else base)
        if arguments.ceiling:
            title, text = ceilings(corpus, posts)
            rows += [
                Row("ceiling: (a) title", work, title, "share of gold mentions"),
                Row("ceiling: (b) text", work, text, "share of gold mentions"),
            ]
        measured_again = {(row.name, row.work) for row in rows}
        others = [row for row in load("retrieval_quality") if (row.name, row.work) not in measured_again]
        save("retrieval_quality", sorted([*others, *rows], key=lambda row: (row.work, row.name)))


if __name__ == "__main__":
    main()
