"""MediaWiki XML exports (`.xml`, `.xml.bz2`, `.gz`, `.zst`), streamed page by page in constant memory.

Articles alone are kept: other namespaces, redirects and disambiguation pages are left out. Redirects are resolved:
a first pass over the titles learns them, so that links lead to the pages they mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

import regex

from moreie.errors import DataFormatError, SourceError
from moreie.knowledge.sources.articles import OnBad, Progress, open_text
from moreie.knowledge.sources.wikitext import parse_page
from moreie.schema import Article, Link

_REDIRECT = regex.compile(r"\s*#redirect\s*:?\s*\[\[([^\]|#]+)", regex.IGNORECASE)
# A dump declares no entities: a document type is refused, for it could unfold into gigabytes.
_DOCTYPE = regex.compile(r"<!DOCTYPE", regex.IGNORECASE)
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class RawPage:
    """A page as the export has it."""

    id: str
    title: str
    namespace: str
    redirect: str | None
    wikitext: str


def read_dump(path: Path, on_bad: OnBad | None = None, progress: Progress | None = None) -> Iterator[Article]:
    """Articles of a dump, in its order; `progress` hears the file bytes read while articles are made.

    `on_bad` is told of pages without text or title; without it they raise.

    Raises:
        SourceError: no export, or cut off; the pages before the damage have been given by then.
    """
    redirects = {page.title: page.redirect for page in read_pages(path) if page.redirect}
    base: dict[str, list[str]] = {}
    for title, target in redirects.items():
        base.setdefault(_resolve(target, redirects), []).append(title)
    for page in read_pages(path, progress):
        if page.namespace != "0" or page.redirect:
            continue
        if not page.title or not page.wikitext.strip():
            bad = DataFormatError(f"page {page.id or '?'} ({page.title or 'no title'}) has no text", path)
            if on_bad is None:
                raise bad
            on_bad(bad)
            continue
        parsed = parse_page(page.wikitext)
        if parsed.disambiguation or page.title.endswith("(disambiguation)") or not parsed.paragraphs:
            continue
        paragraphs = tuple(
            replace(p, links=tuple(Link(x.start, x.end, _resolve(x.target, redirects)) for x in p.links))
            for p in parsed.paragraphs
        )
        names = tuple(sorted(base.get(page.title, ())))
        yield Article(page.id, page.title, paragraphs, redirects=names, images=parsed.images)


def _resolve(title: str, redirects: dict[str, str]) -> str:
    seen = set()
    while title in redirects and title not in seen:
        seen.add(title)
        title = redirects[title]
    return title


def read_pages(path: Path, progress: Progress | None = None) -> Iterator[RawPage]:
    """Every page of an export.

    Raises:
        SourceError: not an XML export, an unknown document type, or a file that is cut off.
    """
    count = 0
    try:
        with open_text(path, progress) as stream:
            for page in _pages(stream):
                count += 1
                yield page
    except (ParseError, EOFError, OSError, UnicodeDecodeError) as problem:
        raise SourceError(f"{path}: damaged or cut off behind page {count} ({problem})") from problem
    except _DocumentTypeError:
        raise SourceError(f"{path}: declares a document type, which no MediaWiki export does; not read") from None
    if not count:
        raise SourceError(f"{path}: holds no <page>; is it a MediaWiki XML export?")


class _DocumentTypeError(Exception):
    pass


def _pages(stream: IO[str] | Any) -> Iterator[RawPage]:
    parser: Any = XMLPullParser(("start", "end"))
    root: Element | None = None
    tail = ""
    while block := stream.read(BLOCK):
        # Page text has its "<" escaped, so a bare declaration can only be markup.
        if _DOCTYPE.search(tail + block):
            raise _DocumentTypeError
        tail = block[-16:]
        parser.feed(block)
        for event, element in parser.read_events():
            if not isinstance(element, Element):
                continue
            if root is None:
                root = element
            if event == "end" and _local(element) == "page":
                yield _raw_page(element)
                root.clear()
    parser.close()


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _raw_page(element: Element) -> RawPage:
    fields = {_local(child): child for child in element}
    revision = {_local(child): child for child in fields["revision"]} if "revision" in fields else {}
    text = (revision["text"].text or "") if "text" in revision else ""
    redirect = fields["redirect"].get("title") if "redirect" in fields else None
    if redirect is None and (match := _REDIRECT.match(text)):
        redirect = match.group(1).replace("_", " ").strip()
    return RawPage(
        id=_text(fields, "id"),
        title=_text(fields, "title"),
        # Exports before version 0.5 carry no namespace; there the title's prefix tells.
        namespace=_text(fields, "ns") or ("0" if not _prefixed(_text(fields, "title")) else "other"),
        redirect=redirect,
        wikitext=text,
    )


def _text(fields: dict[str, Element], name: str) -> str:
    return (fields[name].text or "").strip() if name in fields else ""


_PREFIXES = frozenset(
    "talk user wikipedia file image mediawiki template help category portal draft module project special".split()  # noqa: SIM905
)


def _prefixed(title: str) -> bool:
    prefix, colon, _ = title.partition(":")
    return bool(colon) and prefix.lower().removesuffix(" talk") in _PREFIXES
