"""What the query analysis of posts does to text retrieval: is what a post mentions in what is found?

python benchmarks/query_analysis.py --posts twitter2017/valid.txt --corpus wiki
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rows import Row, save
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from moreie.datasets import read_posts
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.query import post_query, split_case
from moreie.schema import Passage, Post


def _split(word: str) -> str:
    return " ".join(split_case(word.lstrip("#@").replace("_", " ")))


def _tokens(post: Post, *, urls: bool = True, rt: bool = True, tags: bool = False, handles: bool = False) -> list[str]:
    """Words of a post; some data sets keep the sign of a hashtag or handle as a word of its own."""
    kept = []
    words = [w.text for w in post.words]
    for before, word in zip(["", *words], words, strict=False):
        if (not urls and word.startswith("http")) or (not rt and word == "RT"):
            continue
        tag, handle = (word[0] == sign or before == sign for sign in "#@")
        kept.append(_split(word) if (tags and tag) or (handles and handle) else word)
    return kept


def _content(words: list[str]) -> list[str]:
    return [w for w in words if w.lower() not in ENGLISH_STOP_WORDS or (len(w) > 1 and w.isupper())]


VARIANTS: dict[str, Callable[[Post], str]] = {
    "every token": lambda post: " ".join(_tokens(post)),
    "without URLs": lambda post: " ".join(_tokens(post, urls=False)),
    "without RT": lambda post: " ".join(_tokens(post, rt=False)),
    "#CamelCase split": lambda post: " ".join(_tokens(post, tags=True)),
    "@Handles split": lambda post: " ".join(_tokens(post, handles=True)),
    "all four": lambda post: " ".join(_tokens(post, urls=False, rt=False, tags=True, handles=True)),
    "all four, without function words": lambda post: " ".join(
        _content(_tokens(post, urls=False, rt=False, tags=True, handles=True))
    ),
    "ours: also every CamelCase word split and kept, capitalised words twice": post_query,
}


def share_found(posts: Sequence[Post], found: Sequence[Sequence[tuple[Passage, float]]]) -> float:
    """Share of gold mentions whose text occurs, in any case, in one of the paragraphs found for their post."""
    hits = total = 0
    for post, rows in zip(posts, found, strict=True):
        text = "\n".join(passage.title + "\n" + passage.text for passage, _ in rows).lower()
        for mention in post.mentions or ():
            total += 1
            hits += post.surface(mention).lower() in text
    return hits / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("-k", type=int, default=10)
    arguments = parser.parse_args()
    posts = read_posts(arguments.posts)
    corpus = KnowledgeCorpus.open(arguments.corpus)
    corpus.search_sentences([post_query(p) for p in posts[:50]], arguments.k)
    rows = []
    work = (
        f"{len(posts)} posts of {arguments.posts.parent.name}, {corpus.manifest.articles:,} articles, k={arguments.k}"
    )
    for name, query in VARIANTS.items():
        queries = [query(p) for p in posts]
        start = time.perf_counter()
        found = corpus.search_sentences(queries, arguments.k)
        taken = time.perf_counter() - start
        rows.append(Row(f"query: {name}", work, share_found(posts, found), "share of gold mentions found"))
        rows.append(Row(f"query speed: {name}", work, len(posts) / taken, "queries/s"))
    save("query_analysis", rows)


if __name__ == "__main__":
    main()
