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


def _words(post: Post) -> list[str]:
    return [w.text for w in post.words if any(c.isalnum() for c in w.text) and not w.text.startswith("http")]


def _content(post: Post) -> list[str]:
    return [w for w in _words(post) if w.lower() not in ENGLISH_STOP_WORDS or (len(w) > 1 and w.isupper())]


VARIANTS: dict[str, Callable[[Post], str]] = {
    "all words": lambda post: " ".join(_words(post)),
    "all words, #CamelCase split": lambda post: " ".join(p for w in _words(post) for p in split_case(w)),
    "without function words": lambda post: " ".join(_content(post)),
    "ours: also split, capitalised words twice": post_query,
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
