"""What never becomes text is cut out of wikitext before the parser sees it: most of a page is references, tables and
templates, and parsing them to throw them away is most of the work (`benchmarks/dump.py`).

One scan over the brackets. A bracket never closed costs its line, not the rest of the page.
"""

from __future__ import annotations

from collections.abc import Callable

import regex

# Elements that go with all they hold. A `<ref>` never closed must not swallow the page: it ends at the next blank line.
REMOVED_ELEMENTS = (
    "ref|references|table|gallery|math|timeline|imagemap|score|chem|ce|syntaxhighlight|source|hiero|mapframe|graph|"
    "templatestyles|section|indicator|categorytree"
)
_COMMENT = regex.compile(r"<!--(?:.*?-->|.*\Z)", regex.DOTALL)
_COMMENT_LINE = regex.compile(r"\n[ \t]*<!--.*?-->[ \t]*(?=\n)", regex.DOTALL)
_EMPTY_ELEMENT = regex.compile(rf"<(?:{REMOVED_ELEMENTS})\b[^<>]*/>", regex.IGNORECASE)
_ELEMENT = regex.compile(rf"<({REMOVED_ELEMENTS})\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>", regex.IGNORECASE | regex.DOTALL)
_UNCLOSED = regex.compile(rf"<(?:{REMOVED_ELEMENTS})\b[^<>]*>[^\n]*", regex.IGNORECASE)
_STRAY_END = regex.compile(rf"</(?:{REMOVED_ELEMENTS})\s*>", regex.IGNORECASE)
# `{|` and `|}` count at the start of a line alone, as in MediaWiki; `|}}` ends a template whose last argument is empty.
_BRACKET = regex.compile(r"\{\{|\}\}|^[ \t:*]*\{\||^[ \t]*\|\}(?!\})", regex.MULTILINE)
_NAME = regex.compile(r"\{\{\s*([^|{}\n<]*)")
_MAGIC = regex.compile(r"__[A-Z]+__")


def strip_markup(wikitext: str, keeps: Callable[[str, str], bool]) -> str:
    """`wikitext` without comments, references, galleries, tables, and without the outermost templates that `keeps`,
    told the lower-cased name and the whole template, declines."""
    if "<" in wikitext:
        wikitext = _COMMENT.sub("", _COMMENT_LINE.sub("", wikitext))
        wikitext = _EMPTY_ELEMENT.sub("", wikitext)
        while True:  # innermost first: tables hold tables
            wikitext, count = _ELEMENT.subn("", wikitext)
            if not count:
                break
        wikitext = _STRAY_END.sub("", _UNCLOSED.sub("", wikitext))
    pieces: list[str] = []
    position = 0
    for start, end in _outermost(wikitext):
        if start < position:
            continue
        name = _NAME.match(wikitext, start)
        if name and keeps(name.group(1).strip().lower().replace("_", " "), wikitext[start:end]):
            continue
        pieces.append(wikitext[position:start])
        position = end
    pieces.append(wikitext[position:])
    return _MAGIC.sub("", "".join(pieces))


def _outermost(wikitext: str) -> list[tuple[int, int]]:
    """Spans of the outermost templates and tables, in order."""
    spans: list[tuple[int, int]] = []
    stack: list[tuple[int, bool]] = []  # where it opened, and whether it is a table
    tables = 0
    for match in _BRACKET.finditer(wikitext):
        sign = match.group().lstrip(" \t:*")
        if sign in ("{{", "{|"):
            stack.append((match.start(), sign == "{|"))
            tables += sign == "{|"
            continue
        # A sign that closes nothing of its kind is text; what stands open inside a table that ends was never closed.
        if sign == "|}":
            if not tables:
                continue
            while not stack[-1][1]:
                stack.pop()
            tables -= 1
        elif not stack or stack[-1][1]:
            continue
        start, _ = stack.pop()
        while spans and spans[-1][0] >= start:
            spans.pop()
        spans.append((start, match.end()))
    for start, _ in stack:  # never closed: its line goes, unless something closed reaches over it
        line_end = wikitext.find("\n", start)
        spans.append((start, len(wikitext) if line_end < 0 else line_end))
    return sorted(spans)
