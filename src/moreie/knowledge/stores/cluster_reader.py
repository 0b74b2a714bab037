"""One revision of a corpus in Milvus read: sentences and pictures searched, passages, names and thumbnails fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.stores.cluster import (
    ROWS_PER_CALL,
    TABLES,
    ClusterLocation,
    chunks,
    listed,
    loaded,
    spoken_to,
    visible,
)
from moreie.knowledge.stores.store import (
    IMAGES,
    INTRODUCTIONS,
    NAMES,
    PASSAGES,
    SENTENCES,
    VECTORS,
    ImageHit,
    SentenceHit,
    passage_of,
)
from moreie.knowledge.stores.words import plain_words
from moreie.schema import Passage

# Sentences looked at for those that hold every word of a query, before Milvus is asked for them alone: that is a call
# a query, this is one for many.
LOOKED_THROUGH = 100
PASSAGE_COLUMNS = ["key", "article", "title", "text", "introduction", "links", "url"]


class ClusterReader:
    """Reads one revision of a corpus; batches of queries go to the engine in one call."""

    def __init__(self, location: str, revision: int):
        self._where, self._revision = ClusterLocation.parse(location), revision
        self._client = self._where.client()
        self._here = {name for name in (*TABLES, *VECTORS) if loaded(self._client, self._where, name)}

    def _search(self, name: str, data: list[Any], field: str, k: int, columns: list[str], condition: str = "") -> Any:
        return self._client.search(
            self._where.collection(name),
            data=data,
            anns_field=field,
            limit=k,
            output_fields=columns,
            filter=visible(self._revision, condition),
        )

    def _query(self, name: str, condition: str, columns: list[str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._client.query(
            self._where.collection(name), filter=visible(self._revision, condition), output_fields=columns
        )
        return rows

    def search_sentences(
        self, queries: Sequence[str], k: int, *, introductions_only: bool, all_words: bool
    ) -> list[list[SentenceHit]]:
        written = [plain_words(query) for query in queries]
        asked = [i for i, words in enumerate(written) if words]
        condition = "introduction == true" if introductions_only else ""
        hits: list[list[SentenceHit]] = [[] for _ in queries]
        for part in chunks(asked, 256):
            limit = max(k, LOOKED_THROUGH) if all_words else k
            for i, found in zip(part, self._found([written[i] for i in part], limit, condition), strict=True):
                whole = [hit for hit, words in found if not all_words or _holds(words, written[i])]
                if len(whole) < k and len(found) == limit and all_words:
                    whole = [hit for hit, _ in self._found([written[i]], k, _all_words(written[i], condition))[0]]
                hits[i] = whole[:k]
        return hits

    def _found(self, written: list[str], k: int, condition: str) -> list[list[tuple[SentenceHit, str]]]:
        """The best sentences for each query, with their words; a query is written as its words."""
        rows = self._search(SENTENCES, written, "bm25", k, ["passage", "sentence", "words"], condition)
        # milvus-lite reports BM25 as a negative distance, a server as a score.
        return [
            [
                (SentenceHit(e["passage"], e["sentence"], abs(float(distance))), e["words"])
                for e, distance in ((hit["entity"], hit["distance"]) for hit in row)
            ]
            for row in rows
        ]

    def search_images(self, vectors: NDArray[np.float32], k: int) -> list[list[ImageHit]]:
        if IMAGES not in self._here or not len(vectors):
            return [[] for _ in vectors]
        rows = self._search(IMAGES, list(vectors.tolist()), "vector", k, ["file", "passage"])
        return [
            [ImageHit(hit["entity"]["file"], hit["entity"]["passage"], float(hit["distance"])) for hit in row]
            for row in rows
        ]

    def search_introductions(self, vectors: NDArray[np.float32], k: int) -> list[list[tuple[int, float]]]:
        if INTRODUCTIONS not in self._here or not len(vectors):
            return [[] for _ in vectors]
        rows = self._search(INTRODUCTIONS, list(vectors.tolist()), "vector", k, ["passage"])
        return [[(hit["entity"]["passage"], float(hit["distance"])) for hit in row] for row in rows]

    def count_introductions(self) -> int:
        return int(self._query(PASSAGES, "introduction == true", ["count(*)"])[0]["count(*)"])

    def passages(self, keys: Sequence[int]) -> dict[int, Passage]:
        found: dict[int, Passage] = {}
        for part in chunks(sorted(set(keys))):
            rows = self._query(PASSAGES, f"key in {part}", PASSAGE_COLUMNS)
            found.update((row["key"], passage_of(row)) for row in rows)
        return found

    def article(self, id: str) -> dict[int, Passage]:
        rows = self._query(PASSAGES, f"article in {listed([id])}", PASSAGE_COLUMNS)
        return {row["key"]: passage_of(row) for row in sorted(rows, key=lambda row: int(row["key"]))}

    def pictures(self, keys: Sequence[int]) -> list[tuple[str, str]]:
        if not keys or IMAGES not in self._here:
            return []
        rows = self._query(IMAGES, f"passage in {sorted(keys)}", ["file", "caption"])
        return [(row["file"], row["caption"]) for row in rows]

    def redirects(self, key: int) -> list[str]:
        return [row["name"] for row in self._query(NAMES, f"passage == {key} and redirect == true", ["name"])]

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        if table not in self._here:
            raise KnowledgeCorpusError(f"{self._where.uri}: collection {self._where.collection(table)} is missing")
        iterator = self._client.query_iterator(
            self._where.collection(table),
            batch_size=ROWS_PER_CALL,
            filter=visible(self._revision),
            output_fields=list(columns),
        )
        try:
            while rows := self._next(iterator):
                yield pa.Table.from_pylist([{name: row[name] for name in columns} for row in rows])
        finally:
            iterator.close()

    def _next(self, iterator: Any) -> Any:
        with spoken_to(self._where.uri):
            return iterator.next()

    def names(self, names: Sequence[str]) -> dict[str, list[int]] | None:
        found: dict[str, list[tuple[bool, int]]] = {}
        for part in chunks(sorted(set(names)), 500):
            rows = self._query(NAMES, f"name in {listed(part)}", ["name", "passage", "redirect"])
            for row in rows:
                found.setdefault(row["name"], []).append((row["redirect"], row["passage"]))
        return {name: list(dict.fromkeys(passage for _, passage in sorted(rows))) for name, rows in found.items()}

    def thumbnails(self, files: Sequence[str]) -> dict[str, bytes]:
        if IMAGES not in self._here or not files:
            return {}
        rows = self._query(IMAGES, f"file in {listed(sorted(set(files)))}", ["file", "thumbnail"])
        return {row["file"]: base64.b64decode(row["thumbnail"]) for row in rows}


def _holds(words: str, query: str) -> bool:
    return set(query.split()) <= set(words.split())


def _all_words(query: str, condition: str) -> str:
    # Words are ASCII letters and digits: nothing in them needs quoting.
    matches = [f"TEXT_MATCH(words, '{word}')" for word in dict.fromkeys(query.split())]
    return " and ".join([*([condition] if condition else []), *matches])
