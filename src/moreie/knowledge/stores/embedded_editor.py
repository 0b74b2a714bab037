"""Changes to an embedded corpus while others read it: new versions of its tables beside the old ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from moreie.knowledge.manifest import Manifest, write_manifest
from moreie.knowledge.names import title_names
from moreie.knowledge.stores.embedded_tables import append, index_vectors, parts, quoted, row_ids
from moreie.knowledge.stores.lance import BTree, lancedb
from moreie.knowledge.stores.schemas import FILE_ROWS, NAME_ROWS, image_rows, introduction_rows
from moreie.knowledge.stores.store import FILES, IMAGES, INTRODUCTIONS, NAMES, PASSAGES, SENTENCES, VECTORS
from moreie.knowledge.stores.vectors import EXACT_LIMIT, index_file, unindexed

# So many rows added may stay outside an index; they are searched one by one.
UNINDEXED_ROWS = 20_000


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
        for part in parts(sorted(set(articles))):
            query = self._tables[PASSAGES].search().where(f"article IN ({quoted(part)})")
            rows = query.select(["article", "key"]).limit(None).to_arrow().to_pylist()
            for row in rows:
                found.setdefault(row["article"], []).append(row["key"])
        return {article: sorted(keys) for article, keys in found.items()}

    def introductions(self, articles: Sequence[str], titles: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """First passages of articles, by id and by title."""
        found: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for known, column, values in zip(found, ("article", "title"), (articles, titles), strict=True):
            for part in parts(sorted(set(values))):
                query = self._tables[PASSAGES].search().where(f"{column} IN ({quoted(part)})")
                for row in query.select([column, "key"]).limit(None).to_arrow().to_pylist():
                    known[row[column]] = min(row["key"], known.get(row[column], row["key"]))
        return found

    def remove(self, keys: Iterable[int], *, images: bool = True) -> None:
        """Remove passages with all that belongs to them, the pictures with `images` alone."""
        for part in parts(sorted(set(keys))):
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
        append(table, pa.table(columns, schema=NAME_ROWS))
        table.create_index("name", config=BTree())

    def add_passages(self, passages: pa.Table, sentences: pa.Table) -> None:
        append(self._tables[PASSAGES], passages)
        append(self._tables[SENTENCES], sentences)

    def add_names(self, names: pa.Table) -> None:
        if NAMES in self._tables:
            append(self._tables[NAMES], names)

    def add_files(self, files: pa.Table) -> None:
        if len(files) and FILES not in self._tables:
            self._tables[FILES] = self._database.create_table(FILES, schema=FILE_ROWS, mode="overwrite")
        if FILES in self._tables:
            append(self._tables[FILES], files)

    def add_images(self, images: pa.Table) -> None:
        """Add pictures; one that its article has already, by file name, is put in the old one's place."""
        table = self._tables[IMAGES]
        rows = table.merge_insert(["file", "passage"]).when_matched_update_all().when_not_matched_insert_all()
        rows.execute(images)
        self._grown.add(IMAGES)

    def embedded(self, keys: Iterable[int]) -> set[int]:
        found: set[int] = set()
        for part in parts(sorted(set(keys))):
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
        for part in parts(sorted(set(files))):
            query = self._tables[IMAGES].search().where(f"file IN ({quoted(part)})").select(["file", "passage"])
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
            ids = row_ids(self._tables[name].search().with_row_id(True).select(["passage"]).limit(None).to_arrow())
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
            index_vectors(self._folder, name, self._tables[name])
            self._indexed[name] = version


def _optimize(table: Any, older_than: timedelta | None) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="optimize")
        table.optimize(cleanup_older_than=older_than)
