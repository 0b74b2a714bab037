"""The text index beside bm25s, tantivy and exact BM25: build, size, memory, speed, agreement.

python benchmarks/text_index.py --corpus wiki --posts twitter2017/valid.txt [--sizes 1000000 4000000]

Sentences are those of the corpus; where more are asked for than it has, its paragraphs are added. Each engine runs in a
process of its own. Words are the same for all: lower case, split at what is neither letter nor digit. The exact ranking
is bm25s' (`lucene`, k1 = 1.2, b = 0.75), which scores every sentence.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import regex
from rows import Row, save

from moreie.datasets import read_posts

K = 10
_WORD = regex.compile(r"[\p{L}\p{N}]+")
ENGINES = ("ours", "bm25s", "tantivy")


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def sentences(corpus: str, count: int) -> Iterator[str]:
    database = lancedb.connect(corpus)
    for table, column in (("sentences", "sentence"), ("passages", "text")):
        for batch in database.open_table(table).search().select([column]).limit(None).to_batches(50_000):
            for text in batch[column].to_pylist():
                yield text
                count -= 1
                if not count:
                    return


def private_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1e3


Search = Callable[[str], list[int]]


def ours(folder: Path, texts: list[str]) -> Search:
    from moreie.knowledge.stores.embedded import EmbeddedReader, EmbeddedWriter
    from moreie.knowledge.stores.rows import PASSAGES, SENTENCE_ROWS, SENTENCES

    pa = __import__("pyarrow")
    if texts:
        writer = EmbeddedWriter(folder, None)
        for start in range(0, len(texts), 50_000):
            part = texts[start : start + 50_000]
            columns = {
                "passage": range(start, start + len(part)),
                "sentence": part,
                "introduction": [False] * len(part),
            }
            writer._add(SENTENCES, pa.table({k: list(v) for k, v in columns.items()}, schema=SENTENCE_ROWS))
        tables = writer.finish()
        (folder / "tables.json").write_text(json.dumps(tables))
    tables = json.loads((folder / "tables.json").read_text())
    reader = EmbeddedReader(folder, {SENTENCES: tables[SENTENCES], PASSAGES: tables[PASSAGES]}, threads=1)
    return lambda query: [
        hit.passage for hit in reader.search_sentences([query], K, introductions_only=False, all_words=False)[0]
    ]


def bm25s_engine(folder: Path, texts: list[str]) -> Search:
    import bm25s

    if texts:
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(w, len(vocabulary)) for w in words(text)] for text in texts]
        retriever = bm25s.BM25(method="lucene", k1=1.2, b=0.75, backend="numba")
        retriever.index((ids, vocabulary), show_progress=False)
        retriever.save(folder)
    retriever = bm25s.BM25.load(folder, mmap=False)
    retriever.backend = "numba"
    retriever.activate_numba_scorer()

    def search(query: str) -> list[int]:
        known = [w for w in words(query) if w in retriever.vocab_dict]
        if not known:
            return []
        found = retriever.retrieve([known], k=K, show_progress=False, n_threads=1, sorted=True)
        return [int(i) for i, score in zip(found.documents[0], found.scores[0], strict=True) if score > 0]

    return search


def tantivy_engine(folder: Path, texts: list[str]) -> Search:
    import tantivy

    schema = tantivy.SchemaBuilder().add_text_field("sentence", stored=False, index_option="freq")
    schema = schema.add_integer_field("id", stored=True, indexed=False, fast=True).build()
    index = tantivy.Index(schema, path=str(folder))
    if texts:
        writer = index.writer(512_000_000, 2)
        for number, text in enumerate(texts):
            writer.add_document(tantivy.Document(sentence=text, id=number))
        writer.commit()
        writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def search(query: str) -> list[int]:
        terms = words(query)
        if not terms:
            return []
        clauses = [(tantivy.Occur.Should, tantivy.Query.term_query(schema, "sentence", w)) for w in terms]
        found = searcher.search(tantivy.Query.boolean_query(clauses), K)
        return [searcher.doc(place)["id"][0] for _, place in found.hits]

    return search


def measure(engine: str, corpus: str, posts: Path, size: int, folder: Path) -> dict[str, Any]:
    build = {"ours": ours, "bm25s": bm25s_engine, "tantivy": tantivy_engine}[engine]
    queries = [" ".join(words(post.text)) for post in read_posts(posts)]
    if not (folder / "built.json").exists():
        texts = list(sentences(corpus, size))
        start = time.perf_counter()
        build(folder, texts)
        (folder / "built.json").write_text(json.dumps(time.perf_counter() - start))
        return {}
    search = build(folder, [])
    for query in queries[:20]:
        search(query)
    taken, found = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(search(query))
        taken.append(time.perf_counter() - start)
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(search, queries))
    both = len(queries) / (time.perf_counter() - start)
    size_on_disk = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return {
        "build": size / json.loads((folder / "built.json").read_text()),
        "bytes": size_on_disk / size,
        "memory": private_megabytes(),
        "p50": 1e3 * float(np.percentile(taken, 50)),
        "p99": 1e3 * float(np.percentile(taken, 99)),
        "one": len(queries) / sum(taken),
        "two": both,
        "found": found,
    }


UNITS = {
    "build": ("build", "sentences/s", True),
    "bytes": ("size on disk", "bytes/sentence", False),
    "memory": ("private memory while searching", "MB", False),
    "p50": ("query, median", "ms", False),
    "p99": ("query, 99th percentile", "ms", False),
    "one": ("queries, one thread", "queries/s", True),
    "two": ("queries, two threads", "queries/s", True),
}
TARGETS = {("one", "tantivy"): 1.0, ("memory", "bm25s"): 3.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        engine, size, folder = arguments.child
        print(json.dumps(measure(engine, arguments.corpus, arguments.posts, int(size), Path(folder))))
        return
    rows: list[Row] = []
    for size in arguments.sizes:
        results: dict[str, dict[str, Any]] = {}
        with tempfile.TemporaryDirectory() as place:
            for engine in ENGINES:
                folder = Path(place) / engine
                folder.mkdir()
                child = [sys.executable, __file__, "--corpus", arguments.corpus, "--posts", str(arguments.posts)]
                for _ in range(2):  # built, then searched in a fresh process
                    command = [*child, "--child", engine, str(size), str(folder)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                results[engine] = json.loads(done.stdout.splitlines()[-1])
                print(engine, size, {k: v for k, v in results[engine].items() if k != "found"}, flush=True)
        work = f"{size:,} sentences, queries of whole tweets, k={K}"
        mine = results["ours"]
        for peer in ENGINES[1:]:
            for key, (label, unit, more_is_better) in UNITS.items():
                a, b = mine[key], results[peer][key]
                ratio = a / b if more_is_better else b / a
                target = TARGETS.get((key, peer))
                met = None if target is None else ratio >= target
                name = f"text index: {label}"
                rows.append(Row(name, work, a, unit, peer, b, ratio, (ratio, ratio), target, met))
        exact = results["bm25s"]["found"]
        for engine in ("ours", "tantivy"):
            pairs = zip(results[engine]["found"], exact, strict=True)
            overlap = float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs if b]))
            target = 0.99 if engine == "ours" else None
            rows.append(
                Row(
                    f"text index: top-10 overlap of {engine} with exact BM25",
                    work,
                    overlap,
                    "share",
                    target=target,
                    met=None if target is None else overlap >= target,
                )
            )
    save("text_index", rows)


if __name__ == "__main__":
    main()
