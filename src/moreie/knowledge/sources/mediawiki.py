"""MediaWiki XML exports (`.xml`, `.xml.bz2`, `.gz`, `.zst`), cut at page ends and read stretch by stretch.

Articles alone are kept: other namespaces, redirects and disambiguation pages are left out.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, XMLParser

import regex

from moreie.errors import DataFormatError, SourceError
from moreie.knowledge.sources.articles import OnBad, Progress, open_bytes
from moreie.knowledge.sources.wikitext import parse_page
from moreie.schema import Article, Link

_REDIRECT = regex.compile(r"\s*#redirect\s*:?\s*\[\[([^\]|#]+)", regex.IGNORECASE)
_PAGE_END = b"</page>"
_TITLE = regex.compile(rb"<title>(.*?)</title>", regex.DOTALL)
BLOCK = 1 << 20
STRETCH_BYTES = 2 << 20  # of XML that one worker reads at a time
STREAMS_PER_STRETCH = 4  # of a multistream dump: of a hundred pages each
LONGEST_PAGE = 512 << 20


@dataclass(frozen=True, slots=True)
class RawPage:
    """A page as the export has it."""

    id: str
    title: str
    namespace: str
    redirect: str | None
    wikitext: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """Whole pages of an export: their XML, or where they lie in a multistream file (bytes from, to)."""

    path: Path
    first_page: int
    content: bytes | None = None
    span: tuple[int, int] | None = None

    def xml(self) -> bytes:
        """Raises `DataFormatError` where a multistream file cannot be decompressed."""
        if self.content is not None:
            return self.content
        start, end = self.span or (0, 0)
        with self.path.open("rb") as file:
            file.seek(start)
            try:
                return bz2.decompress(file.read(end - start))
            except (OSError, ValueError, EOFError) as problem:
                raise DataFormatError(
                    f"damaged between bytes {start:,} and {end:,} ({problem})", self.path
                ) from problem


@dataclass(frozen=True, slots=True)
class Reading:
    """What a stretch holds: articles (links as written), redirects (title → target), and what could not be read."""

    articles: list[Article]
    redirects: dict[str, str]
    bad: list[DataFormatError]


def cut_dump(path: Path, progress: Progress | None = None) -> Iterator[Stretch]:
    """An export in stretches of whole pages. A multistream dump whose index lies beside it is not even decompressed.

    Raises:
        SourceError: no export, of an unknown document type, or cut off; the stretches before it have been given.
    """
    if (index := multistream_index(path)) is not None:
        yield from _cut_streams(path, index, progress)
        return
    pages = 0
    try:
        with open_bytes(path, progress) as stream:
            rest = _behind_header(path, stream.read(BLOCK))
            while block := stream.read(BLOCK):
                rest += block
                if len(rest) < STRETCH_BYTES:
                    continue
                end = rest.rfind(_PAGE_END) + len(_PAGE_END)
                if end < len(_PAGE_END):
                    if len(rest) > LONGEST_PAGE:
                        raise SourceError(f"{path}: no page ends within {LONGEST_PAGE >> 20} MB behind page {pages}")
                    continue
                yield Stretch(path, pages, rest[:end])
                pages += rest.count(_PAGE_END, 0, end)
                rest = rest[end:]
    except (EOFError, OSError) as problem:
        raise SourceError(f"{path}: damaged or cut off behind page {pages} ({problem})") from problem
    end = rest.rfind(_PAGE_END) + len(_PAGE_END)
    if end >= len(_PAGE_END):
        yield Stretch(path, pages, rest[:end])
        pages += rest.count(_PAGE_END, 0, end)
        rest = rest[end:]
    if not pages:
        raise SourceError(f"{path}: holds no <page>; is it a MediaWiki XML export?")
    if b"</mediawiki>" not in rest:
        raise SourceError(f"{path}: damaged or cut off behind page {pages} (no </mediawiki> at its end)")


def _behind_header(path: Path, start: bytes) -> bytes:
    begin = start.find(b"<page>")
    header = start if begin < 0 else start[:begin]
    # A dump declares no entities: a document type is refused, for it could unfold into gigabytes.
    if b"<!doctype" in header.lower():
        raise SourceError(f"{path}: declares a document type, which no MediaWiki export does; not read")
    if b"<mediawiki" not in header or begin < 0:
        raise SourceError(f"{path}: holds no <page>; is it a MediaWiki XML export?")
    return start[begin:]


def multistream_index(path: Path) -> Path | None:
    """The index of a multistream dump, if it lies beside it under the name it is published with."""
    if "-multistream" not in path.name or path.suffix != ".bz2":
        return None
    name = regex.sub(r"-multistream(\d*)\.xml", r"-multistream-index\1.txt", path.name)
    for candidate in (path.with_name(name), path.with_name(name.removesuffix(".bz2"))):
        if candidate.is_file():
            return candidate
    return None


def _cut_streams(path: Path, index: Path, progress: Progress | None) -> Iterator[Stretch]:
    size = path.stat().st_size
    offsets: list[int] = []
    firsts: list[int] = []
    try:
        with open_bytes(index) as lines:
            for number, line in enumerate(lines):
                offset = int(line.partition(b":")[0])
                if not offsets or offset != offsets[-1]:
                    offsets.append(offset)
                    firsts.append(number)
    except (ValueError, EOFError, OSError) as problem:
        raise SourceError(f"{index}: damaged index ({problem}); fetch it again, or move it away") from problem
    if not offsets or offsets != sorted(set(offsets)) or offsets[-1] >= size:
        raise SourceError(f"{index}: not the index of {path.name}, or the dump is cut off; fetch both again")
    # What follows the last stream of pages is the stream that closes the document.
    starts = offsets[::STREAMS_PER_STRETCH]
    for (start, end), first in zip(pairwise([*starts, size]), firsts[::STREAMS_PER_STRETCH], strict=True):
        yield Stretch(path, first, span=(start, end))
        if progress:
            progress(end - start)


def read_stretch(stretch: Stretch) -> Reading:
    """Articles, redirects, and what could not be read of a stretch."""
    reading = Reading([], {}, [])
    for page in _raw_pages(stretch, reading.bad):
        if page.redirect:
            reading.redirects[page.title] = page.redirect
        elif page.namespace == "0":
            if not page.title or not page.wikitext.strip():
                reading.bad.append(
                    DataFormatError(f"page {page.id or '?'} ({page.title or 'no title'}) has no text", stretch.path)
                )
            elif (article := _article(page)) is not None:
                reading.articles.append(article)
    return reading


def _raw_pages(stretch: Stretch, bad: list[DataFormatError]) -> Iterator[RawPage]:
    try:
        content = stretch.xml()
    except DataFormatError as problem:
        bad.append(problem)
        return
    end = content.rfind(_PAGE_END) + len(_PAGE_END)  # a last stream closes the document behind its pages
    root = _parsed(content[:end])
    if not isinstance(root, ParseError):
        for element in root:
            yield _raw_page(element)
        return
    for number, page in enumerate(content[:end].split(_PAGE_END)[:-1], stretch.first_page + 1):
        found = _parsed(page + _PAGE_END)  # one page is damaged, the others are not
        if isinstance(found, ParseError):
            title = _TITLE.search(page)
            name = title.group(1).decode("utf-8", "replace") if title else "no title"
            bad.append(DataFormatError(f"page number {number} ({name}): damaged XML ({found})", stretch.path))
            continue
        for element in found:
            yield _raw_page(element)


def _parsed(pages: bytes) -> Element | ParseError:
    parser = XMLParser(encoding="utf-8")
    try:
        parser.feed(b"<mediawiki>")
        parser.feed(pages)
        parser.feed(b"</mediawiki>")
        root: Element = parser.close()
    except ParseError as problem:
        return problem
    return root


def read_dump(path: Path, on_bad: OnBad | None = None, progress: Progress | None = None) -> Iterator[Article]:
    """Articles of a dump, in its order, links led through redirects: read twice, for one process and a dump whose
    redirects fit into memory. (`moreie corpus build` reads any dump, in parallel.)

    `on_bad` is told of pages that cannot be read; without it they raise.

    Raises:
        SourceError: no export, or cut off; the pages before the damage have been given by then.
    """
    redirects: dict[str, str] = {}
    for stretch in cut_dump(path):
        for page in _raw_pages(stretch, []):
            if page.redirect:
                redirects[page.title] = page.redirect
    names: dict[str, list[str]] = {}
    for title, target in redirects.items():
        names.setdefault(_resolve(target, redirects), []).append(title)
    for stretch in cut_dump(path, progress):
        reading = read_stretch(stretch)
        for bad in reading.bad:
            if on_bad is None:
                raise bad
            on_bad(bad)
        for article in reading.articles:
            paragraphs = tuple(
                replace(p, links=tuple(Link(x.start, x.end, _resolve(x.target, redirects)) for x in p.links))
                for p in article.paragraphs
            )
            yield replace(article, paragraphs=paragraphs, redirects=tuple(sorted(names.get(article.title, ()))))


def _resolve(title: str, redirects: dict[str, str]) -> str:
    seen = set()
    while title in redirects and title not in seen:
        seen.add(title)
        title = redirects[title]
    return title


def _article(page: RawPage) -> Article | None:
    """None for a page that only disambiguates, or whose text is all markup."""
    parsed = parse_page(page.wikitext)
    if parsed.disambiguation or page.title.endswith("(disambiguation)") or not parsed.paragraphs:
        return None
    return Article(page.id, page.title, parsed.paragraphs, images=parsed.images)


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _raw_page(element: Element) -> RawPage:
    fields = {_local(child): child for child in element}
    revision = {_local(child): child for child in fields["revision"]} if "revision" in fields else {}
    text = (revision["text"].text or "") if "text" in revision else ""
    redirect = fields["redirect"].get("title") if "redirect" in fields else None
    if redirect is None and (match := _REDIRECT.match(text)):
        redirect = match.group(1).replace("_", " ").strip()
    title = _text(fields, "title")
    return RawPage(
        id=_text(fields, "id"),
        title=title,
        # Exports before version 0.5 carry no namespace; there the title's prefix tells.
        namespace=_text(fields, "ns") or ("0" if not _prefixed(title) else "other"),
        redirect=redirect,
        wikitext=text,
    )


def _text(fields: dict[str, Any], name: str) -> str:
    return (fields[name].text or "").strip() if name in fields else ""


_PREFIXES = frozenset(
    "talk user wikipedia file image mediawiki template help category portal draft module project special".split()  # noqa: SIM905
)


def _prefixed(title: str) -> bool:
    prefix, colon, _ = title.partition(":")
    return bool(colon) and prefix.lower().removesuffix(" talk") in _PREFIXES
