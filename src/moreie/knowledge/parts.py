"""Parts of a build: stretches of sources that workers turn into rows, each kept in a folder of its own once done.

A build that is cut off finds its finished parts again: they are named by source and number, and the same sources are
always cut in the same places.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather

from moreie.errors import DataFormatError
from moreie.knowledge.passages import Rows, rows_of
from moreie.knowledge.sources.articles import Lines, Progress, cut_lines, parse_lines
from moreie.knowledge.sources.mediawiki import Stretch, cut_dump, read_stretch

PLAN = "plan.json"
# Changes whenever parts are cut or read otherwise: finished parts of an older version are of no use then.
VERSION = 1
REDIRECT_ROWS = pa.schema([("title", pa.string()), ("target", pa.string())])


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the `source`-th source."""

    source: int
    number: int
    content: Lines | Stretch

    @property
    def name(self) -> str:
        return f"{self.source:03}-{self.number:06}"


@dataclass(frozen=True, slots=True)
class PartRows:
    """What a part holds: rows (keys from 0), redirects (title → target), and what could not be read."""

    rows: Rows
    redirects: pa.Table
    bad: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class TextSource:
    """A file of articles, or a dump."""

    path: Path
    dump: bool

    def parts(self, source: int, progress: Progress | None = None) -> Iterator[Part]:
        """Raises `SourceError` where the file is damaged; the parts before it have been given."""
        cut: Callable[[Path, Progress | None], Iterator[Lines | Stretch]] = cut_dump if self.dump else cut_lines
        for number, stretch in enumerate(cut(self.path, progress)):
            yield Part(source, number, stretch)


def read_part(part: Part) -> PartRows:
    """Rows of a part; runs in a worker. What cannot be read is collected, not raised: the builder decides."""
    bad: list[DataFormatError] = []
    redirects: dict[str, str] = {}
    if isinstance(part.content, Lines):
        rows = rows_of(parse_lines(part.content, bad.append))
    else:
        reading = read_stretch(part.content)
        rows, redirects = rows_of(reading.articles), reading.redirects
        bad += reading.bad
    table = pa.table({"title": list(redirects), "target": list(redirects.values())}, schema=REDIRECT_ROWS)
    return PartRows(rows, table, tuple((error.problem, error.line) for error in bad))


class PartStore:
    """Finished parts in a folder, one folder each; a part is there whole or not at all."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.resumed = 0

    @classmethod
    def open(cls, folder: Path, sources: Sequence[TextSource]) -> PartStore:
        """The parts of these sources; those of others, or of files that have changed since, are thrown away."""
        plan = json.dumps(
            {
                "version": VERSION,
                "sources": [
                    [str(s.path.absolute()), s.path.stat().st_size, s.path.stat().st_mtime_ns, s.dump] for s in sources
                ],
            }
        )
        store = cls(folder)
        path = folder / PLAN
        if folder.exists() and not (path.is_file() and path.read_text(encoding="utf-8") == plan):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(".*"):
            shutil.rmtree(unfinished)
        path.write_text(plan, encoding="utf-8")
        store.resumed = sum(1 for _ in folder.glob("[0-9]*"))
        return store

    def has(self, part: Part) -> bool:
        return (self.folder / part.name).is_dir()

    def save(self, part: Part, done: PartRows) -> None:
        """Keep a finished part; all of it appears in one rename. Runs in a worker."""
        unfinished = Path(tempfile.mkdtemp(prefix=f".{part.name}-", dir=self.folder))
        for field in fields(Rows):
            feather.write_feather(getattr(done.rows, field.name), unfinished / field.name, compression="lz4")
        feather.write_feather(done.redirects, unfinished / "redirects", compression="lz4")
        (unfinished / "bad.json").write_text(json.dumps(done.bad), encoding="utf-8")
        os.replace(unfinished, self.folder / part.name)

    def names(self, source: int) -> list[str]:
        """Finished parts of a source, in its order."""
        return sorted(path.name for path in self.folder.glob(f"{source:03}-*"))

    def rows(self, name: str) -> Rows:
        return Rows(*(feather.read_table(self.folder / name / field.name) for field in fields(Rows)))

    def redirects(self, name: str) -> pa.Table:
        return feather.read_table(self.folder / name / "redirects")

    def bad(self, name: str, path: Path) -> list[DataFormatError]:
        found = json.loads((self.folder / name / "bad.json").read_text(encoding="utf-8"))
        return [DataFormatError(problem, path, line) for problem, line in found]
