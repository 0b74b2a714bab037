"""Pictures of articles: a manifest says which file belongs to which article; files lie in a folder or a tar archive, or
in the manifest itself (WIT)."""

from __future__ import annotations

import base64
import binascii
import csv
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moreie.errors import DataFormatError, SourceError
from moreie.knowledge.sources.articles import OnBad, _report, open_text

# Column names of WIT: the data set's own, and those of its edition with image bytes.
_WIT_CAPTIONS = ("caption_reference_description", "caption_alt_text_description", "caption_attribution_description")
_WIT_BYTES = ("b64_bytes", "image_bytes")
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One picture of a manifest. `file` is its name in the corpus; it lies at `path`, or its bytes are `content`."""

    file: str
    title: str
    path: Path | None = None
    content: bytes | None = field(default=None, repr=False)
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


def read_images(manifest: Path, place: Path, on_bad: OnBad | None = None, language: str = "en") -> Iterator[ImageEntry]:
    """Pictures of a JSONL manifest, or of a WIT table (`.tsv`, `.tsv.gz`: its rows of one language), whose files lie
    in the folder or tar archive `place`.

    Raises:
        DataFormatError: a malformed line, a file outside `place`, or a file that is not there; with `on_bad` it is
            told instead and the line skipped.
        SourceError: the manifest or the archive cannot be read.
    """
    wit = any(part == ".tsv" for part in manifest.suffixes)
    rows = _wit_rows(manifest, on_bad, language) if wit else _manifest_rows(manifest, on_bad)
    if place.is_file() and place.name.endswith(_TAR):
        yield from _from_archive(rows, manifest, place, on_bad)
        return
    for number, entry in rows:
        try:
            yield entry if entry.content is not None else replace(entry, path=_place(entry.file, place))
        except ValueError as problem:
            _report(DataFormatError(str(problem), manifest, number), on_bad)


def _manifest_rows(manifest: Path, on_bad: OnBad | None) -> Iterator[tuple[int, ImageEntry]]:
    with open_text(manifest) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _Row.model_validate_json(line)
            except ValidationError as problem:
                error = problem.errors()[0]
                place = ".".join(map(str, error["loc"]))
                _report(DataFormatError(f"{place + ': ' if place else ''}{error['msg']}", manifest, number), on_bad)
                continue
            article = row.article_id or row.page_id
            entry = ImageEntry(row.file, row.title, None, None, article, row.caption, row.licence, row.attribution)
            yield number, entry


def _wit_rows(table: Path, on_bad: OnBad | None, language: str) -> Iterator[tuple[int, ImageEntry]]:
    csv.field_size_limit(sys.maxsize)  # image bytes are long
    with open_text(table) as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = {"page_title", "image_url"} - set(rows.fieldnames or ())
        if missing:
            raise SourceError(f"{table}: no column {' and no column '.join(sorted(missing))}; is it a WIT table?")
        for row in rows:
            if row.get("language", language) != language:
                continue
            title, url = row["page_title"] or "", row["image_url"] or ""
            file = unquote(PurePosixPath(urlparse(url).path).name).replace("_", " ")
            if not title or not file or None in row:
                _report(DataFormatError("a row with too few or too many columns", table, rows.line_num), on_bad)
                continue
            encoded = next((row[name] for name in _WIT_BYTES if row.get(name)), None)
            try:
                content = base64.b64decode(encoded, validate=True) if encoded else None
            except binascii.Error as problem:
                _report(DataFormatError(f"{file}: its bytes are no base 64 ({problem})", table, rows.line_num), on_bad)
                continue
            caption = next((row[name] for name in _WIT_CAPTIONS if row.get(name)), "") or ""
            yield rows.line_num, ImageEntry(file, title, None, content, None, caption)


def _place(file: str, folder: Path) -> Path:
    relative = PurePosixPath(file)
    if relative.is_absolute() or ".." in relative.parts or "\\" in file or "\0" in file:
        raise ValueError(f"file {file!r} leads outside the image folder")
    # A picture is saved under its title, with spaces or, as in URLs, with underscores.
    for name in dict.fromkeys((file, file.replace(" ", "_"))):
        place = folder / name
        if not place.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"file {file!r} is a link that leads outside the image folder")
        if place.is_file():
            return place
    raise ValueError(f"file {file!r} is not in {folder}")


def _from_archive(
    rows: Iterator[tuple[int, ImageEntry]], manifest: Path, archive: Path, on_bad: OnBad | None
) -> Iterator[ImageEntry]:
    """Entries in the archive's order: it is read once, from its beginning to its end."""
    wanted: dict[str, list[tuple[int, ImageEntry]]] = {}
    for number, entry in rows:
        if entry.content is not None:
            yield entry
        else:
            wanted.setdefault(entry.file.replace(" ", "_"), []).append((number, entry))
    try:
        with tarfile.open(archive, "r|*") as members:
            for member in members:
                name = member.name.removeprefix("./").replace(" ", "_")
                entries = wanted.pop(name, None) or wanted.pop(PurePosixPath(name).name, [])
                content = members.extractfile(member) if entries and member.isfile() else None
                if content is not None:
                    data = content.read()
                    yield from (replace(entry, content=data) for _, entry in entries)
    except (tarfile.TarError, OSError, EOFError) as problem:
        raise SourceError(f"{archive}: cut off or damaged ({problem})") from problem
    for number, entry in (item for items in wanted.values() for item in items):
        _report(DataFormatError(f"file {entry.file!r} is not in {archive}", manifest, number), on_bad)
