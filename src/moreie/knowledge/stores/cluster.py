"""The cluster store: the same rows in Milvus collections, BM25 and k-NN by its own engine.

A location is `milvus://host:port/name`, or `milvus:path/to/file.db` for an embedded `milvus-lite` file. The BM25
parameters are those of the embedded store; word splitting is Milvus' `standard` analyzer, so ranks differ slightly
where a word carries an apostrophe or accent.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from moreie.errors import KnowledgeCorpusError, MissingExtraError
from moreie.knowledge.manifest import Manifest
from moreie.knowledge.stores.rows import ImageHit, ImageRows, PassageRows, SentenceHit, SentenceRows, passage_of
from moreie.schema import Passage

PASSAGES, SENTENCES, IMAGES, MANIFEST = "passages", "sentences", "images", "manifest"
ROWS_PER_CALL = 2_000
LONGEST = 65_535  # bytes of a Milvus string
_NAME = re.compile(r"[A-Za-z_]\w*")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClusterLocation:
    """Where Milvus listens (or its file), and the prefix of the corpus' collections."""

    uri: str
    name: str

    @classmethod
    def parse(cls, location: str) -> ClusterLocation:
        """Raises `KnowledgeCorpusError` when `location` has neither documented form."""
        rest = location.removeprefix("milvus:")
        if rest.startswith("//"):
            address, _, name = rest[2:].partition("/")
            if address and _NAME.fullmatch(name):
                return cls(f"http://{address}", name)
        elif rest.endswith(".db"):
            return cls(rest, "corpus")
        raise KnowledgeCorpusError(f"{location}: expected milvus://host:port/name or milvus:path/to/file.db")


def _client(location: ClusterLocation) -> Any:
    try:
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException
    except ModuleNotFoundError as problem:
        raise MissingExtraError("cluster", "a corpus in Milvus") from problem
    try:
        return MilvusClient(location.uri, timeout=30)
    except (MilvusException, OSError) as problem:
        raise KnowledgeCorpusError(f"{location.uri}: no Milvus answers there ({problem})") from problem


def _chunks(rows: Iterable[T], size: int = ROWS_PER_CALL) -> Iterator[list[T]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


class ClusterWriter:
    """Creates a corpus' collections. `dimension`: of image vectors, None for a corpus without."""

    def __init__(self, location: str, dimension: int | None):
        self._location = ClusterLocation.parse(location)
        self._client = _client(self._location)
        if self._client.has_collection(self._collection(MANIFEST)):
            raise KnowledgeCorpusError(f"{location}: already exists; remove it or choose another name")
        self._names = [PASSAGES, SENTENCES, *([IMAGES] if dimension else [])]
        for name in self._names:  # left by a build that was cut off
            self._client.drop_collection(self._collection(name))
        self._create(PASSAGES, {"article": 256, "title": 2048, "text": LONGEST, "url": 4096}, ["introduction"], True)
        self._create_sentences()
        if dimension:
            texts = {"file": 2048, "caption": LONGEST, "attribution": LONGEST, "thumbnail": LONGEST}
            self._create(IMAGES, texts, [], False, dimension)

    def _collection(self, name: str) -> str:
        return f"{self._location.name}_{name}"

    def _create(self, name: str, texts: dict[str, int], flags: list[str], links: bool, dimension: int = 2) -> None:
        from pymilvus import DataType

        # Every Milvus collection needs a vector; passages and manifest carry a short idle one.
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("key", DataType.INT64, is_primary=True)
        for field, longest in texts.items():
            schema.add_field(field, DataType.VARCHAR, max_length=longest)
        for field in flags:
            schema.add_field(field, DataType.BOOL)
        if links:
            schema.add_field("links", DataType.JSON)
        if name == IMAGES:
            schema.add_field("passage", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        self._client.create_collection(self._collection(name), schema=schema, index_params=index)

    def _create_sentences(self) -> None:
        from pymilvus import DataType, Function, FunctionType

        schema = self._client.create_schema(auto_id=True)
        schema.add_field("key", DataType.INT64, is_primary=True)
        schema.add_field("passage", DataType.INT64)
        schema.add_field("introduction", DataType.BOOL)
        analyzer = {"tokenizer": "standard", "filter": ["lowercase", "asciifolding"]}
        schema.add_field(
            "sentence", DataType.VARCHAR, max_length=LONGEST, enable_analyzer=True, analyzer_params=analyzer
        )
        schema.add_field("bm25", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(
                name="bm25", function_type=FunctionType.BM25, input_field_names="sentence", output_field_names="bm25"
            )
        )
        index = self._client.prepare_index_params()
        parameters = {"bm25_k1": 1.2, "bm25_b": 0.75}
        index.add_index("bm25", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=parameters)
        self._client.create_collection(self._collection(SENTENCES), schema=schema, index_params=index)

    def _insert(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        for chunk in _chunks(rows):
            for row in chunk:
                for field, value in row.items():
                    if isinstance(value, str) and len(value.encode()) > LONGEST:
                        raise KnowledgeCorpusError(
                            f"{name}: a {field} of {len(value.encode()):,} bytes is longer than Milvus keeps "
                            f"({LONGEST:,}): {value[:60]!r}…"
                        )
            self._client.insert(self._collection(name), chunk)

    def add_passages(self, passages: PassageRows, sentences: SentenceRows) -> None:
        columns = ("key", "article", "title", "text", "introduction", "links")
        self._insert(
            PASSAGES,
            (
                {**dict(zip(columns, row, strict=True)), "url": url or "", "vector": [0.0, 1.0]}
                for *row, url in zip(*(getattr(passages, c) for c in columns), passages.url, strict=True)
            ),
        )
        fields = ("passage", "sentence", "introduction")
        columns_of = zip(*(getattr(sentences, f) for f in fields), strict=True)
        self._insert(SENTENCES, (dict(zip(fields, row, strict=True)) for row in columns_of))

    def add_images(self, images: ImageRows) -> None:
        start = int(self._client.get_collection_stats(self._collection(IMAGES))["row_count"])
        self._insert(
            IMAGES,
            (
                {
                    "key": start + i,
                    "file": images.file[i],
                    "passage": images.passage[i],
                    "caption": images.caption[i],
                    "attribution": images.attribution[i],
                    "thumbnail": base64.b64encode(images.thumbnail[i]).decode(),
                    "vector": images.vector[i].tolist(),
                }
                for i in range(len(images.file))
            ),
        )

    def finish(self) -> dict[str, int]:
        for name in self._names:
            self._client.flush(self._collection(name))
        return dict.fromkeys(self._names, 1)

    def write_manifest(self, manifest: Manifest) -> None:
        """The commit point: readers open a corpus by its manifest, and there is none before this."""
        self._create(MANIFEST, {"content": LONGEST}, [], False)
        self._insert(MANIFEST, [{"key": 0, "content": manifest.model_dump_json(), "vector": [0.0, 1.0]}])
        self._client.flush(self._collection(MANIFEST))


def read_cluster_manifest(location: str) -> Manifest:
    """Raises `KnowledgeCorpusError` when no finished corpus is there."""
    where = ClusterLocation.parse(location)
    client = _client(where)
    collection = f"{where.name}_{MANIFEST}"
    rows = client.query(collection, filter="key == 0", output_fields=["content"]) if _has(client, collection) else []
    if not rows:
        raise KnowledgeCorpusError(f"{location}: no knowledge corpus there, or its build never finished")
    try:
        return Manifest.model_validate_json(rows[0]["content"])
    except ValidationError as problem:
        raise KnowledgeCorpusError(f"{location}: its manifest is of another version ({problem.title})") from problem


def _has(client: Any, collection: str) -> bool:
    if not client.has_collection(collection):
        return False
    client.load_collection(collection)
    return True


class ClusterReader:
    """Reads a corpus' collections; batches of queries go to the engine in one call."""

    def __init__(self, location: str):
        where = ClusterLocation.parse(location)
        self._client, self._prefix = _client(where), where.name
        self._here = {name for name in (PASSAGES, SENTENCES, IMAGES) if _has(self._client, self._collection(name))}

    def _collection(self, name: str) -> str:
        return f"{self._prefix}_{name}"

    def _search(self, name: str, data: list[Any], field: str, k: int, columns: list[str], filter: str = "") -> Any:
        return self._client.search(
            self._collection(name), data=data, anns_field=field, limit=k, output_fields=columns, filter=filter
        )

    def search_sentences(self, queries: Sequence[str], k: int, *, introductions_only: bool) -> list[list[SentenceHit]]:
        hits: list[list[SentenceHit]] = [[] for _ in queries]
        asked = [i for i, query in enumerate(queries) if query.strip()]
        for part in _chunks(asked, 256):
            columns = ["passage", "sentence"]
            filter = "introduction == true" if introductions_only else ""
            rows = self._search(SENTENCES, [queries[i] for i in part], "bm25", k, columns, filter)
            for i, row in zip(part, rows, strict=True):
                # milvus-lite reports BM25 as a negative distance, a server as a score.
                found = ((hit["entity"], abs(float(hit["distance"]))) for hit in row)
                hits[i] = [SentenceHit(e["passage"], e["sentence"], score) for e, score in found]
        return hits

    def search_images(self, vectors: NDArray[np.float32], k: int) -> list[list[ImageHit]]:
        if IMAGES not in self._here or not len(vectors):
            return [[] for _ in vectors]
        rows = self._search(IMAGES, list(vectors.tolist()), "vector", k, ["file", "passage"])
        return [
            [ImageHit(hit["entity"]["file"], hit["entity"]["passage"], float(hit["distance"])) for hit in row]
            for row in rows
        ]

    def passages(self, keys: Sequence[int]) -> dict[int, Passage]:
        columns = ["key", "article", "title", "text", "introduction", "links", "url"]
        found: dict[int, Passage] = {}
        for part in _chunks(sorted(set(keys))):
            rows = self._client.query(self._collection(PASSAGES), filter=f"key in {part}", output_fields=columns)
            found.update((row["key"], passage_of(row)) for row in rows)
        return found

    def thumbnails(self, files: Sequence[str]) -> dict[str, bytes]:
        if IMAGES not in self._here or not files:
            return {}
        rows = self._client.query(
            self._collection(IMAGES),
            filter=f"file in {json.dumps(sorted(set(files)), ensure_ascii=False)}",
            output_fields=["file", "thumbnail"],
        )
        return {row["file"]: base64.b64decode(row["thumbnail"]) for row in rows}
