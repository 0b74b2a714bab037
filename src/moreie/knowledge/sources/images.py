"""Image manifests: which picture belongs to which article."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moreie.errors import DataFormatError
from moreie.knowledge.sources.articles import OnBad, _report, open_text


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One picture of a manifest. `file` is its name in the corpus, `path` where it lies now."""

    file: str
    path: Path
    title: str
    article_id: str | None = None
    caption: str = ""
    licence: str = ""
    attribution: str = ""


class _Row(BaseModel):
    """One line; further fields (source ids, kinds, …) are allowed and not read."""

    model_config = ConfigDict(extra="ignore")
    file: str = Field(min_length=1)
    title: str = Field(min_length=1)
    article_id: str | None = None
    page_id: str | None = None
    caption: str = ""
    licence: str = ""
    attribution: str = ""


def read_image_manifest(path: Path, root: Path, on_bad: OnBad | None = None) -> Iterator[ImageEntry]:
    """Entries of a JSONL manifest whose files lie under `root`.

    Raises:
        DataFormatError: a malformed line, a file outside `root`, or a file that is not there; with `on_bad` it is
            told instead and the line skipped.
    """
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield _entry(_Row.model_validate_json(line), root)
            except ValidationError as problem:
                error = problem.errors()[0]
                place = ".".join(map(str, error["loc"]))
                _report(DataFormatError(f"{place + ': ' if place else ''}{error['msg']}", path, number), on_bad)
            except ValueError as problem:
                _report(DataFormatError(str(problem), path, number), on_bad)


def _entry(row: _Row, root: Path) -> ImageEntry:
    relative = PurePosixPath(row.file)
    if relative.is_absolute() or ".." in relative.parts or "\\" in row.file or "\0" in row.file:
        raise ValueError(f"file {row.file!r} leads outside the image folder")
    place = root / relative
    if not place.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"file {row.file!r} is a link that leads outside the image folder")
    if not place.is_file():
        raise ValueError(f"file {row.file!r} is not in {root}")
    article = row.article_id or row.page_id
    return ImageEntry(row.file, place, row.title, article, row.caption, row.licence, row.attribution)
