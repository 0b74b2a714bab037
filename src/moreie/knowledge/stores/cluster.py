"""The cluster store: the same rows in Milvus collections, BM25 and k-NN by its own engine.

A location is `milvus://host:port/name` (`milvus+tls://…` for an encrypted line; a token stands in the environment
variable `MILVUS_TOKEN`), or `milvus:path/to/file.db` for an embedded `milvus-lite` file. Words (`stores.words`) and
BM25 parameters are those of the embedded store: beside a sentence's text a field keeps its words, and that is searched.

Every row says since which revision of the corpus it is there (`since`) and from which it is not (`until`): a reader
asks for the rows of the revision whose manifest it read, whatever is written meanwhile.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import ValidationError

from moreie.errors import KnowledgeCorpusError, MissingExtraError
from moreie.knowledge.manifest import Manifest
from moreie.knowledge.stores.store import FILES, IMAGES, NAMES, PASSAGES, SENTENCES, VECTORS
from moreie.knowledge.stores.words import plain_words

log = logging.getLogger(__name__)

MANIFEST = "manifest"
TABLES = (PASSAGES, SENTENCES, NAMES, FILES)
ROWS_PER_CALL = 2_000
LONGEST = 65_535  # bytes of a Milvus string
FOREVER = 1 << 62
# A sentence's key is its passage's with its number behind: so many fit.
SENTENCES_PER_PASSAGE = 1 << 12
# Of the sentences' collection: 1 had no field of words.
LAYOUT = 2
# milvus-lite weighs words by how often they occur in a segment, Milvus in a whole shard: a file is to be built as one
# segment. These are bytes held in memory until then; milvus-lite reads them when it is first used.
_ONE_SEGMENT = {
    "MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": 2 << 30,
    "MILVUS_LITE_WAL_SIZE_LIMIT_BYTES": 4 << 30,
}
_NO_CONNECTION = 2  # as the client numbers it
_NAME = re.compile(r"[A-Za-z_]\w*")
_TEXTS = {
    PASSAGES: {"article": 512, "title": 2048, "text": LONGEST, "url": 4096},
    NAMES: {"name": 2048},
    FILES: {"file": 2048, "caption": LONGEST, "section": 4096},
    IMAGES: {"file": 2048, "caption": LONGEST, "attribution": LONGEST, "thumbnail": LONGEST},
    MANIFEST: {"content": LONGEST},
}
_FLAGS = {PASSAGES: ("introduction",), NAMES: ("redirect",)}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClusterLocation:
    """Where Milvus listens (or its file), and the prefix of the corpus' collections."""

    uri: str
    name: str

    @classmethod
    def parse(cls, location: str) -> ClusterLocation:
        """Raises `KnowledgeCorpusError` when `location` has none of the documented forms."""
        for scheme, line in (("milvus://", "http://"), ("milvus+tls://", "https://")):
            if location.startswith(scheme):
                address, _, name = location.removeprefix(scheme).partition("/")
                if address and _NAME.fullmatch(name):
                    return cls(line + address, name)
        if location.startswith("milvus:") and location.endswith(".db"):
            return cls(location.removeprefix("milvus:"), "corpus")
        raise KnowledgeCorpusError(
            f"{location}: expected milvus://host:port/name, milvus+tls://host:port/name or milvus:path/to/file.db"
        )

    def collection(self, name: str) -> str:
        return f"{self.name}_{name}"

    def client(self) -> Any:
        """A client whose failures are `KnowledgeCorpusError`s; raises one where no Milvus answers."""
        try:
            from pymilvus import MilvusClient
        except ModuleNotFoundError as problem:
            raise MissingExtraError("cluster", "a corpus in Milvus") from problem
        if "://" not in self.uri:
            for limit, size in _ONE_SEGMENT.items():
                os.environ.setdefault(limit, str(size))
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what it reports is in our errors
        with spoken_to(self.uri):
            return _Client(self.uri, MilvusClient(self.uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=30))


class _Client:
    """Milvus' client with our errors."""

    def __init__(self, uri: str, client: Any):
        self._uri, self._client = uri, client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            with spoken_to(self._uri):
                return method(*arguments, **named)

        return call


@contextmanager
def spoken_to(uri: str) -> Iterator[None]:
    """Raises `KnowledgeCorpusError` where Milvus does not answer, refuses the token, or fails."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError, OSError) as problem:
        # The client's own words for a refusal at the first call are those for no answer; its cause says which.
        calls = [link for link in _causes(problem) if isinstance(link, grpc.Call)]
        codes = {call.code() for call in calls}
        said = (calls[0].details() if calls else "") or str(problem)
        if codes & {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
            raise KnowledgeCorpusError(f"{uri}: Milvus refuses the token in MILVUS_TOKEN ({said})") from problem
        if grpc.StatusCode.UNAVAILABLE in codes or getattr(problem, "code", None) == _NO_CONNECTION:
            raise KnowledgeCorpusError(f"{uri}: no Milvus answers there ({said})") from problem
        raise KnowledgeCorpusError(f"{uri}: Milvus failed ({said})") from problem


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:  # the client raises errors from themselves
        seen.add(id(problem))
        yield problem
        problem = problem.__cause__ or problem.__context__


def free_location(location: str) -> tuple[ClusterLocation, Any]:
    """Where a corpus can be built, and a client; raises `KnowledgeCorpusError` where one is there already."""
    where = ClusterLocation.parse(location)
    client = where.client()
    if client.has_collection(where.collection(MANIFEST)):
        raise KnowledgeCorpusError(f"{location}: already exists; remove it or choose another name")
    return where, client


def chunks(rows: Iterable[T], size: int = ROWS_PER_CALL) -> Iterator[list[T]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


class ClusterWriter:
    """Creates a corpus' collections. `dimension`: of image vectors, None for a corpus without."""

    revision = 1

    def __init__(self, location: str, dimension: int | None):
        self._where, self._client = free_location(location)
        self._keys = dict.fromkeys((NAMES, FILES, IMAGES), 0)
        self._here: list[str] = []
        for name in (*TABLES, *([IMAGES] if dimension else [])):
            self._create(name, dimension or 2)

    def add_passages(self, passages: pa.Table, sentences: pa.Table) -> None:
        rows = passages.to_pylist()
        self._insert(PASSAGES, ({**row, "url": row["url"] or "", "vector": [0.0, 1.0]} for row in rows))
        self._insert(SENTENCES, _numbered(sentences.to_pylist()))

    def add_names(self, names: pa.Table) -> None:
        self._insert(NAMES, self._with_keys(NAMES, names.to_pylist()))

    def add_files(self, files: pa.Table) -> None:
        self._insert(FILES, self._with_keys(FILES, files.to_pylist()))

    def add_images(self, images: pa.Table) -> None:
        rows = [
            {**row, "thumbnail": base64.b64encode(row["thumbnail"]).decode(), "vector": unpacked(row["vector"])}
            for row in images.to_pylist()
        ]
        self._insert(IMAGES, self._with_keys(IMAGES, rows))

    def finish(self) -> dict[str, int]:
        for name in self._here:
            self._client.flush(self._where.collection(name))
        return dict.fromkeys(self._here, LAYOUT)

    def write_manifest(self, manifest: Manifest) -> None:
        """The commit point: readers open a corpus by its manifest, and there is none before this."""
        create_collection(self._client, self._where, MANIFEST)
        save_manifest(self._client, self._where, manifest)

    def _create(self, name: str, dimension: int = 2) -> None:
        self._client.drop_collection(self._where.collection(name))  # left by a build or change that was cut off
        create_collection(self._client, self._where, name, dimension)
        self._here.append(name)

    def _with_keys(self, name: str, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            yield {"vector": [0.0, 1.0], **row, "key": self._keys[name]}
            self._keys[name] += 1

    def _insert(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        for chunk in chunks({**row, "since": self.revision, "until": FOREVER} for row in rows):
            for row in chunk:
                for field, value in row.items():
                    if isinstance(value, str) and len(value.encode()) > LONGEST:
                        raise KnowledgeCorpusError(
                            f"{name}: a {field} of {len(value.encode()):,} bytes is longer than Milvus keeps "
                            f"({LONGEST:,}): {value[:60]!r}…"
                        )
            self._client.insert(self._where.collection(name), chunk)


def create_collection(client: Any, where: ClusterLocation, name: str, dimension: int = 2) -> None:
    """Every Milvus collection needs a vector: those without one of their own carry a short idle one."""
    from pymilvus import DataType, Function, FunctionType

    schema = client.create_schema(auto_id=False)
    schema.add_field("key", DataType.INT64, is_primary=True)
    index = client.prepare_index_params()
    if name == SENTENCES:
        schema.add_field("sentence", DataType.VARCHAR, max_length=LONGEST)
        analyzed = {"enable_analyzer": True, "enable_match": True, "analyzer_params": {"tokenizer": "standard"}}
        schema.add_field("words", DataType.VARCHAR, max_length=LONGEST, **analyzed)
        schema.add_field("introduction", DataType.BOOL)
        schema.add_field("bm25", DataType.SPARSE_FLOAT_VECTOR)
        function = Function(
            name="bm25", function_type=FunctionType.BM25, input_field_names="words", output_field_names="bm25"
        )
        schema.add_function(function)
        parameters: dict[str, Any] = {"bm25_k1": 1.2, "bm25_b": 0.75}
        # The client sends them one by one; milvus-lite hears them only together, a server either way.
        parameters["params"] = dict(parameters)
        index.add_index("bm25", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=parameters)
    else:
        for field, longest in _TEXTS.get(name, {}).items():
            schema.add_field(field, DataType.VARCHAR, max_length=longest)
        for field in _FLAGS.get(name, ()):
            schema.add_field(field, DataType.BOOL)
        if name == PASSAGES:
            schema.add_field("links", DataType.JSON)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension if name in VECTORS else 2)
        index.add_index("vector", index_type="FLAT", metric_type="IP")
    if name not in (PASSAGES, MANIFEST):
        schema.add_field("passage", DataType.INT64)
    if name != MANIFEST:
        schema.add_field("since", DataType.INT64)
        schema.add_field("until", DataType.INT64)
    client.create_collection(where.collection(name), schema=schema, index_params=index)


def _numbered(sentences: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for passage, own in itertools.groupby(sentences, key=lambda row: row["passage"]):
        for number, row in enumerate(own):
            if number >= SENTENCES_PER_PASSAGE:
                raise KnowledgeCorpusError(f"passage {passage}: more than {SENTENCES_PER_PASSAGE:,} sentences")
            yield {**row, "words": _kept(row["sentence"]), "key": passage * SENTENCES_PER_PASSAGE + number}


def _kept(sentence: str) -> str:
    """The words of a sentence as far as a field of Milvus holds them."""
    written = plain_words(sentence)
    if len(written) <= LONGEST:
        return written
    log.warning("a sentence is longer than Milvus searches; its last words are not found: %.60s…", sentence)
    return written[: written.rindex(" ", 0, LONGEST)]


def unpacked(vector: Sequence[float]) -> list[float]:
    return [float(value) for value in vector]


def save_manifest(client: Any, where: ClusterLocation, manifest: Manifest) -> None:
    row = {"key": 0, "content": manifest.model_dump_json(), "vector": [0.0, 1.0]}
    client.upsert(where.collection(MANIFEST), [row])
    client.flush(where.collection(MANIFEST))


def read_cluster_manifest(location: str) -> Manifest:
    """Raises `KnowledgeCorpusError` when no finished corpus is there."""
    where = ClusterLocation.parse(location)
    return load_manifest(where.client(), where, location)


def load_manifest(client: Any, where: ClusterLocation, location: str) -> Manifest:
    rows = []
    if loaded(client, where, MANIFEST):
        rows = client.query(where.collection(MANIFEST), filter="key == 0", output_fields=["content"])
    if not rows:
        raise KnowledgeCorpusError(f"{location}: no knowledge corpus there, or its build never finished")
    try:
        manifest = Manifest.model_validate_json(rows[0]["content"])
    except ValidationError as problem:
        raise KnowledgeCorpusError(f"{location}: its manifest is of another version ({problem.title})") from problem
    if NAMES not in manifest.tables or manifest.tables[SENTENCES] < LAYOUT:
        raise KnowledgeCorpusError(f"{location}: built by an older version of moreie; build it again")
    return manifest


def loaded(client: Any, where: ClusterLocation, name: str) -> bool:
    """Whether a collection is there; it is ready for queries then."""
    if not client.has_collection(where.collection(name)):
        return False
    client.load_collection(where.collection(name))
    return True


def visible(revision: int, *conditions: str) -> str:
    """Filter for the rows of a revision of the corpus."""
    return " and ".join([f"since <= {revision}", f"until > {revision}", *(c for c in conditions if c)])


def listed(values: Sequence[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)
