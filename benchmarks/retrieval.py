"""Building a corpus and searching it: seconds, peak memory, size on disk, queries a second.

python benchmarks/retrieval.py --articles wikipedia.jsonl.zst --posts twitter2017/valid.txt
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import Row, save

from moreie.datasets import read_posts
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.query import post_query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("--posts", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus_folder = Path(folder) / "corpus"
        start = time.perf_counter()
        command = ["corpus", "build", str(corpus_folder), "--articles", str(arguments.articles)]
        subprocess.run([sys.executable, "-m", "moreie", *command], check=True, capture_output=True)
        taken = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        size = sum(f.stat().st_size for f in corpus_folder.rglob("*") if f.is_file()) / 1e6
        corpus = KnowledgeCorpus.open(corpus_folder)
        work = f"{corpus.manifest.articles:,} articles, {corpus.manifest.sentences:,} sentences"
        queries = [post_query(p) for p in read_posts(arguments.posts)]
        corpus.search_sentences(queries[:50], 10)
        start = time.perf_counter()
        corpus.search_sentences(queries, 10)
        searching = time.perf_counter() - start
    save(
        "retrieval",
        [
            Row("corpus build: time", work, taken, "s"),
            Row("corpus build: peak memory", work, memory, "GB"),
            Row("corpus build: size on disk", work, size, "MB"),
            Row("text retrieval", f"{len(queries)} posts, k=10, {work}", len(queries) / searching, "queries/s"),
        ],
    )


if __name__ == "__main__":
    main()
