"""Articles from JSONL files, plain, `.gz` or `.zst`, streamed."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moreie.errors import DataFormatError, SourceError
from moreie.schema import Article, ArticleImage, Link, Paragraph

OnBad = Callable[[DataFormatError], None]
Progress = Callable[[int], None]
LINES_BYTES = 4 << 20


class LinkRow(BaseModel):
    start: int = Field(ge=0)
    end: int
    target: str


class ParagraphRow(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)
    text: str
    introduction: bool | None = None
    section: str = ""
    links: list[LinkRow] = []


class ImageRow(BaseModel):
    file: str
    caption: str = ""


class ArticleRow(BaseModel):
    """One line of article JSONL. Plain strings among `paragraphs` are body text, the first one the introduction."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    id: str = Field(min_length=1)
    title: str = Field(min_length=1)
    paragraphs: list[str | ParagraphRow] = Field(min_length=1)
    url: str | None = None
    redirects: list[str] = []
    images: list[ImageRow] = []

    def article(self) -> Article:
        """Raises `ValueError` where a link lies outside its paragraph."""
        return Article(
            self.id,
            self.title,
            tuple(_paragraph(row, i == 0) for i, row in enumerate(self.paragraphs)),
            self.url,
            tuple(self.redirects),
            tuple(ArticleImage(image.file, image.caption) for image in self.images),
        )


def article_row(article: Article) -> dict[str, Any]:
    """The JSONL row of an article, with what it has alone."""
    row: dict[str, Any] = {"id": article.id, "title": article.title}
    if article.url:
        row["url"] = article.url
    row["paragraphs"] = [
        {
            "text": paragraph.text,
            "introduction": paragraph.introduction,
            **({"section": paragraph.section} if paragraph.section else {}),
            "links": [{"start": link.start, "end": link.end, "target": link.target} for link in paragraph.links],
        }
        for paragraph in article.paragraphs
    ]
    if article.redirects:
        row["redirects"] = list(article.redirects)
    if article.images:
        row["images"] = [{"file": image.file, "caption": image.caption} for image in article.images]
    return row


def _paragraph(row: str | ParagraphRow, first: bool) -> Paragraph:
    if isinstance(row, str):
        return Paragraph(row, first)
    for link in row.links:
        if not link.start < link.end <= len(row.text):
            raise ValueError(f"link to {link.target!r} spans {link.start}..{link.end} outside its paragraph")
    links = tuple(Link(link.start, link.end, link.target) for link in row.links)
    return Paragraph(row.text, first if row.introduction is None else row.introduction, row.section, links)


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines of an article file; `first` is the number of the first one."""

    path: Path
    first: int
    content: bytes


def cut_lines(path: Path, progress: Progress | None = None, size: int = LINES_BYTES) -> Iterator[Lines]:
    """An article file in stretches of whole lines of about `size` bytes.

    Raises:
        SourceError: the file is absent, or its compression is damaged or cut off; the lines before it have been given.
    """
    first = 1
    try:
        with open_bytes(path, progress) as stream:
            while block := stream.read(size):
                if not block.endswith(b"\n"):
                    block += stream.readline()
                yield Lines(path, first, block)
                first += block.count(b"\n")
    except (EOFError, OSError) as problem:
        raise SourceError(f"{path}: unreadable behind line {first - 1} ({problem}); it may be cut off") from problem


def parse_lines(lines: Lines, on_bad: OnBad | None = None) -> Iterator[Article]:
    """Articles of a stretch; `on_bad` gets each malformed line instead of raising.

    Raises:
        DataFormatError: a malformed line, with file and line number.
    """
    for number, line in enumerate(lines.content.split(b"\n"), lines.first):
        if not line.strip():
            continue
        try:
            yield ArticleRow.model_validate_json(line).article()
        except ValidationError as problem:
            error = problem.errors()[0]
            place = ".".join(str(part) for part in error["loc"] if isinstance(part, int | str))
            _report(DataFormatError(f"{place or 'line'}: {error['msg']}", lines.path, number), on_bad)
        except ValueError as problem:
            _report(DataFormatError(str(problem), lines.path, number), on_bad)


def read_articles(path: Path, on_bad: OnBad | None = None, progress: Progress | None = None) -> Iterator[Article]:
    """Stream articles of a JSONL file (format: `docs/knowledge.md`).

    `on_bad` gets each malformed line instead of raising; `progress` the number of file bytes read since last told.

    Raises:
        SourceError, DataFormatError: as `cut_lines` and `parse_lines`.
    """
    for lines in cut_lines(path, progress):
        yield from parse_lines(lines, on_bad)


def _report(bad: DataFormatError, on_bad: OnBad | None) -> None:
    if on_bad is None:
        raise bad from None
    on_bad(bad)


class _Counting(io.RawIOBase):
    """A byte stream that tells how much of the file has been read."""

    def __init__(self, stream: io.RawIOBase, progress: Progress | None):
        self.stream, self.progress = stream, progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        count: int = self.stream.readinto(buffer) or 0  # type: ignore[arg-type]
        if self.progress:
            self.progress(count)
        return count

    def close(self) -> None:
        self.stream.close()
        super().close()


@contextmanager
def open_bytes(path: Path, progress: Progress | None = None) -> Iterator[io.BufferedIOBase]:
    """Bytes of a plain, gzip, bzip2 or Zstandard file; `progress` hears the compressed bytes read."""
    import bz2

    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    with path.open("rb", buffering=0) as file, io.BufferedReader(_Counting(file, progress), 1 << 20) as raw:
        if path.suffix == ".gz":
            yield gzip.GzipFile(fileobj=raw)
        elif path.suffix == ".bz2":
            yield bz2.BZ2File(raw)
        elif path.suffix == ".zst":
            yield io.BufferedReader(_Zstandard(raw), 1 << 20)
        else:
            yield raw


@contextmanager
def open_text(path: Path, progress: Progress | None = None) -> Iterator[io.TextIOBase]:
    """UTF-8 lines of such a file."""
    with open_bytes(path, progress) as stream, io.TextIOWrapper(stream, encoding="utf-8") as text:  # type: ignore[type-var]
        yield text


class _Zstandard(io.RawIOBase):
    """Zstandard frames one after another; unlike the library's reader it notices when the last one is cut off."""

    def __init__(self, source: io.BufferedReader[Any]):
        self.source = source
        self.data = b""
        self.position = 0
        self.frame: Any = None

    def readable(self) -> bool:
        return True

    def _more(self) -> bytes:
        import zstandard

        while True:
            unused = b""
            if self.frame is not None and self.frame.eof:
                unused, self.frame = self.frame.unused_data, None
            block = unused or self.source.read1(1 << 18)
            if not block:
                if self.frame is not None:
                    raise EOFError("compressed data ends before its end mark")
                return b""
            if self.frame is None:
                self.frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                if data := bytes(self.frame.decompress(block)):
                    return data
            except zstandard.ZstdError as problem:
                raise OSError(str(problem)) from problem

    def readinto(self, buffer: Any) -> int:
        if self.position == len(self.data):
            self.data, self.position = self._more(), 0
        part = self.data[self.position : self.position + len(buffer)]
        buffer[: len(part)] = part
        self.position += len(part)
        return len(part)
