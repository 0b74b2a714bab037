"""A corpus in Milvus beside the same corpus in a folder: the same results? Build and search rates of both.

python benchmarks/engines.py --articles wikipedia.jsonl.zst --posts twitter2017/valid.txt [--first 20000]

Milvus is a `milvus-lite` server, spoken to over gRPC: once with segments so large that the corpus is one, which is how
Milvus weighs words (over a whole shard), and once as it comes, where each segment has weights of its own. A hit ties
when its score is no better than that of the other list's last hit, within the tolerance that
`tests/knowledge/test_stores.py` states.
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zstandard
from rows import Row, save

from moreie.datasets import read_posts
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.entity import EntityRetriever
from moreie.retrieval.retrieved import Retrieved
from moreie.retrieval.text import TextRetriever
from moreie.schema import Post

K = 10
TOLERANCE = 0.001
WHOLE = {"MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": str(8 << 30), "MILVUS_LITE_WAL_SIZE_LIMIT_BYTES": str(16 << 30)}


@contextmanager
def milvus(folder: Path, settings: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], env={**os.environ, **settings}, **quiet
    )
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise SystemExit("milvus-lite ended at once")
            time.sleep(0.2)
        yield f"milvus://127.0.0.1:{port}/bench"
    finally:
        process.terminate()
        process.wait(60)


def build(location: str, articles: Path) -> tuple[KnowledgeCorpus, float]:
    """The corpus, and seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "moreie", "corpus", "build", location, "--articles", str(articles)]
    subprocess.run(command, check=True, capture_output=True)
    return KnowledgeCorpus.open(location), time.perf_counter() - start


Search = type[TextRetriever] | type[EntityRetriever]


def searched(search: Search, corpus: KnowledgeCorpus, posts: Sequence[Post]) -> tuple[list[Retrieved], float]:
    """Results, and posts a second."""
    retriever = search(corpus, K)
    retriever.retrieve(posts[:5])  # indexes are read
    start = time.perf_counter()
    found = retriever.retrieve(posts)
    return found, len(posts) / (time.perf_counter() - start)


def agreement(ours: Sequence[Retrieved], theirs: Sequence[Retrieved]) -> dict[str, float]:
    overlap, tied, first, same = [], [], [], []
    for mine, other in zip(ours, theirs, strict=True):
        a, b = [e.passage.id for e in mine.evidence], [e.passage.id for e in other.evidence]
        if not a and not b:
            continue
        last = other.evidence[-1].score if b else 0.0
        ties = [e.passage.id in b or e.score <= last * (1 + TOLERANCE) for e in mine.evidence]
        overlap.append(len(set(a) & set(b)) / max(len(a), len(b)))
        tied.append(sum(ties) / max(len(a), len(b)))
        first.append(a[:1] == b[:1])
        same.append(a == b)
    names = ("top-10 overlap", "top-10 overlap, ties counted as the same", "the same first passage", "the same list")
    return {name: float(np.mean(shares)) for name, shares in zip(names, (overlap, tied, first, same), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--first", type=int, default=20_000, help="articles")
    parser.add_argument("--entity-posts", type=int, default=50, help="posts in mode entities")
    arguments = parser.parse_args()
    posts = list(read_posts(arguments.posts))
    few = posts[: arguments.entity_posts]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        articles = Path(place) / "articles.jsonl"
        with zstandard.open(arguments.articles, "rt", encoding="utf-8") as lines, articles.open("w") as out:
            out.writelines(itertools.islice(lines, arguments.first))
        folder, taken = build(str(Path(place) / "corpus"), articles)
        work = f"{folder.manifest.articles:,} articles, {folder.manifest.sentences:,} sentences"
        ours = {search: searched(search, folder, p) for search, p in ((TextRetriever, posts), (EntityRetriever, few))}
        for kind, settings in (("one segment", WHOLE), ("segments as they come", {})):
            peer = f"milvus-lite {version('milvus-lite')}, {kind}"
            with milvus(Path(place) / kind, settings) as location:
                clustered, their_time = build(location, articles)
                ratio = their_time / taken
                count = folder.manifest.sentences
                rates = (count / taken, "sentences/s", peer, count / their_time, ratio, (ratio, ratio))
                rows.append(Row("engines: build", work, *rates))
                modes = {"sentences": (TextRetriever, posts), "entities": (EntityRetriever, few)}
                for mode, (search, asked) in modes.items():
                    if mode == "entities" and settings is not WHOLE:
                        continue  # a scan of every sentence for each name: it takes long and says nothing new
                    (mine, our_rate), (theirs, their_rate) = ours[search], searched(search, clustered, asked)
                    ratio = our_rate / their_rate
                    asks = f"{len(asked)} posts, mode {mode}, k={K}, {work}"
                    spread = (ratio, ratio)
                    rows.append(Row("engines: retrieval", asks, our_rate, "posts/s", peer, their_rate, ratio, spread))
                    for name, share in agreement(mine, theirs).items():
                        if mode == "entities" and "ties" in name:
                            continue  # evidence of mode entities has ranks for scores
                        target = 0.99 if settings is WHOLE and "ties" in name else None
                        met = None if target is None else share >= target
                        label = f"engines: {name}, {kind}"
                        rows.append(Row(label, asks, share, "share", target=target, met=met))
    save("engines", rows)


if __name__ == "__main__":
    main()
