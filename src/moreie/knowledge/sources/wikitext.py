"""One page's wikitext → plain paragraphs with links, and its pictures.

What goes: templates (but for those whose text is part of the sentence), tables, references, comments, galleries,
categories, files, and the sections that hold no prose (references, external links, …). Lists stay, one item a line.

A general parser builds a tree of all that, mostly to have it thrown away; here it is cut out first (`markup`), and one
scan over what remains writes the text. Compared with independent extractors: `docs/wikitext.md`.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from functools import partial

import regex

from moreie.knowledge.sources.markup import strip_markup
from moreie.knowledge.sources.templates import arguments, expand, is_disambiguation, is_infobox, is_text
from moreie.schema import ArticleImage, Link, Paragraph

SKIPPED_SECTIONS = frozenset(
    {
        "references",
        "external links",
        "external link",
        "see also",
        "notes",
        "footnotes",
        "further reading",
        "bibliography",
        "sources",
        "citations",
        "notes and references",
        "references and notes",
        "gallery",
        "image gallery",
        "works cited",
    }
)
# Stray list signs, single words of broken tables and the like are no paragraphs.
SHORTEST_PARAGRAPH = 20
_NOWIKI = regex.compile(
    r"<nowiki>(.*?)</nowiki>|<nowiki\s*/>|<pre\b[^<>]*>(.*?)</pre>", regex.DOTALL | regex.IGNORECASE
)
# Any prefix before the name of a media file: `File:`, but also `Datei:`, `Fichier:`, …
_FILE = regex.compile(
    r"\[\[\s*(?:(?:file|image)\s*:|[^\[\]|:\n]{2,20}:"
    r"(?=[^\[\]|\n]+\.(?:jpe?g|png|svg|gif|tiff?|webp|djvu|pdf|og[agv]|webm|mp3|wav)\s*[|\]]))",
    regex.IGNORECASE,
)
_LINK_BRACKET = regex.compile(r"\[\[|\]\]")
_HEADING = regex.compile(r"^(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$", regex.MULTILINE)
# A blank line before a list item parts it from nothing.
_BLANK_LINE = regex.compile(r"\n[ \t]*(?:\n[ \t]*)++(?![*#])")
_TOKEN = regex.compile(
    r"\[\[(?P<target>[^\[\]|\n]*)(?:\|(?P<label>(?:[^\[\]]|\[(?!\[)[^\[\]]*\]|\](?!\]))*))?\]\]"
    r"|\[(?:https?:|ftp:|mailto:|//)[^\s\]]*[ \t]*(?P<title>[^\]\n]*)\]"
    r"|(?P<style>'{2,})"
    r"|(?P<block><(?:br|p|/p|div|/div|blockquote|/blockquote|center|/center|poem|/poem|hr|li|/li|ul|/ul|ol|/ol)\b[^<>]*>)"
    r"|(?P<tag></?[A-Za-z][A-Za-z0-9]*(?:\s[^<>]*)?/?>)"
    r"|(?P<item>(?:^|(?<=\n))[ \t]*(?P<signs>[*#:;]+)[ \t]*)"
    r"|(?P<rule>(?:^|(?<=\n))-{4,})"
    r"|(?P<lost>\{\{|\}\}|\{\||\|\}|\[\[|\]\])",
    regex.IGNORECASE,
)
_PREFIX = regex.compile(r"([a-z][a-z-]*):(?=\S)", regex.IGNORECASE)
_CATEGORY = frozenset({"category", "kategorie", "kategori", "categorie", "categoria", "categoría", "catégorie"})
_LANGUAGE = regex.compile(r"[a-z]{2,3}(?:-[a-z-]+)?|simple|nds-nl", regex.IGNORECASE)
_PICTURE = regex.compile(r"\.(jpe?g|png|gif|tiff?|webp|svg)$", regex.IGNORECASE)
_FILE_OPTION = regex.compile(
    r"\s*(?:\d*x?\d+px|thumb(?:nail)?|left|right|center|centre|none|frame[d]?|frameless|border|upright|baseline|sub|super|"
    r"top|text-top|middle|bottom|text-bottom|(?:alt|link|upright|class|lang|page|thumb|start|end)\s*=.*)\s*",
    regex.IGNORECASE | regex.DOTALL,
)
_IMAGE_KEYS = (
    "image",
    "image_file",
    "image file",
    "img",
    "photo",
    "logo",
    "image_name",
    "image name",
    "picture",
    "cover",
)
_CAPTION_KEYS = ("caption", "image_caption", "image caption", "imagecaption", "captions")
# Runs of space, and what templates that went left in brackets: "(; born 1954)", "(1954; )", "( )".
_GAP = regex.compile(r"\s*\([\s;,:/]*\)|(?<open>\()[\s;,]+|[\s;,]+(?<close>\))|\s{2,}|[\t\n\u00a0]")
# The third sign of two that close italics before an s is an apostrophe.
_POSSESSIVE = regex.compile(r"(?<![' ])'''(?=s\b)")
_WORDLIKE = regex.compile(r"\p{L}{2}")


@dataclass(frozen=True, slots=True)
class Page:
    """What a page holds for a knowledge corpus. Pictures know the section they stand in."""

    paragraphs: tuple[Paragraph, ...]
    images: tuple[ArticleImage, ...]
    disambiguation: bool


@dataclass(slots=True)
class _Reading:
    images: dict[str, ArticleImage] = field(default_factory=dict)
    disambiguation: bool = False


def parse_page(wikitext: str) -> Page:
    """Paragraphs (the introduction first), pictures, and whether the page only disambiguates."""
    reading = _Reading()
    text = _NOWIKI.sub(lambda match: _verbatim(match.group(1) or match.group(2) or ""), wikitext)
    text = strip_markup(text, partial(_keeps, reading))
    paragraphs: list[Paragraph] = []
    seen: set[str] = set()
    for section, skipped, introduction, body in _sections(text):
        body = _take_files(body, section, reading)
        if skipped:
            continue
        for block in _BLANK_LINE.split(expand(body)):
            plain, links = _write(block)
            if len(plain) >= SHORTEST_PARAGRAPH and plain not in seen and _WORDLIKE.search(plain):
                seen.add(plain)
                paragraphs.append(Paragraph(plain, introduction, section, tuple(links)))
    return Page(tuple(paragraphs), tuple(reading.images.values()), reading.disambiguation)


def _verbatim(text: str) -> str:
    """What `<nowiki>` holds, in a form in which none of it is markup."""
    return regex.sub(r"[\[\]{}|'<>=*#:;]", lambda match: f"&#{ord(match.group())};", text)


def _keeps(reading: _Reading, name: str, body: str) -> bool:
    if is_disambiguation(name):
        reading.disambiguation = True
        return False
    if is_infobox(name):
        _infobox_images(body, reading)
        return False
    return is_text(name)


def _sections(text: str) -> list[tuple[str, bool, bool, str]]:
    """(heading, is it skipped, is it the introduction, body) of each section, in order."""
    parts: list[tuple[str, bool, bool, str]] = []
    title, position, skipping, introduction = "", 0, 0, True
    for match in _HEADING.finditer(text):
        parts.append((title, bool(skipping), introduction, text[position : match.start()]))
        introduction = False
        level, position = len(match.group(1)), match.end()
        heading = _write(expand(match.group(2)))[0]
        if not skipping or level <= skipping:
            skipping = level if heading.lower().rstrip(":") in SKIPPED_SECTIONS else 0
            title = heading
    parts.append((title, bool(skipping), introduction, text[position:]))
    return parts


def _infobox_images(body: str, reading: _Reading) -> None:
    # Only the outermost arguments name pictures; what templates inside hold is not looked at.
    flat = expand(body[2:-2])
    _, _, named = arguments(flat)
    _take_files(flat, "", reading)
    caption = next((_write(named[key])[0] for key in _CAPTION_KEYS if named.get(key)), "")
    for key in _IMAGE_KEYS:
        if value := named.get(key):
            _add_image(value.split("|")[0], caption, "", reading)


def _take_files(text: str, section: str, reading: _Reading) -> str:
    """`text` without its `[[File:…]]` links, whose captions may hold links themselves."""
    pieces: list[str] = []
    position = 0
    for match in _FILE.finditer(text):
        if match.start() < position:
            continue
        depth, end = 0, None
        for bracket in _LINK_BRACKET.finditer(text, match.start()):
            depth += 1 if bracket.group() == "[[" else -1
            if depth == 0:
                end = bracket.end()
                break
        if end is None:  # never closed: its line goes
            newline = text.find("\n", match.end())
            end = len(text) if newline < 0 else newline
            inside = text[match.end() : end]
        else:
            inside = text[match.end() : end - 2]
        name, options = _file_options(inside)
        captions = [option for option in options if not _FILE_OPTION.fullmatch(option)]
        _add_image(name, _write(expand(captions[-1]))[0] if captions else "", section, reading)
        pieces.append(text[position : match.start()])
        position = end
    return "".join([*pieces, text[position:]]) if pieces else text


def _file_options(inside: str) -> tuple[str, list[str]]:
    name, *parts = inside.split("|")
    options: list[str] = []
    for part in parts:  # bars inside a link of the caption belong to it
        if options and options[-1].count("[[") > options[-1].count("]]"):
            options[-1] += "|" + part
        else:
            options.append(part)
    return name, options


def _add_image(name: str, caption: str, section: str, reading: _Reading) -> None:
    name = html.unescape(name).replace("_", " ").strip(" []\n")
    if (prefix := name.partition(":"))[0].strip().lower() in ("file", "image"):
        name = prefix[2].strip()
    if _PICTURE.search(name) and name not in reading.images:
        reading.images[name] = ArticleImage(name, caption, section=section)


def _write(block: str) -> tuple[str, list[Link]]:
    """Plain text of a block (links, styles, lists and tags resolved; runs of space are one) and its links."""
    if "'''s" in block and block.count("'''") % 2:
        block = _POSSESSIVE.sub("''&#39;", block)
    out = _Text()
    _write_into(out, block)
    return out.finish()


def _write_into(out: _Text, block: str) -> None:
    position = 0
    for match in _TOKEN.finditer(block):
        out.add(block[position : match.start()])
        position = match.end()
        kind = match.lastgroup
        if kind in ("target", "label"):
            _write_link(out, match.group("target"), match.group("label"))
        elif kind == "title":
            _write_into(out, match.group("title"))
        elif kind == "block":
            out.add("\n", keep_break=True)
        elif match.group("signs"):
            out.add("\n", keep_break=True)
            out.item(match.group("signs"))
    out.add(block[position:])


def _write_link(out: _Text, target: str, label: str | None) -> None:
    target = html.unescape(target).strip()
    bare = target.lstrip(":")
    if prefix := _PREFIX.match(bare):
        plain = target == bare
        if plain and (prefix.group(1).lower() in _CATEGORY or (label is None and _LANGUAGE.fullmatch(prefix.group(1)))):
            return
        # Other projects and languages: the label is part of the sentence, the page is none of ours.
        _write_into(out, label if label and label.strip() else bare[prefix.end() :])
        return
    start = out.length
    if label is None:
        out.add(bare)
    else:  # an empty label is the pipe trick: the title without its parenthesis
        _write_into(out, label if label.strip() else bare.partition(" (")[0])
    page = bare.partition("#")[0].replace("_", " ").strip()
    if page:
        out.link(start, page[0].upper() + page[1:])


class _Text:
    """Text being written: white space is tidied as it comes, so that links can say where they stand."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._links: list[Link] = []
        self._numbers: dict[int, int] = {}  # of the last item at each depth of numbered lists
        self._ends_in_space = True
        self.length = 0

    def add(self, text: str, *, keep_break: bool = False) -> None:
        """Append text. A line break is a space, unless it is kept."""
        if not text:
            return
        if keep_break:
            if self.length:
                self._drop_space()
                self._push("\n")
                self._ends_in_space = True
            return
        if "&" in text:
            text = html.unescape(text)
        text = _GAP.sub(_gap, text)
        if self._ends_in_space:
            text = text.lstrip()
        if text:
            self._push(text)
            self._ends_in_space = text[-1] == " "

    def item(self, signs: str) -> None:
        """Begin a list item: `*` gets a bullet, `#` its number."""
        self._numbers = {depth: n for depth, n in self._numbers.items() if depth <= len(signs)}
        if signs[-1] == "#":
            self._numbers[len(signs)] = self._numbers.get(len(signs), 0) + 1
            self._push(f"{self._numbers[len(signs)]}. ")
        elif signs[-1] == "*":
            self._push("• ")

    def _push(self, text: str) -> None:
        self._pieces.append(text)
        self.length += len(text)

    def _drop_space(self) -> None:
        while self._pieces and (stripped := self._pieces[-1].rstrip(" \n")) != self._pieces[-1]:
            self.length -= len(self._pieces[-1]) - len(stripped)
            self._pieces.pop()
            if stripped:
                self._pieces.append(stripped)
                break

    def link(self, start: int, target: str) -> None:
        """What was written since `start` leads to `target`."""
        if self.length > start:
            self._links.append(Link(start, self.length, target))

    def finish(self) -> tuple[str, list[Link]]:
        text = "".join(self._pieces).rstrip()
        links = []
        for link in self._links:
            start, end = link.start, min(link.end, len(text))
            while start < end and text[start].isspace():
                start += 1
            while end > start and text[end - 1].isspace():
                end -= 1
            if start < end and "\n" not in text[start:end]:
                links.append(Link(start, end, link.target))
        return text, links


def _gap(match: regex.Match[str]) -> str:
    return match.group("open") or match.group("close") or (" " if match.group().isspace() else "")
