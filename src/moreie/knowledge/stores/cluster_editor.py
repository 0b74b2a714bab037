"""Changes to a corpus in Milvus while others read it: new rows are of the next revision, removed ones end with it, and
the manifest that names the revision is written last."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pyarrow as pa

from moreie.errors import CorpusBusyError
from moreie.knowledge.manifest import Manifest
from moreie.knowledge.stores.cluster import (
    FOREVER,
    MANIFEST,
    ROWS_PER_CALL,
    TABLES,
    ClusterLocation,
    ClusterWriter,
    chunks,
    listed,
    load_manifest,
    loaded,
    save_manifest,
    unpacked,
    visible,
)
from moreie.knowledge.stores.store import FILES, IMAGES, INTRODUCTIONS, NAMES, PASSAGES, SENTENCES, VECTORS

# A change that has not written for so long was cut off.
LOCK_SECONDS = 600
# States this recent are kept when a corpus is compacted; Milvus does not say how old a row is.
KEEP_ALL = timedelta(days=10_000)
_LOCK = 1  # key of the lock's row beside the manifest's


class ClusterEditor(ClusterWriter):
    """The next revision of a corpus in the making. What a change that was cut off left behind is taken away first."""

    def __init__(self, location: str, manifest: Manifest):
        self._where = ClusterLocation.parse(location)
        self._client = self._where.client()
        self._current = manifest.revision
        self.revision = manifest.revision + 1
        # A collection that no manifest names was begun by a change that was cut off.
        named = [name for name in (*TABLES, *VECTORS) if name in manifest.tables]
        self._here = [name for name in named if loaded(self._client, self._where, name)]
        self._held = time.monotonic()
        for name in self._here:
            self._client.delete(self._where.collection(name), filter=f"since > {self._current}")
            self._end(name, f"until == {self.revision}", FOREVER, at=self._current - 1)
        self._keys = {name: self._next_key(name) for name in (NAMES, FILES, IMAGES)}

    @classmethod
    @contextmanager
    def alone(cls, location: str) -> Iterator[None]:
        """Raises `CorpusBusyError` while another change is under way."""
        where = ClusterLocation.parse(location)
        client = where.client()
        load_manifest(client, where, location)
        rows = client.query(where.collection(MANIFEST), filter=f"key == {_LOCK}", output_fields=["content"])
        if rows and time.time() - float(rows[0]["content"]) < LOCK_SECONDS:
            raise CorpusBusyError(
                f"{location}: another change is under way; try again when it is done (one that was cut off is "
                f"forgotten after {LOCK_SECONDS // 60} minutes)"
            )
        _touch(client, where)
        try:
            yield
        finally:
            client.delete(where.collection(MANIFEST), ids=[_LOCK])
            client.flush(where.collection(MANIFEST))

    def keys(self, articles: Iterable[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for part in chunks(sorted(set(articles)), 500):
            for row in self._query(PASSAGES, f"article in {listed(part)}", ["article", "key"]):
                found.setdefault(row["article"], []).append(row["key"])
        return {article: sorted(keys) for article, keys in found.items()}

    def introductions(self, articles: Sequence[str], titles: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        found: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for known, column, values in zip(found, ("article", "title"), (articles, titles), strict=True):
            for part in chunks(sorted(set(values)), 500):
                for row in self._query(PASSAGES, f"{column} in {listed(part)}", [column, "key"]):
                    known[row[column]] = min(row["key"], known.get(row[column], row["key"]))
        return found

    def pictures(self, files: Iterable[str]) -> set[tuple[str, int]]:
        if IMAGES not in self._here:
            return set()
        rows = self._query(IMAGES, f"file in {listed(sorted(set(files)))}", ["file", "passage"])
        return {(row["file"], row["passage"]) for row in rows}

    def remove(self, keys: Iterable[int], *, images: bool = True) -> None:
        for part in chunks(sorted(set(keys)), 500):
            self._end(PASSAGES, f"key in {part}", self.revision)
            for name in (SENTENCES, NAMES, FILES, INTRODUCTIONS, *([IMAGES] if images else [])):
                if name in self._here:
                    self._end(name, f"passage in {part}", self.revision)

    def move_images(self, introductions: dict[int, int]) -> None:
        if IMAGES not in self._here:
            return
        for part in chunks(sorted(introductions), 500):
            moved = self._query(IMAGES, f"passage in {part}", ["*"])
            self._end(IMAGES, f"passage in {part}", self.revision)
            copies = ({**row, "passage": introductions[row["passage"]]} for row in moved)
            self._insert(IMAGES, self._with_keys(IMAGES, copies))

    def create_images(self, dimension: int) -> None:
        if IMAGES not in self._here:
            self._create(IMAGES, dimension)

    def create_introductions(self, dimension: int) -> None:
        if INTRODUCTIONS not in self._here:
            self._create(INTRODUCTIONS, dimension)

    def embedded(self, keys: Iterable[int]) -> set[int]:
        found: set[int] = set()
        for part in chunks(sorted(set(keys))):
            found.update(row["passage"] for row in self._query(INTRODUCTIONS, f"passage in {part}", ["passage"]))
        return found

    def add_introductions(self, rows: Iterable[pa.Table]) -> None:
        for batch in rows:
            own = ({**row, "key": row["passage"], "vector": unpacked(row["vector"])} for row in batch.to_pylist())
            self._insert(INTRODUCTIONS, own)
            self.hold()

    def hold(self) -> None:
        if time.monotonic() - self._held > LOCK_SECONDS / 10:
            _touch(self._client, self._where)
            self._held = time.monotonic()

    def create_names(self) -> None:
        """A corpus in Milvus has had names from its first version on."""

    def add_images(self, images: Any) -> None:
        for part in chunks(images["file"].to_pylist(), 500):
            for file, passage in self.pictures(part) & set(
                zip(images["file"].to_pylist(), images["passage"].to_pylist(), strict=True)
            ):
                self._end(IMAGES, f"file in {listed([file])} and passage == {passage}", self.revision)
        super().add_images(images)

    def counts(self) -> dict[str, int]:
        return {
            name: int(
                self._client.query(
                    self._where.collection(name), filter=visible(self.revision), output_fields=["count(*)"]
                )[0]["count(*)"]
            )
            for name in self._here
        }

    def commit(self, manifest: Manifest) -> None:
        save_manifest(self._client, self._where, manifest)

    def compact(self, older_than: timedelta) -> dict[str, int]:
        """Forget removed rows, unless told to keep every state."""
        if older_than < KEEP_ALL:
            for name in self._here:
                self._client.delete(self._where.collection(name), filter=f"until <= {self._current}")
        if "lite" in self._client.get_server_version():
            self._write_sentences_again()
        return self.finish()

    def _write_sentences_again(self) -> None:
        """milvus-lite weighs words by how often they occur in a segment, and each change has made one of its own."""
        iterator = self._client.query_iterator(
            self._where.collection(SENTENCES),
            batch_size=ROWS_PER_CALL,
            filter=visible(self._current),
            output_fields=["*"],
        )
        try:
            while rows := iterator.next():
                again = [{field: value for field, value in row.items() if field != "bm25"} for row in rows]
                self._client.upsert(self._where.collection(SENTENCES), again)
        finally:
            iterator.close()

    def _query(self, name: str, condition: str, columns: list[str]) -> list[dict[str, Any]]:
        """Rows as the next revision has them so far."""
        rows: list[dict[str, Any]] = self._client.query(
            self._where.collection(name),
            filter=visible(self.revision, condition),
            output_fields=columns,
            consistency_level="Strong",
        )
        return rows

    def _end(self, name: str, condition: str, until: int, at: int | None = None) -> None:
        """Let rows of a revision (the next one) end with another."""
        shown = f"{visible(self.revision, condition)}" if at is None else condition
        rows = self._client.query(
            self._where.collection(name), filter=shown, output_fields=["*"], consistency_level="Strong"
        )
        for part in chunks(rows):
            ended = [{**{k: v for k, v in row.items() if k != "bm25"}, "until": until} for row in part]
            self._client.upsert(self._where.collection(name), ended)
        _touch(self._client, self._where)

    def _next_key(self, name: str) -> int:
        if name not in self._here:
            return 0
        return int(self._client.get_collection_stats(self._where.collection(name))["row_count"]) + (
            self._current << 40  # above any key given out by an earlier revision, even where rows were deleted
        )


def _touch(client: Any, where: ClusterLocation) -> None:
    row = {"key": _LOCK, "content": str(time.time()), "vector": [0.0, 1.0]}
    client.upsert(where.collection(MANIFEST), [row])
