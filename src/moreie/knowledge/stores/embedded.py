"""The embedded store: LanceDB tables in a folder, k-NN by Faiss over the vectors kept in tables.

BM25 has k1 = 1.2, b = 0.75 over the words of `stores.words`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.stores.embedded_tables import (
    append,
    batches,
    index_vectors,
    parts,
    quoted,
    read_vectors,
    row_ids,
    tuples,
)
from moreie.knowledge.stores.lance import FTS, LOOP, Bitmap, BTree, FullTextOperator, MatchQuery, lancedb
from moreie.knowledge.stores.schemas import FILE_ROWS, NAME_ROWS, PASSAGE_ROWS, SENTENCE_ROWS, image_rows
from moreie.knowledge.stores.store import (
    FILES,
    IMAGES,
    INTRODUCTIONS,
    NAMES,
    PASSAGES,
    SENTENCES,
    ImageHit,
    SentenceHit,
    passage_of,
)
from moreie.knowledge.stores.vectors import (
    ROWS_PER_READ,
    VectorSearch,
    index_file,
)
from moreie.knowledge.stores.words import ANALYSIS
from moreie.knowledge.workers import available_cores
from moreie.schema import Passage

# The rows of so many queries are read with each of them, those of more all at once, which costs a twentieth a query.
FEW = 4
BYTES_PER_WRITE = 128 << 20


class EmbeddedWriter:
    """Creates the tables of a new corpus in `folder`. `dimension`: of image vectors, None for a corpus without."""

    def __init__(self, folder: Path, dimension: int | None):
        self._folder = folder
        database = lancedb.connect(folder)
        schemas = {PASSAGES: PASSAGE_ROWS, SENTENCES: SENTENCE_ROWS, NAMES: NAME_ROWS, FILES: FILE_ROWS}
        if dimension:
            schemas[IMAGES] = image_rows(dimension)
        self._tables = {name: database.create_table(name, schema=schema) for name, schema in schemas.items()}
        self._waiting: dict[str, list[pa.Table]] = {name: [] for name in schemas}

    def add_passages(self, passages: pa.Table, sentences: pa.Table) -> None:
        self._add(PASSAGES, passages)
        self._add(SENTENCES, sentences)

    def add_names(self, names: pa.Table) -> None:
        self._add(NAMES, names)

    def add_files(self, files: pa.Table) -> None:
        self._add(FILES, files)

    def add_images(self, images: pa.Table) -> None:
        if IMAGES not in self._tables:
            raise KnowledgeCorpusError("this corpus was begun without an image encoder, so it takes no images")
        self._add(IMAGES, images)

    def finish(self) -> dict[str, int]:
        for name in self._tables:
            self._flush(name)
        if self._tables[SENTENCES].count_rows():
            full_text = FTS(with_position=False, **ANALYSIS)
            self._tables[SENTENCES].create_index("sentence", config=full_text)
            self._tables[SENTENCES].create_index("introduction", config=Bitmap())
            self._tables[PASSAGES].create_index("key", config=BTree())
            self._tables[NAMES].create_index("name", config=BTree())
        if IMAGES in self._tables:
            index_vectors(self._folder, IMAGES, self._tables[IMAGES])
        return {name: table.version for name, table in self._tables.items()}

    def _add(self, name: str, rows: pa.Table) -> None:
        # Many small pieces of a table would have to be compacted later.
        self._waiting[name].append(rows)
        if sum(table.nbytes for table in self._waiting[name]) > BYTES_PER_WRITE:
            self._flush(name)

    def _flush(self, name: str) -> None:
        if self._waiting[name]:
            append(self._tables[name], pa.concat_tables(self._waiting[name]))
            self._waiting[name] = []


class EmbeddedReader:
    """One state of a corpus folder. `tables`: the versions named by the manifest."""

    def __init__(self, folder: Path, tables: dict[str, int], threads: int | None = None):
        self._folder = folder
        self._session = lancedb.Session()  # one cache for both ways of asking
        database = lancedb.connect(folder, session=self._session)
        self._tables: dict[str, Any] = {}
        self._asynchronous: dict[str, Any] = {}
        self._versions = dict(tables)
        for name, version in tables.items():
            try:
                table = database.open_table(name)
                table.checkout(version)
            except (ValueError, OSError, RuntimeError) as problem:
                raise KnowledgeCorpusError(
                    f"{folder}: table {name!r} version {version} is missing or damaged ({problem}); "
                    "restore the folder or build it again"
                ) from problem
            self._tables[name] = table
        self._threads = threads or available_cores()

    def search_sentences(
        self, queries: Sequence[str], k: int, *, introductions_only: bool, all_words: bool
    ) -> list[list[SentenceHit]]:
        if len(queries) <= FEW:
            found = LOOP.run(self._found(queries, k, introductions_only, all_words, ["passage", "sentence", "_score"]))  # type: ignore[no-untyped-call]
            return [[] if rows is None else [SentenceHit(*row) for row in tuples(rows)] for rows in found]
        found = LOOP.run(self._found(queries, k, introductions_only, all_words, ["_rowid", "_score"]))  # type: ignore[no-untyped-call]
        ranked = [[] if rows is None else list(tuples(rows)) for rows in found]
        wanted = sorted({row for hits in ranked for row, _ in hits})
        if not wanted:
            return [[] for _ in queries]
        table = self._tables[SENTENCES].take_row_ids(wanted).with_row_id().select(["passage", "sentence"]).to_arrow()
        rows = tuples(table.select(["_rowid", "passage", "sentence"]))
        read = {row: (passage, sentence) for row, passage, sentence in rows}
        return [[SentenceHit(*read[row], score) for row, score in hits] for hits in ranked]

    async def _found(
        self, queries: Sequence[str], k: int, introductions_only: bool, all_words: bool, columns: Sequence[str]
    ) -> list[pa.Table | None]:
        """Columns of each query's k best sentences, `threads` queries at a time; None for an empty query."""
        table = await self._opened_again(SENTENCES)
        free = asyncio.Semaphore(self._threads)

        async def search(query: str) -> pa.Table | None:
            if not query.strip():
                return None
            async with free:
                builder = table.query().nearest_to_text(_match(query, all_words)).limit(k)
                if introductions_only:
                    builder = builder.where("introduction")
                if "_rowid" in columns:
                    builder = builder.with_row_id()
                rows = await builder.select([name for name in columns if name != "_rowid"]).to_arrow()
            return rows.select(list(columns))

        return await asyncio.gather(*map(search, queries))

    async def _opened_again(self, name: str) -> Any:
        """A table for the engine's asynchronous calls, which cost a millisecond less each than the others."""
        if name not in self._asynchronous:
            database = await lancedb.connect_async(self._folder, session=self._session)
            table = await database.open_table(name)
            await table.checkout(self._versions[name])
            self._asynchronous[name] = table
        return self._asynchronous[name]

    def passages(self, keys: Sequence[int]) -> dict[int, Passage]:
        if not keys:
            return {}
        wanted = ",".join(str(int(key)) for key in sorted(set(keys)))
        found = LOOP.run(self._where(PASSAGES, f"key IN ({wanted})"))  # type: ignore[no-untyped-call]
        return {row["key"]: passage_of(row) for row in found.to_pylist()}

    async def _where(self, name: str, condition: str) -> pa.Table:
        table = await self._opened_again(name)
        return await table.query().where(condition).to_arrow()

    def article(self, id: str) -> dict[int, Passage]:
        rows = self._tables[PASSAGES].search().where(f"article = {quoted([id])}").limit(None).to_arrow()
        return {row["key"]: passage_of(row) for row in rows.sort_by("key").to_pylist()}

    def pictures(self, keys: Sequence[int]) -> list[tuple[str, str]]:
        if not keys or IMAGES not in self._tables:
            return []
        wanted = ",".join(str(int(key)) for key in keys)
        found = self._tables[IMAGES].search().where(f"passage IN ({wanted})").select(["file", "caption"]).limit(None)
        return list(tuples(found.to_arrow().select(["file", "caption"])))

    def redirects(self, key: int) -> list[str]:
        if NAMES not in self._tables:
            return []
        found = self._tables[NAMES].search().where(f"passage = {int(key)} AND redirect").select(["name"]).limit(None)
        return [str(name) for name in found.to_arrow()["name"].to_pylist()]

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        opened = self._tables[table]
        if table != PASSAGES:
            yield from (pa.Table.from_batches([batch]) for batch in batches(opened, columns) if len(batch))
            return
        last = max((max(b["key"].to_pylist()) for b in batches(opened, ["key"]) if len(b)), default=-1)
        for start in range(0, last + 1, ROWS_PER_READ):
            within = f"key >= {start} AND key < {start + ROWS_PER_READ}"
            rows = opened.search().where(within).select(sorted({"key", *columns})).limit(None).to_arrow()
            yield rows.sort_by("key").select(list(columns))

    def names(self, names: Sequence[str]) -> dict[str, list[int]] | None:
        if NAMES not in self._tables:
            return None
        found: dict[str, list[tuple[bool, int]]] = {}
        for part in parts(sorted(set(names)), 5_000):
            rows = self._tables[NAMES].search().where(f"name IN ({quoted(part)})").limit(None).to_arrow()
            columns = (rows[field].to_pylist() for field in ("name", "redirect", "passage"))
            for name, redirect, passage in zip(*columns, strict=True):
                found.setdefault(name, []).append((redirect, passage))
        return {name: list(dict.fromkeys(passage for _, passage in sorted(rows))) for name, rows in found.items()}

    def _opened(self, name: str, columns: Sequence[str]) -> tuple[pa.Table, VectorSearch]:
        """Columns of a table of vectors, and a search over the vectors of the same rows."""
        table = self._tables[name]
        rows = table.search().with_row_id(True).select(list(columns)).limit(None).to_arrow()
        ids = row_ids(rows)
        search = VectorSearch(ids, lambda some: read_vectors(table, ids, some), self._folder / index_file(name))
        return rows.select(list(columns)), search

    @cached_property
    def _images(self) -> tuple[list[str], NDArray[np.int64], VectorSearch]:
        rows, search = self._opened(IMAGES, ["file", "passage"])
        return rows["file"].to_pylist(), rows["passage"].to_numpy(), search

    @cached_property
    def _introductions(self) -> tuple[NDArray[np.int64], VectorSearch]:
        rows, search = self._opened(INTRODUCTIONS, ["passage"])
        return rows["passage"].to_numpy(), search

    def search_images(self, vectors: NDArray[np.float32], k: int) -> list[list[ImageHit]]:
        if not self._holds(IMAGES) or not len(vectors):
            return [[] for _ in vectors]
        files, passages, search = self._images
        return [[ImageHit(files[i], int(passages[i]), score) for i, score in row] for row in search.search(vectors, k)]

    def search_introductions(self, vectors: NDArray[np.float32], k: int) -> list[list[tuple[int, float]]]:
        if not self._holds(INTRODUCTIONS) or not len(vectors):
            return [[] for _ in vectors]
        passages, search = self._introductions
        return [[(int(passages[i]), score) for i, score in row] for row in search.search(vectors, k)]

    def count_introductions(self) -> int:
        return int(self._tables[PASSAGES].count_rows("introduction"))

    def _holds(self, name: str) -> bool:
        """Whether a table is there and has rows."""
        return name in self._tables and self._tables[name].count_rows() > 0

    def thumbnails(self, files: Sequence[str]) -> dict[str, bytes]:
        if IMAGES not in self._tables or not files:
            return {}
        names = quoted(sorted(set(files)))
        table = self._tables[IMAGES]
        found = table.search().where(f"file IN ({names})").select(["file", "thumbnail"]).limit(len(files)).to_arrow()
        return dict(zip(found["file"].to_pylist(), found["thumbnail"].to_pylist(), strict=True))


def _match(query: str, all_words: bool) -> Any:
    # A match query takes any text: there is no syntax that a post could break.
    operator = FullTextOperator.AND if all_words else FullTextOperator.OR
    return MatchQuery(query, "sentence", operator=operator)  # type: ignore[call-arg]
