"""One page's wikitext → plain paragraphs with links, and its pictures. The parsing is `mwparserfromhell`'s.

What goes: templates (but for a few whose text is part of the sentence), tables, references, comments, galleries,
categories, files, and the sections that hold no prose (references, external links, …). Lists stay, one item a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import mwparserfromhell
import regex
from mwparserfromhell.nodes import (
    Comment,
    ExternalLink,
    Heading,
    HTMLEntity,
    Node,
    Tag,
    Template,
    Text,
    Wikilink,
)
from mwparserfromhell.wikicode import Wikicode

from moreie.schema import ArticleImage, Link, Paragraph

SKIPPED_SECTIONS = frozenset(
    {
        "references",
        "external links",
        "see also",
        "notes",
        "footnotes",
        "further reading",
        "bibliography",
        "sources",
        "citations",
        "notes and references",
        "gallery",
        "works cited",
    }
)
SKIPPED_TAGS = frozenset(
    {"ref", "table", "gallery", "math", "timeline", "imagemap", "score", "references", "chem", "syntaxhighlight"}
)
BLOCK_TAGS = frozenset({"br", "p", "div", "blockquote", "center", "poem", "hr"})
FILE_PREFIXES = ("file:", "image:")
# Templates whose text belongs to the sentence, and which of their positional arguments hold it.
TEXT_ARGUMENT = {
    "nowrap": 1, "nobr": 1, "small": 1, "big": 1, "em": 1, "strong": 1, "abbr": 1, "visible anchor": 1, "vanchor": 1,
    "lang": 2, "transl": 2, "transliteration": 2, "tooltip": 1, "ill": 1, "interlanguage link": 1, "ship": 2,
    "ussubs": 1, "sic": 1, "as of": 1, "circa": 1, "c.": 1, "quote": 1, "blockquote": 1, "cquote": 1, "script": 2,
    "lang-de": 1, "lang-fr": 1, "lang-es": 1, "lang-it": 1, "lang-la": 1, "lang-ru": 1, "lang-el": 1, "lang-ar": 1,
}  # fmt: skip
WORD_BEFORE = {"circa": "c. ", "c.": "c. ", "as of": "as of "}
_DATE_TEMPLATES = frozenset({"start date", "end date", "birth date", "death date", "dts", "date"})
_MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
_PICTURE = regex.compile(r"\.(jpe?g|png|gif|tiff?|webp|svg)$", regex.IGNORECASE)
_SPACES = regex.compile(r"[ \t\u00a0]+")
_QUOTES = regex.compile(r"''+")
_EMPTY_BRACKETS = regex.compile(r"\s?\(\s*[;,:\s]*\)")


@dataclass(frozen=True, slots=True)
class Page:
    """What a page holds for a knowledge corpus."""

    paragraphs: tuple[Paragraph, ...]
    images: tuple[ArticleImage, ...]
    disambiguation: bool


def parse_page(wikitext: str) -> Page:
    """Paragraphs (the introduction first), pictures, and whether the page only disambiguates."""
    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    writer = _Writer()
    writer.nodes(code.nodes)
    writer.end_paragraph()
    return Page(tuple(writer.paragraphs), tuple(writer.images.values()), writer.disambiguation)


class _Writer:
    """Walks the parse tree once, writing text and remembering where links stand in it."""

    def __init__(self) -> None:
        self.paragraphs: list[Paragraph] = []
        self.images: dict[str, ArticleImage] = {}
        self.disambiguation = False
        self._seen: set[str] = set()
        self._text: list[str] = []
        self._length = 0
        self._links: list[Link] = []
        self._section = ""
        self._introduction = True
        self._skipping_level: int | None = None

    def nodes(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self._node(node)

    def _node(self, node: Node) -> None:
        if isinstance(node, Heading):
            self._heading(node)
        elif isinstance(node, Template):
            self._template(node)
        elif isinstance(node, Wikilink):
            self._wikilink(node)
        elif self._skipping_level is not None or isinstance(node, Comment):
            return
        elif isinstance(node, Text):
            self._write_lines(str(node.value))
        elif isinstance(node, HTMLEntity):
            self._write(_entity(node))
        elif isinstance(node, ExternalLink):
            if node.title is not None:
                self.nodes(node.title.nodes)
        elif isinstance(node, Tag):
            self._tag(node)

    def _heading(self, node: Heading) -> None:
        self.end_paragraph()
        self._introduction = False
        title = node.title.strip_code().strip()
        if self._skipping_level is None or node.level <= self._skipping_level:
            self._skipping_level = node.level if title.lower() in SKIPPED_SECTIONS else None
            self._section = title

    def _tag(self, node: Tag) -> None:
        name = str(node.tag).strip().lower()
        if name in SKIPPED_TAGS:
            return
        if name in ("li", "dt", "dd") and node.wiki_markup:
            if node.wiki_markup not in (":", ";"):
                self._write("• " if str(node.wiki_markup) == "*" else "– ")
            return
        if name in BLOCK_TAGS:
            self._write("\n")
        if node.contents is not None:
            self.nodes(node.contents.nodes)
        if name in BLOCK_TAGS:
            self._write("\n")

    def _template(self, node: Template) -> None:
        name = str(node.name).strip().lower().replace("_", " ")
        if "disambig" in name or name in ("dab", "hndis", "geodis", "surname", "given name"):
            self.disambiguation = True
        if self._skipping_level is not None:
            return
        if "infobox" in name or name.startswith("taxobox"):
            self._infobox_image(node)
        elif name in TEXT_ARGUMENT:
            self._write(WORD_BEFORE.get(name, ""))
            self._argument(node, TEXT_ARGUMENT[name])
        elif name in ("convert", "cvt"):
            values = [str(p.value).strip() for p in node.params if not p.showkey]
            self._write(" ".join(values[:2]))
        elif name in _DATE_TEMPLATES:
            self._write(_date([str(p.value).strip() for p in node.params if not p.showkey]))

    def _argument(self, node: Template, position: int) -> None:
        if node.has(str(position)):
            self.nodes(node.get(str(position)).value.nodes)

    def _infobox_image(self, node: Template) -> None:
        caption = ""
        for key in ("caption", "image_caption"):
            if node.has(key):
                caption = _plain(node.get(key).value)
        for parameter in node.params:
            key = str(parameter.name).strip().lower()
            if key in ("image", "image_file", "image file", "img", "photo", "logo", "image_name"):
                for inner in parameter.value.nodes:
                    if isinstance(inner, Wikilink):
                        self._wikilink(inner)
                self._image(_plain(parameter.value), caption)

    def _image(self, name: str, caption: str) -> None:
        name = name.strip().replace("_", " ")
        for prefix in FILE_PREFIXES:
            if name.lower().startswith(prefix):
                name = name[len(prefix) :].strip()
        if _PICTURE.search(name) and name not in self.images:
            self.images[name] = ArticleImage(name, caption)

    def _wikilink(self, node: Wikilink) -> None:
        target = str(node.title).strip()
        lowered = target.lstrip(":").lower()
        if lowered.startswith(FILE_PREFIXES):
            parts = str(node.text).split("|") if node.text is not None else []
            caption = _plain(mwparserfromhell.parse(parts[-1])) if parts and "=" not in parts[-1] else ""
            self._image(
                target, "" if regex.fullmatch(r"\d*x?\d+px|thumb|left|right|center|frame", caption) else caption
            )
            return
        if self._skipping_level is not None or regex.match(r"[a-z-]+:(?=\S)", lowered):
            return  # categories, other languages and projects
        start = self._length
        if node.text is not None:
            self.nodes(node.text.nodes)
        else:
            self._write(target)
        page = target.split("#")[0].replace("_", " ").strip()
        if page and self._length > start and "\n" not in "".join(self._text)[start:]:
            self._links.append(Link(start, self._length, page[0].upper() + page[1:]))

    def _write_lines(self, text: str) -> None:
        # A blank line ends a paragraph; a single line break inside one is a space.
        for i, part in enumerate(regex.split(r"\n\s*\n", text)):
            if i:
                self.end_paragraph()
            self._write(part)

    def _write(self, text: str) -> None:
        self._text.append(text)
        self._length += len(text)

    def end_paragraph(self) -> None:
        text, links = _tidy("".join(self._text), self._links)
        self._text, self._length, self._links = [], 0, []
        # Stray list signs, single words of broken tables and the like are no paragraphs.
        if len(text) >= 20 and regex.search(r"\p{L}{2}", text) and text not in self._seen:
            self._seen.add(text)
            self.paragraphs.append(Paragraph(text, self._introduction, self._section, tuple(links)))


def _tidy(text: str, links: list[Link]) -> tuple[str, list[Link]]:
    """The text with runs of space, empty brackets and magic words gone, and the links moved along."""
    removed: list[tuple[int, int, str]] = []
    for pattern, replacement in ((_EMPTY_BRACKETS, ""), (_SPACES, " "), (regex.compile(r"__[A-Z]+__|''+"), "")):
        removed += [(m.start(), m.end(), replacement) for m in pattern.finditer(text)]
    removed += [(m.start(), m.end(), "\n") for m in regex.finditer(r"[ \t\u00a0]*\n\s*(?=[•–])", text)]
    removed += [(m.start(), m.end(), " ") for m in regex.finditer(r"[ \t\u00a0]*\n\s*(?![•–\s])", text)]
    mapping = list(range(len(text) + 1))
    pieces, position, written = [], 0, 0
    for start, end, replacement in sorted(removed, key=lambda r: (r[0], -r[1])):
        if start < position:
            continue
        pieces += [text[position:start], replacement]
        for i in range(position, start):
            mapping[i] = written + i - position
        written += start - position
        for i in range(start, end):
            mapping[i] = written
        written += len(replacement)
        position = end
    for i in range(position, len(text) + 1):
        mapping[i] = written + i - position
    pieces.append(text[position:])
    tidied = "".join(pieces)
    lead = len(tidied) - len(tidied.lstrip())
    final = tidied.strip()
    moved = []
    for link in links:
        start, end = mapping[link.start] - lead, mapping[link.end] - lead
        while start < end and start < len(final) and final[max(start, 0)].isspace():
            start += 1
        end = min(end, len(final))
        if 0 <= start < end:
            moved.append(Link(start, end, link.target))
    return final, moved


def _plain(code: Wikicode) -> str:
    return " ".join(_QUOTES.sub("", code.strip_code()).split())


def _entity(node: HTMLEntity) -> str:
    try:
        return str(node.normalize())
    except ValueError:
        return ""


def _date(values: list[str]) -> str:
    numbers = [int(v) for v in values[:3] if v.isdigit()]
    if len(numbers) == 3 and 1 <= numbers[1] <= 12:
        return f"{numbers[2]} {_MONTHS[numbers[1] - 1]} {numbers[0]}"
    return str(numbers[0]) if numbers else ""
