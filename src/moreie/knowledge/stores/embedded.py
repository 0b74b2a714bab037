"""The embedded store: LanceDB tables in a folder, exact k-NN by Faiss over the vectors kept in a table.

BM25 has k1 = 1.2, b = 0.75 over words split at white space and punctuation, lower-cased, accents folded; no
stemming, no stop words.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import faiss
import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import FTS, Bitmap, BTree
from lancedb.query import MatchQuery
from numpy.typing import NDArray

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.stores.rows import ImageHit, ImageRows, PassageRows, SentenceHit, SentenceRows, passage_of
from moreie.schema import Passage

PASSAGES, SENTENCES, IMAGES = "passages", "sentences", "images"
# So many rows added may stay outside an index; they are searched one by one.
UNINDEXED_ROWS = 20_000
T = TypeVar("T")
_LINKS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("target", pa.string())]))
_PASSAGES = pa.schema(
    [
        ("key", pa.int64()),
        ("article", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("introduction", pa.bool_()),
        ("links", _LINKS),
        ("url", pa.string()),
    ]
)
_SENTENCES = pa.schema([("passage", pa.int64()), ("sentence", pa.string()), ("introduction", pa.bool_())])


def _image_schema(dimension: int) -> pa.Schema:
    return pa.schema(
        [
            ("file", pa.string()),
            ("passage", pa.int64()),
            ("caption", pa.string()),
            ("attribution", pa.string()),
            ("thumbnail", pa.binary()),
            ("vector", pa.list_(pa.float16(), dimension)),
        ]
    )


class EmbeddedWriter:
    """Creates the tables of a new corpus in `folder`. `dimension`: of image vectors, None for a corpus without."""

    def __init__(self, folder: Path, dimension: int | None):
        database = lancedb.connect(folder)
        self._passages = database.create_table(PASSAGES, schema=_PASSAGES)
        self._sentences = database.create_table(SENTENCES, schema=_SENTENCES)
        self._images = database.create_table(IMAGES, schema=_image_schema(dimension)) if dimension else None

    def add_passages(self, passages: PassageRows, sentences: SentenceRows) -> None:
        self._passages.add(_table(passages, _PASSAGES))
        self._sentences.add(_table(sentences, _SENTENCES))

    def add_images(self, images: ImageRows) -> None:
        if self._images is None:
            raise KnowledgeCorpusError("this corpus was begun without an image encoder, so it takes no images")
        self._images.add(_image_table(images, self._images.schema))

    def finish(self) -> dict[str, int]:
        tables = [t for t in (self._passages, self._sentences, self._images) if t is not None]
        for table in tables:  # batches written one by one are compacted; nobody reads a corpus yet unbuilt
            _optimize(table, timedelta(0), delete_unverified=True)
        if self._sentences.count_rows():
            full_text = FTS(base_tokenizer="simple", with_position=False, stem=False, remove_stop_words=False)
            self._sentences.create_index("sentence", config=full_text)
            self._sentences.create_index("introduction", config=Bitmap())
            self._passages.create_index("key", config=BTree())
        return {table.name: table.version for table in tables}


class EmbeddedEditor:
    """Changes the tables of a corpus that is being read: every change makes new versions beside the old ones.

    `tables`: the versions named by the manifest. What a change that was cut off left behind is set back first.
    """

    def __init__(self, folder: Path, tables: dict[str, int]):
        self._database = lancedb.connect(folder)
        self._tables: dict[str, Any] = {}
        for name, version in tables.items():
            table = self._database.open_table(name)
            if table.version != version:
                table.checkout(version)
                table.restore()
            self._tables[name] = table

    def keys(self, articles: Iterable[str]) -> dict[str, list[int]]:
        """Passage keys of those of the article ids that are in the corpus."""
        found: dict[str, list[int]] = {}
        for part in _parts(sorted(set(articles))):
            query = self._tables[PASSAGES].search().where(f"article IN ({_quoted(part)})")
            rows = query.select(["article", "key"]).limit(None).to_arrow().to_pylist()
            for row in rows:
                found.setdefault(row["article"], []).append(row["key"])
        return {article: sorted(keys) for article, keys in found.items()}

    def introductions(self, articles: Iterable[str], titles: Iterable[str]) -> dict[str, int]:
        """First passage key of articles, by `id:…` and `title:…`."""
        found: dict[str, int] = {}
        for prefix, column, values in (("id", "article", articles), ("title", "title", titles)):
            for part in _parts(sorted({v for v in values if v})):
                query = self._tables[PASSAGES].search().where(f"{column} IN ({_quoted(part)})")
                for row in query.select([column, "key"]).limit(None).to_arrow().to_pylist():
                    name = f"{prefix}:{row[column]}"
                    found[name] = min(row["key"], found.get(name, row["key"]))
        return found

    def remove(self, keys: Iterable[int], *, images: bool = True) -> None:
        """Remove passages with their sentences and, with `images`, the pictures that belong to them."""
        for part in _parts(sorted(set(keys))):
            listed = ",".join(map(str, part))
            self._tables[PASSAGES].delete(f"key IN ({listed})")
            self._tables[SENTENCES].delete(f"passage IN ({listed})")
            if images and IMAGES in self._tables:
                self._tables[IMAGES].delete(f"passage IN ({listed})")

    def move_images(self, introductions: dict[int, int]) -> None:
        """Let the pictures of an introduction belong to another one (old key → new key)."""
        if IMAGES not in self._tables:
            return
        owned = self._tables[IMAGES].search().select(["passage"]).limit(None).to_arrow()["passage"].to_pylist()
        for old in set(owned) & introductions.keys():
            self._tables[IMAGES].update(where=f"passage = {old}", values={"passage": introductions[old]})

    def create_images(self, dimension: int) -> None:
        if IMAGES not in self._tables:
            self._tables[IMAGES] = self._database.create_table(
                IMAGES, schema=_image_schema(dimension), mode="overwrite"
            )

    def add_passages(self, passages: PassageRows, sentences: SentenceRows) -> None:
        self._tables[PASSAGES].add(_table(passages, _PASSAGES))
        self._tables[SENTENCES].add(_table(sentences, _SENTENCES))

    def add_images(self, images: ImageRows) -> None:
        """Add pictures; one that its article has already, by file name, is put in the old one's place."""
        table = self._tables[IMAGES]
        rows = table.merge_insert(["file", "passage"]).when_matched_update_all().when_not_matched_insert_all()
        rows.execute(_image_table(images, table.schema))

    def counts(self) -> dict[str, int]:
        """Rows of each table as it stands now."""
        return {name: table.count_rows() for name, table in self._tables.items()}

    def finish(self) -> dict[str, int]:
        """Bring the indexes up to date where much was added; small additions are searched beside them."""
        for table, index in ((self._tables[SENTENCES], "sentence_idx"), (self._tables[PASSAGES], "key_idx")):
            statistics = table.index_stats(index)
            if statistics is None or statistics.num_unindexed_rows > UNINDEXED_ROWS:
                _optimize(table, None)
        return {name: table.version for name, table in self._tables.items()}

    def compact(self, older_than: timedelta) -> dict[str, int]:
        """Rewrite small files and removed rows, bring the indexes up to date, and forget versions `older_than` this."""
        for table in self._tables.values():
            _optimize(table, older_than)
        return {name: table.version for name, table in self._tables.items()}


def _optimize(table: Any, older_than: timedelta | None, *, delete_unverified: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="optimize")
        table.optimize(cleanup_older_than=older_than, delete_unverified=delete_unverified)


def _parts(values: Sequence[T], size: int = 1_000) -> Iterator[Sequence[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _quoted(values: Iterable[str]) -> str:
    return ",".join("'" + value.replace("'", "''") + "'" for value in values)


def _match(query: str) -> Any:
    # A match query takes any text: there is no syntax that a post could break.
    return MatchQuery(query, "sentence")  # type: ignore[call-arg]


def _image_table(images: ImageRows, schema: pa.Schema) -> pa.Table:
    columns = {name: getattr(images, name) for name in schema.names if name != "vector"}
    vectors = np.stack(images.vector).astype(np.float16)
    columns["vector"] = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    return pa.table(columns, schema=schema)


def _table(rows: PassageRows | SentenceRows, schema: pa.Schema) -> pa.Table:
    return pa.table({name: getattr(rows, name) for name in schema.names}, schema=schema)


class EmbeddedReader:
    """One state of a corpus folder. `tables`: the versions named by the manifest."""

    def __init__(self, folder: Path, tables: dict[str, int], threads: int = 2):
        database = lancedb.connect(folder)
        self._tables: dict[str, Any] = {}
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
        self._threads = threads

    def search_sentences(self, queries: Sequence[str], k: int, *, introductions_only: bool) -> list[list[SentenceHit]]:
        table = self._tables[SENTENCES]

        def search(query: str) -> list[SentenceHit]:
            if not query.strip():
                return []
            builder = table.search(_match(query), query_type="fts").limit(k)
            if introductions_only:
                builder = builder.where("introduction", prefilter=True)
            found = builder.select(["passage", "sentence", "_score"]).to_arrow()
            columns = (found[name].to_pylist() for name in ("passage", "sentence", "_score"))
            return [SentenceHit(*row) for row in zip(*columns, strict=True)]

        # The engine answers one query a call but releases the interpreter meanwhile.
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(search, queries))

    def passages(self, keys: Sequence[int]) -> dict[int, Passage]:
        if not keys:
            return {}
        wanted = ",".join(str(int(key)) for key in sorted(set(keys)))
        found = self._tables[PASSAGES].search().where(f"key IN ({wanted})").limit(len(keys)).to_arrow()
        return {row["key"]: passage_of(row) for row in found.to_pylist()}

    @cached_property
    def _image_columns(self) -> tuple[list[str], list[int], Any]:
        """File names, introduction keys, and a Faiss index over the vectors."""
        table = self._tables[IMAGES]
        columns = table.search().select(["file", "passage", "vector"]).limit(table.count_rows()).to_arrow()
        vectors = columns["vector"].combine_chunks()
        matrix = np.asarray(vectors.flatten()).astype(np.float32).reshape(len(columns), -1)
        index = faiss.IndexFlatIP(matrix.shape[1])
        index.add(matrix)
        return columns["file"].to_pylist(), columns["passage"].to_pylist(), index

    def search_images(self, vectors: NDArray[np.float32], k: int) -> list[list[ImageHit]]:
        if IMAGES not in self._tables or not len(vectors) or not self._tables[IMAGES].count_rows():
            return [[] for _ in vectors]
        files, passages, index = self._image_columns
        scores, rows = index.search(np.ascontiguousarray(vectors, dtype=np.float32), min(k, len(files)))
        return [
            [ImageHit(files[i], passages[i], float(s)) for i, s in zip(row, score, strict=True) if i >= 0]
            for row, score in zip(rows, scores, strict=True)
        ]

    def thumbnails(self, files: Sequence[str]) -> dict[str, bytes]:
        if IMAGES not in self._tables or not files:
            return {}
        names = _quoted(sorted(set(files)))
        table = self._tables[IMAGES]
        found = table.search().where(f"file IN ({names})").select(["file", "thumbnail"]).limit(len(files)).to_arrow()
        return dict(zip(found["file"].to_pylist(), found["thumbnail"].to_pylist(), strict=True))
