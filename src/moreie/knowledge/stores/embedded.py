"""The embedded store: LanceDB tables in a folder, k-NN by Faiss over the vectors kept in tables.

BM25 has k1 = 1.2, b = 0.75 over the words of `stores.words`.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.background_loop import LOOP
from lancedb.index import FTS, Bitmap, BTree
from lancedb.query import FullTextOperator, MatchQuery
from numpy.typing import NDArray

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.manifest import Manifest, write_manifest
from moreie.knowledge.names import title_names
from moreie.knowledge.stores.rows import (
    FILE_ROWS,
    FILES,
    IMAGES,
    INTRODUCTIONS,
    NAME_ROWS,
    NAMES,
    PASSAGE_ROWS,
    PASSAGES,
    SENTENCE_ROWS,
    SENTENCES,
    VECTORS,
    ImageHit,
    SentenceHit,
    image_rows,
    introduction_rows,
    passage_of,
)
from moreie.knowledge.stores.vectors import (
    EXACT_LIMIT,
    ROWS_PER_READ,
    VectorSearch,
    build_index,
    index_file,
    unindexed,
)
from moreie.knowledge.stores.words import ANALYSIS
from moreie.knowledge.workers import available_cores
from moreie.schema import Passage

# So many rows added may stay outside an index; they are searched one by one.
UNINDEXED_ROWS = 20_000
# The rows of so many queries are read with each of them, those of more all at once, which costs a twentieth a query.
FEW = 4
BYTES_PER_WRITE = 128 << 20
T = TypeVar("T")


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
            _index_vectors(self._folder, IMAGES, self._tables[IMAGES])
        return {name: table.version for name, table in self._tables.items()}

    def _add(self, name: str, rows: pa.Table) -> None:
        # Many small pieces of a table would have to be compacted later.
        self._waiting[name].append(rows)
        if sum(table.nbytes for table in self._waiting[name]) > BYTES_PER_WRITE:
            self._flush(name)

    def _flush(self, name: str) -> None:
        if self._waiting[name]:
            _append(self._tables[name], pa.concat_tables(self._waiting[name]))
            self._waiting[name] = []


class EmbeddedEditor:
    """Changes the tables of a corpus that is being read: every change makes new versions beside the old ones.

    `tables`: the versions named by the manifest. What a change that was cut off left behind is set back first.
    """

    def __init__(self, folder: Path, tables: dict[str, int]):
        self._folder = folder
        self._database = lancedb.connect(folder)
        self._tables: dict[str, Any] = {}
        for name, version in tables.items():
            table = self._database.open_table(name)
            if table.version != version:
                table.checkout(version)
                table.restore()
            self._tables[name] = table
        self._grown: set[str] = set()
        self._indexed: dict[str, int] = {}

    def keys(self, articles: Iterable[str]) -> dict[str, list[int]]:
        """Passage keys of those of the article ids that are in the corpus."""
        found: dict[str, list[int]] = {}
        for part in _parts(sorted(set(articles))):
            query = self._tables[PASSAGES].search().where(f"article IN ({_quoted(part)})")
            rows = query.select(["article", "key"]).limit(None).to_arrow().to_pylist()
            for row in rows:
                found.setdefault(row["article"], []).append(row["key"])
        return {article: sorted(keys) for article, keys in found.items()}

    def introductions(self, articles: Sequence[str], titles: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """First passages of articles, by id and by title."""
        found: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for known, column, values in zip(found, ("article", "title"), (articles, titles), strict=True):
            for part in _parts(sorted(set(values))):
                query = self._tables[PASSAGES].search().where(f"{column} IN ({_quoted(part)})")
                for row in query.select([column, "key"]).limit(None).to_arrow().to_pylist():
                    known[row[column]] = min(row["key"], known.get(row[column], row["key"]))
        return found

    def remove(self, keys: Iterable[int], *, images: bool = True) -> None:
        """Remove passages with all that belongs to them, the pictures with `images` alone."""
        for part in _parts(sorted(set(keys))):
            listed = ",".join(map(str, part))
            self._tables[PASSAGES].delete(f"key IN ({listed})")
            for name in (SENTENCES, NAMES, FILES, INTRODUCTIONS, *([IMAGES] if images else [])):
                if name in self._tables:
                    self._tables[name].delete(f"passage IN ({listed})")

    def move_images(self, introductions: dict[int, int]) -> None:
        """Let the pictures of an introduction belong to another one (old key → new key)."""
        if IMAGES not in self._tables:
            return
        owned = self._tables[IMAGES].search().select(["passage"]).limit(None).to_arrow()["passage"].to_pylist()
        for old in set(owned) & introductions.keys():
            self._tables[IMAGES].update(where=f"passage = {old}", values={"passage": introductions[old]})

    def create_images(self, dimension: int) -> None:
        if IMAGES not in self._tables:
            self._tables[IMAGES] = self._database.create_table(IMAGES, schema=image_rows(dimension), mode="overwrite")

    def create_introductions(self, dimension: int) -> None:
        if INTRODUCTIONS not in self._tables:
            schema = introduction_rows(dimension)
            self._tables[INTRODUCTIONS] = self._database.create_table(INTRODUCTIONS, schema=schema, mode="overwrite")

    def create_names(self) -> None:
        """Give a corpus of an older version the names of its articles, from their titles."""
        if NAMES in self._tables:
            return
        table = self._database.create_table(NAMES, schema=NAME_ROWS, mode="overwrite")
        self._tables[NAMES] = table
        rows = self._tables[PASSAGES].search().select(["key", "article", "title"]).limit(None).to_arrow().sort_by("key")
        seen: set[str] = set()
        columns: dict[str, list[Any]] = {"name": [], "passage": [], "redirect": []}
        for row in rows.to_pylist():
            if row["article"] in seen:
                continue
            seen.add(row["article"])
            for name in title_names(row["title"]):
                columns["name"].append(name)
                columns["passage"].append(row["key"])
                columns["redirect"].append(False)
        _append(table, pa.table(columns, schema=NAME_ROWS))
        table.create_index("name", config=BTree())

    def add_passages(self, passages: pa.Table, sentences: pa.Table) -> None:
        _append(self._tables[PASSAGES], passages)
        _append(self._tables[SENTENCES], sentences)

    def add_names(self, names: pa.Table) -> None:
        if NAMES in self._tables:
            _append(self._tables[NAMES], names)

    def add_files(self, files: pa.Table) -> None:
        if len(files) and FILES not in self._tables:
            self._tables[FILES] = self._database.create_table(FILES, schema=FILE_ROWS, mode="overwrite")
        if FILES in self._tables:
            _append(self._tables[FILES], files)

    def add_images(self, images: pa.Table) -> None:
        """Add pictures; one that its article has already, by file name, is put in the old one's place."""
        table = self._tables[IMAGES]
        rows = table.merge_insert(["file", "passage"]).when_matched_update_all().when_not_matched_insert_all()
        rows.execute(images)
        self._grown.add(IMAGES)

    def embedded(self, keys: Iterable[int]) -> set[int]:
        found: set[int] = set()
        for part in _parts(sorted(set(keys))):
            query = self._tables[INTRODUCTIONS].search().where(f"passage IN ({','.join(map(str, part))})")
            found.update(query.select(["passage"]).limit(None).to_arrow()["passage"].to_pylist())
        return found

    def add_introductions(self, rows: Iterable[pa.Table]) -> None:
        table = self._tables[INTRODUCTIONS]
        batches = (batch for some in rows for batch in some.to_batches())
        table.add(pa.RecordBatchReader.from_batches(table.schema, batches))  # one version, however many batches
        self._grown.add(INTRODUCTIONS)

    def hold(self) -> None:
        """The lock on the folder holds by itself."""

    def pictures(self, files: Iterable[str]) -> set[tuple[str, int]]:
        """Pictures of these file names that are in the corpus, with their articles' first passages."""
        if IMAGES not in self._tables:
            return set()
        found: set[tuple[str, int]] = set()
        for part in _parts(sorted(set(files))):
            query = self._tables[IMAGES].search().where(f"file IN ({_quoted(part)})").select(["file", "passage"])
            rows = query.limit(None).to_arrow()
            found.update(zip(rows["file"].to_pylist(), rows["passage"].to_pylist(), strict=True))
        return found

    def counts(self) -> dict[str, int]:
        """Rows of each table as it stands now."""
        return {name: table.count_rows() for name, table in self._tables.items()}

    def finish(self) -> dict[str, int]:
        """Bring the indexes up to date where much was added; small additions are searched beside them."""
        for name, index in ((SENTENCES, "sentence_idx"), (PASSAGES, "key_idx"), (NAMES, "name_idx")):
            if name not in self._tables:
                continue
            table = self._tables[name]
            statistics = table.index_stats(index)
            if statistics is None or statistics.num_unindexed_rows > UNINDEXED_ROWS:
                _optimize(table, None)
        for name in self._grown:
            ids = _ids(self._tables[name].search().with_row_id(True).select(["passage"]).limit(None).to_arrow())
            if len(ids) > EXACT_LIMIT and unindexed(ids, self._folder / index_file(name)) > UNINDEXED_ROWS:
                self._index_vectors(name)
        return {name: table.version for name, table in self._tables.items()}

    def commit(self, manifest: Manifest) -> None:
        """Let readers see the change."""
        write_manifest(self._folder, manifest)

    def compact(self, older_than: timedelta) -> dict[str, int]:
        """Rewrite small files and removed rows, bring the indexes up to date, and forget versions `older_than` this."""
        for table in self._tables.values():
            _optimize(table, older_than)
        for name in VECTORS:
            if name in self._tables:
                self._index_vectors(name)
        return {name: table.version for name, table in self._tables.items()}

    def _index_vectors(self, name: str) -> None:
        version = self._tables[name].version
        if self._indexed.get(name) != version:
            _index_vectors(self._folder, name, self._tables[name])
            self._indexed[name] = version


def _optimize(table: Any, older_than: timedelta | None) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="optimize")
        table.optimize(cleanup_older_than=older_than)


def _parts(values: Sequence[T], size: int = 1_000) -> Iterator[Sequence[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _quoted(values: Iterable[str]) -> str:
    return ",".join("'" + value.replace("'", "''") + "'" for value in values)


def _match(query: str, all_words: bool) -> Any:
    # A match query takes any text: there is no syntax that a post could break.
    operator = FullTextOperator.AND if all_words else FullTextOperator.OR
    return MatchQuery(query, "sentence", operator=operator)  # type: ignore[call-arg]


def _append(table: Any, rows: pa.Table) -> None:
    if len(rows):
        table.add(rows)


def _index_vectors(folder: Path, name: str, table: Any) -> None:
    """Make the vector index of a table that is large enough to need one."""
    count, path = table.count_rows(), folder / index_file(name)
    if count <= EXACT_LIMIT:
        path.unlink(missing_ok=True)
        return
    batches = table.search().with_row_id(True).select(["vector"]).limit(None).to_batches(ROWS_PER_READ)
    build_index(((_ids(batch), _matrix(batch["vector"])) for batch in batches), count, path)


def _vectors(table: Any, ids: NDArray[np.int64], some: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Vectors [N, D] of rows in the order of their ids, of all rows (None) or of some."""
    if some is None:
        rows = table.search().with_row_id(True).select(["vector"]).limit(None).to_arrow()
    else:
        rows = table.take_row_ids(some.tolist()).with_row_id().select(["vector"]).to_arrow()
    places = {id: place for place, id in enumerate(_ids(rows).tolist())}
    order = [places[id] for id in (ids if some is None else some).tolist()]
    return _matrix(rows["vector"].combine_chunks())[order]


def _ids(rows: Any) -> NDArray[np.int64]:
    return np.asarray(rows["_rowid"]).astype(np.int64)


def _tuples(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _matrix(vectors: Any) -> NDArray[np.float32]:
    return np.asarray(vectors.flatten()).astype(np.float32).reshape(len(vectors), -1)


def _batches(table: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    batches: Iterator[pa.RecordBatch] = table.search().select(list(columns)).limit(None).to_batches(ROWS_PER_READ)
    return batches


class EmbeddedReader:
    """One state of a corpus folder. `tables`: the versions named by the manifest."""

    def __init__(self, folder: Path, tables: dict[str, int], threads: int | None = None):
        self._folder = folder
        self._session = lancedb.Session()  # one cache for both ways of asking
        database = lancedb.connect(folder, session=self._session)
        self._tables: dict[str, Any] = {}
        self._sentences: Any = None
        self._version = tables[SENTENCES]
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
            return [[] if rows is None else [SentenceHit(*row) for row in _tuples(rows)] for rows in found]
        found = LOOP.run(self._found(queries, k, introductions_only, all_words, ["_rowid", "_score"]))  # type: ignore[no-untyped-call]
        ranked = [[] if rows is None else list(_tuples(rows)) for rows in found]
        wanted = sorted({row for hits in ranked for row, _ in hits})
        if not wanted:
            return [[] for _ in queries]
        table = self._tables[SENTENCES].take_row_ids(wanted).with_row_id().select(["passage", "sentence"]).to_arrow()
        rows = _tuples(table.select(["_rowid", "passage", "sentence"]))
        read = {row: (passage, sentence) for row, passage, sentence in rows}
        return [[SentenceHit(*read[row], score) for row, score in hits] for hits in ranked]

    async def _found(
        self, queries: Sequence[str], k: int, introductions_only: bool, all_words: bool, columns: Sequence[str]
    ) -> list[pa.Table | None]:
        """Columns of each query's k best sentences, `threads` queries at a time; None for an empty query."""
        table = await self._searched()
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

    async def _searched(self) -> Any:
        """The sentences for the engine's asynchronous calls, which cost a millisecond less each than the others."""
        if self._sentences is None:
            database = await lancedb.connect_async(self._folder, session=self._session)
            table = await database.open_table(SENTENCES)
            await table.checkout(self._version)
            self._sentences = table
        return self._sentences

    def passages(self, keys: Sequence[int]) -> dict[int, Passage]:
        if not keys:
            return {}
        wanted = ",".join(str(int(key)) for key in sorted(set(keys)))
        found = self._tables[PASSAGES].search().where(f"key IN ({wanted})").limit(len(keys)).to_arrow()
        return {row["key"]: passage_of(row) for row in found.to_pylist()}

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        opened = self._tables[table]
        if table != PASSAGES:
            yield from (pa.Table.from_batches([batch]) for batch in _batches(opened, columns) if len(batch))
            return
        last = max((max(b["key"].to_pylist()) for b in _batches(opened, ["key"]) if len(b)), default=-1)
        for start in range(0, last + 1, ROWS_PER_READ):
            within = f"key >= {start} AND key < {start + ROWS_PER_READ}"
            rows = opened.search().where(within).select(sorted({"key", *columns})).limit(None).to_arrow()
            yield rows.sort_by("key").select(list(columns))

    def names(self, names: Sequence[str]) -> dict[str, list[int]] | None:
        if NAMES not in self._tables:
            return None
        found: dict[str, list[tuple[bool, int]]] = {}
        for part in _parts(sorted(set(names)), 5_000):
            rows = self._tables[NAMES].search().where(f"name IN ({_quoted(part)})").limit(None).to_arrow()
            columns = (rows[field].to_pylist() for field in ("name", "redirect", "passage"))
            for name, redirect, passage in zip(*columns, strict=True):
                found.setdefault(name, []).append((redirect, passage))
        return {name: list(dict.fromkeys(passage for _, passage in sorted(rows))) for name, rows in found.items()}

    def _opened(self, name: str, columns: Sequence[str]) -> tuple[pa.Table, VectorSearch]:
        """Columns of a table of vectors, and a search over the vectors of the same rows."""
        table = self._tables[name]
        rows = table.search().with_row_id(True).select(list(columns)).limit(None).to_arrow()
        ids = _ids(rows)
        search = VectorSearch(ids, lambda some: _vectors(table, ids, some), self._folder / index_file(name))
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
        names = _quoted(sorted(set(files)))
        table = self._tables[IMAGES]
        found = table.search().where(f"file IN ({names})").select(["file", "thumbnail"]).limit(len(files)).to_arrow()
        return dict(zip(found["file"].to_pylist(), found["thumbnail"].to_pylist(), strict=True))
