"""The text index beside bm25s, tantivy and exact BM25: build, size, memory, speed, agreement.

python benchmarks/text_index.py --corpus wiki --posts twitter2017/valid.txt [--sizes 1000000 4000000]

Sentences are those of the corpus; where more are asked for than it has, its paragraphs are added. Each engine runs in
processes of its own, in turns. Words are the same for all: lower case, accents folded, split at what is neither letter
nor digit. Ours and tantivy give back sentences with their texts, bm25s numbers alone. Memory is what a process
has for itself (RssAnon), and what of it came with opening the index and searching; pandas, which no engine needs but
pyarrow loads where it is installed, is kept out. The exact ranking is bm25s'
(`lucene`, k1 = 1.2, b = 0.75), which scores every sentence; a sentence found agrees with it if its exact score is at
least that of the exact tenth (of sentences with equal scores any may be found).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import regex
from rows import Row, save

from moreie.datasets import read_posts

K = 10
_WORD = regex.compile(r"[\p{L}\p{N}]+")
_ACCENT = regex.compile(r"\p{Mn}")
ENGINES = ("ours", "bm25s", "tantivy")


def words(text: str) -> list[str]:
    return _WORD.findall(_ACCENT.sub("", unicodedata.normalize("NFKD", text)).lower())


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


@dataclass(frozen=True)
class Engine:
    """Searches for one query, and for many on two threads."""

    one: Callable[[str], list[int]]
    many: Callable[[list[str]], object]


def on_threads(one: Callable[[str], list[int]]) -> Engine:
    def many(queries: list[str]) -> object:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, queries))

    return Engine(one, many)


def ours(folder: Path, texts: list[str]) -> Engine:
    import pyarrow as pa

    from moreie.knowledge.stores.embedded import EmbeddedReader, EmbeddedWriter
    from moreie.knowledge.stores.schemas import SENTENCE_ROWS
    from moreie.knowledge.stores.store import PASSAGES, SENTENCES

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
    reader = EmbeddedReader(folder, {SENTENCES: tables[SENTENCES], PASSAGES: tables[PASSAGES]}, threads=2)

    def many(queries: list[str]) -> list[list[int]]:
        found = reader.search_sentences(queries, K, introductions_only=False, all_words=False)
        return [[hit.passage for hit in hits] for hits in found]

    return Engine(lambda query: many([query])[0], many)


def bm25s_engine(folder: Path, texts: list[str]) -> Engine:
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

    def search(queries: list[str], threads: int) -> list[list[int]]:
        known = [[w for w in words(query) if w in retriever.vocab_dict] for query in queries]
        asked = [row for row in known if row]
        if not asked:
            return [[] for _ in queries]
        found = retriever.retrieve(asked, k=K, show_progress=False, n_threads=threads, sorted=True)
        rows = iter(zip(found.documents, found.scores, strict=True))
        return [[int(i) for i, s in zip(*next(rows), strict=True) if s > 0] if row else [] for row in known]

    return Engine(lambda query: search([query], 1)[0], lambda queries: search(queries, 2))


def tantivy_engine(folder: Path, texts: list[str]) -> Engine:
    import tantivy

    schema = tantivy.SchemaBuilder().add_text_field("sentence", stored=True, index_option="freq")
    schema = schema.add_integer_field("id", stored=True, indexed=False, fast=True).build()
    index = tantivy.Index(schema, path=str(folder))
    if texts:
        writer = index.writer(512_000_000, 2)
        for number, text in enumerate(texts):
            writer.add_document(tantivy.Document(sentence=" ".join(words(text)), id=number))
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
        documents = [searcher.doc(place) for _, place in found.hits]
        return [document["id"][0] for document in documents if document["sentence"][0]]

    return on_threads(search)


MAKE = {"ours": ours, "bm25s": bm25s_engine, "tantivy": tantivy_engine}


def queries_of(posts: Path) -> list[str]:
    return [" ".join(words(post.text)) for post in read_posts(posts)]


def build(engine: str, corpus: str, size: int, folder: Path) -> float:
    texts = list(sentences(corpus, size))
    start = time.perf_counter()
    MAKE[engine](folder, texts)
    return size / (time.perf_counter() - start)


def search(engine: str, posts: Path, size: int, folder: Path) -> dict[str, Any]:
    sys.modules["pandas"] = None  # type: ignore[assignment]
    queries = queries_of(posts)
    if engine == "bm25s":  # what comes with the library itself is not the index's
        import bm25s  # noqa: F401
        import numba  # noqa: F401
    elif engine == "tantivy":
        import tantivy  # noqa: F401
    else:
        import moreie.knowledge.stores.embedded  # noqa: F401
    imported = private_megabytes()
    opened = MAKE[engine](folder, [])
    for query in queries[:20]:
        opened.one(query)
    opened.many(queries[:20])
    taken, found = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(opened.one(query))
        taken.append(time.perf_counter() - start)
    start = time.perf_counter()
    opened.many(queries)
    both = len(queries) / (time.perf_counter() - start)
    memory = private_megabytes()
    return {
        "bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / size,
        "memory": memory,
        "own": memory - imported,
        "p50": 1e3 * float(np.percentile(taken, 50)),
        "p99": 1e3 * float(np.percentile(taken, 99)),
        "one": len(queries) / sum(taken),
        "two": both,
        "found": found,
    }


def agreement(posts: Path, folder: Path, found: dict[str, list[list[int]]]) -> dict[str, tuple[float, float]]:
    """For each engine the share of the exact first ten that it found, and of what it found the share that scores at
    least as much as the exact tenth."""
    import bm25s

    retriever = bm25s.BM25.load(folder, mmap=False)
    shares: dict[str, list[tuple[float, float]]] = {engine: [] for engine in found}
    for number, query in enumerate(queries_of(posts)):
        known = [retriever.vocab_dict[w] for w in words(query) if w in retriever.vocab_dict]
        exact = found["bm25s"][number]
        if not exact:
            continue
        scores = retriever.get_scores(known)
        tenth = float(scores[exact[-1]])
        for engine, rows in found.items():
            hits = rows[number][: len(exact)]
            good = sum(scores[hit] >= tenth * (1 - 1e-5) for hit in hits)
            shares[engine].append((len(set(hits) & set(exact)) / len(exact), float(good) / len(exact)))
    return {engine: tuple(np.mean(rows, axis=0).tolist()) for engine, rows in shares.items()}


UNITS = {
    "build": ("build", "sentences/s", True),
    "bytes": ("size on disk", "bytes/sentence", False),
    "memory": ("private memory of the process", "MB", False),
    "own": ("private memory of the index", "MB", False),
    "p50": ("query, median", "ms", False),
    "p99": ("query, 99th percentile", "ms", False),
    "one": ("queries, one thread", "queries/s", True),
    "two": ("queries, two threads", "queries/s", True),
}
TARGETS = {("one", "tantivy"): 1.0, ("two", "tantivy"): 1.0, ("memory", "bm25s"): 3.0, ("own", "bm25s"): 3.0}
ROUNDS = 3


def compared(work: str, results: dict[str, list[dict[str, Any]]]) -> list[Row]:
    rows = []
    for peer in ENGINES[1:]:
        for key, (label, unit, more_is_better) in UNITS.items():
            a, b = ([turn[key] for turn in results[engine]] for engine in ("ours", peer))
            ratios = sorted(x / y if more_is_better else y / x for x, y in zip(a, b, strict=True))
            mine, theirs = statistics.median(a), statistics.median(b)
            ratio = mine / theirs if more_is_better else theirs / mine
            target = TARGETS.get((key, peer))
            met = None if target is None else ratio >= target
            spread = (ratios[0], ratios[-1])
            rows.append(Row(f"text index: {label}", work, mine, unit, peer, theirs, ratio, spread, target, met))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        task, engine, size, folder = arguments.child
        if task == "build":
            print(json.dumps(build(engine, arguments.corpus, int(size), Path(folder))))
        elif task == "search":
            print(json.dumps(search(engine, arguments.posts, int(size), Path(folder))))
        else:
            found = json.loads(Path(engine).read_text())
            print(json.dumps(agreement(arguments.posts, Path(folder), found)))
        return

    def child(*what: object) -> Any:
        command = [sys.executable, __file__, "--corpus", arguments.corpus, "--posts", str(arguments.posts)]
        done = subprocess.run([*command, "--child", *map(str, what)], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    rows: list[Row] = []
    for size in arguments.sizes:
        results: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
        with tempfile.TemporaryDirectory() as place:
            folders = {engine: Path(place) / engine for engine in ENGINES}
            built = {}
            for engine, folder in folders.items():
                folder.mkdir()
                built[engine] = child("build", engine, size, folder)
            for _ in range(ROUNDS):
                for engine, folder in folders.items():
                    results[engine].append(child("search", engine, size, folder) | {"build": built[engine]})
                    shown = {k: round(v, 1) for k, v in results[engine][-1].items() if k != "found"}
                    print(engine, size, shown, flush=True)
            found = Path(place) / "found.json"
            found.write_text(json.dumps({engine: turns[0]["found"] for engine, turns in results.items()}))
            shares = child("agreement", found, size, folders["bm25s"])
        work = f"{size:,} sentences, queries of whole tweets, k={K}"
        rows += compared(work, results)
        for engine in ("ours", "tantivy"):
            target = 0.99 if engine == "ours" else None
            for label, share in zip(("same sentences", "ties counted as agreement"), shares[engine], strict=True):
                name = f"text index: top-10 of {engine} beside exact BM25, {label}"
                met = None if target is None else share >= target
                rows.append(Row(name, work, share, "share", target=target, met=met))
    save("text_index", rows)


if __name__ == "__main__":
    main()
