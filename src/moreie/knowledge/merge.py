"""Finished parts → one corpus: keys given out, redirects resolved, articles that stand twice left out.

Titles and redirects lie in a database on disk, so that memory does not grow with the sources.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moreie.knowledge.names import title_names
from moreie.knowledge.passages import Rows
from moreie.knowledge.stores.schemas import NAME_ROWS, PASSAGE_ROWS
from moreie.knowledge.stores.store import StoreWriter

MOST_HOPS = 5  # of redirects to redirects
_PARAMETERS = 30_000  # that one statement takes
NAMES_PER_BATCH = 50_000


class Ledger:
    """Articles by id and title, and redirects, while a corpus is built."""

    def __init__(self, path: Path):
        path.unlink(missing_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536; BEGIN;"
            "CREATE TABLE articles (id TEXT PRIMARY KEY, title TEXT, passage INTEGER) WITHOUT ROWID;"
            "CREATE TABLE titles (title TEXT PRIMARY KEY, passage INTEGER) WITHOUT ROWID;"
            "CREATE TABLE redirects (title TEXT PRIMARY KEY, target TEXT) WITHOUT ROWID;"
        )

    def close(self) -> None:
        self._database.close()

    def add_redirects(self, redirects: pa.Table) -> None:
        rows = zip(redirects["title"].to_pylist(), redirects["target"].to_pylist(), strict=True)
        self._database.executemany("INSERT OR IGNORE INTO redirects VALUES (?, ?)", rows)

    def repeated(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have been added already."""
        return {id for (id,) in self._select("SELECT id FROM articles WHERE id IN", ids)}

    def add_articles(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """(id, title, first passage) of articles."""
        listed = list(rows)
        self._database.executemany("INSERT OR IGNORE INTO articles VALUES (?, ?, ?)", listed)
        self._database.executemany("INSERT OR IGNORE INTO titles VALUES (?, ?)", [row[1:] for row in listed])

    def targets(self, titles: Sequence[str]) -> dict[str, str]:
        """Where those of the titles that are redirects lead in the end."""
        led: dict[str, str] = dict(self._select("SELECT title, target FROM redirects WHERE title IN", titles))
        for _ in range(MOST_HOPS - 1):
            further = dict(self._select("SELECT title, target FROM redirects WHERE title IN", sorted({*led.values()})))
            if not further:
                break
            led = {title: further.get(target, target) for title, target in led.items()}
        return led

    def passages(self, ids: Sequence[str], titles: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """First passages of articles by id, and by title or redirect."""
        by_id = dict(self._select("SELECT id, passage FROM articles WHERE id IN", sorted(set(ids))))
        led = self.targets(titles)
        wanted = sorted({*titles, *led.values()})
        found = dict(self._select("SELECT title, passage FROM titles WHERE title IN", wanted))
        by_title = {t: found[led.get(t, t)] for t in titles if led.get(t, t) in found}
        return by_id, {**by_title, **{t: found[t] for t in titles if t in found}}

    def redirect_batches(self) -> Iterator[list[str]]:
        """All redirects, in batches."""
        cursor = self._database.execute("SELECT title FROM redirects ORDER BY title")
        while batch := list(islice(cursor, NAMES_PER_BATCH)):
            yield [title for (title,) in batch]

    def _select(self, statement: str, values: Sequence[str]) -> Iterator[Any]:
        for start in range(0, len(values), _PARAMETERS):
            part = values[start : start + _PARAMETERS]
            yield from self._database.execute(f"{statement} ({','.join('?' * len(part))})", part)


class Merger:
    """Puts parts into a store, in order."""

    def __init__(self, writer: StoreWriter, ledger: Ledger):
        self._writer, self._ledger = writer, ledger
        self._digest = hashlib.sha256()
        self.articles = self.passages = self.sentences = self.files = 0

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()[:12]

    def include(self, what: str) -> None:
        """Let the corpus' version depend on something more than its text."""
        self._digest.update(what.encode())

    def add(self, rows: Rows, has_redirects: bool) -> list[str]:
        """Add a part; what is said of articles that stood in an earlier one comes back."""
        rows, repeated = self._without_repeated(rows)
        base = self.passages
        self._ledger.add_articles(
            zip(
                rows.articles["id"].to_pylist(),
                rows.articles["title"].to_pylist(),
                pc.add(rows.articles["passage"], base).to_pylist(),
                strict=True,
            )
        )
        passages = _shifted(rows.passages, "key", base)
        if has_redirects:
            passages = self._resolved(passages)
        self._writer.add_passages(passages, _shifted(rows.sentences, "passage", base))
        self._writer.add_names(_shifted(rows.names, "passage", base))
        self._writer.add_files(_shifted(rows.files, "passage", base))
        for digest in rows.articles["digest"].to_pylist():
            self._digest.update(digest)
        self.articles += len(rows.articles)
        self.passages += len(rows.passages)
        self.sentences += len(rows.sentences)
        self.files += len(rows.files)
        return repeated

    def add_redirect_names(self) -> None:
        """Names of redirects whose article is in the corpus; articles must be complete by now."""
        for titles in self._ledger.redirect_batches():
            _, found = self._ledger.passages((), titles)
            rows = [(name, key) for title, key in found.items() for name in title_names(title)]
            columns = {"name": [n for n, _ in rows], "passage": [k for _, k in rows], "redirect": [True] * len(rows)}
            self._writer.add_names(pa.table(columns, schema=NAME_ROWS))

    def _without_repeated(self, rows: Rows) -> tuple[Rows, list[str]]:
        ids = rows.articles["id"].to_pylist()
        known = self._ledger.repeated(ids)
        if not known and len(set(ids)) == len(ids):
            return rows, []
        starts = rows.articles["passage"].to_pylist()
        ends = [*starts[1:], len(rows.passages)]
        keep = np.ones(len(rows.passages), dtype=bool)
        kept: list[bool] = []
        said = []
        for id, title, start, end in zip(ids, rows.articles["title"].to_pylist(), starts, ends, strict=True):
            kept.append(id not in known)
            if id in known:
                keep[start:end] = False
                said.append(f"{id} ({title}): stands in the sources twice; the first was taken")
            known.add(id)
        # Keys close up behind what is left out.
        moved = np.cumsum(keep) - 1
        return (
            Rows(
                _moved(rows.articles.filter(pa.array(kept)), "passage", moved),
                _moved(rows.passages.filter(pa.array(keep)), "key", moved),
                *(
                    _moved(table.filter(pa.array(keep[table["passage"].to_numpy()])), "passage", moved)
                    for table in (rows.sentences, rows.names, rows.files)
                ),
            ),
            said,
        )

    def _resolved(self, passages: pa.Table) -> pa.Table:
        """Passages whose links lead to articles, not to redirects."""
        links = passages["links"].combine_chunks()
        flat = links.flatten()
        targets = flat.field("target")
        encoded = targets.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        led = self._ledger.targets(names)
        if not led:
            return passages
        resolved = pa.array([led.get(name, name) for name in names]).take(encoded.indices)
        struct = pa.StructArray.from_arrays([flat.field("start"), flat.field("end"), resolved], fields=list(flat.type))
        column = pa.ListArray.from_arrays(links.offsets, struct)
        place = PASSAGE_ROWS.names.index("links")
        return passages.set_column(place, PASSAGE_ROWS.field("links"), column.cast(PASSAGE_ROWS.field("links").type))


def _shifted(table: pa.Table, column: str, by: int) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), column, pc.add(table[column], by))


def _moved(table: pa.Table, column: str, places: np.ndarray[Any, Any]) -> pa.Table:
    moved = pa.array(places[table[column].to_numpy()], type=pa.int64())
    return table.set_column(table.schema.get_field_index(column), column, moved)
