"""Extractions as brat standoff annotation (https://brat.nlplab.org/standoff.html): a `.txt` and an `.ann` a post."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import regex

from moreie.errors import MoreieError
from moreie.schema import Extraction, Mention

_NOT_A_NAME = regex.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Standoff:
    """What stands in the two files. `annotation`: T lines (mentions), R lines (relations), N lines (articles), # lines
    (confidences)."""

    text: str
    annotation: str


def standoff(extraction: Extraction) -> Standoff:
    """brat's two files of an extraction; a linked mention has a `Reference` to the id of its article. Types keep
    letters, digits, `_` and `-`: all that brat knows in a name."""
    lines = []
    for n, mention in enumerate(extraction.mentions, 1):
        surface = " ".join(extraction.text[mention.start : mention.end].splitlines())
        lines.append(f"T{n}\t{_name(mention.type or 'entity')} {_fragments(extraction.text, mention)}\t{surface}")
        lines.append(f"#{n}\tAnnotatorNotes T{n}\tconfidence {mention.confidence:.4f}")
    first = len(extraction.mentions) + 1
    for n, relation in enumerate(extraction.relations, 1):
        lines.append(f"R{n}\t{_name(relation.type)} Arg1:T{relation.head + 1} Arg2:T{relation.tail + 1}")
        lines.append(f"#{first + n - 1}\tAnnotatorNotes R{n}\tconfidence {relation.confidence:.4f}")
    linked = [(n, m.linked) for n, m in enumerate(extraction.mentions, 1) if m.linked and m.linked.article_id]
    for n, (mention_number, article) in enumerate(linked, 1):
        id, title = regex.sub(r"\s", "_", article.article_id or ""), " ".join((article.title or "").split())
        lines.append(f"N{n}\tReference T{mention_number} corpus:{id}\t{title}")
    return Standoff(extraction.text, "".join(line + "\n" for line in lines))


def write(extractions: Sequence[Extraction], folder: Path) -> None:
    """`<id>.txt` and `<id>.ann` of each extraction, and `annotation.conf` with the types that occur.

    Raises:
        MoreieError: two ids give the same file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    for extraction in extractions:
        name = regex.sub(r"[^\w.-]+", "_", extraction.id).lstrip(".") or "post"
        if name in names:
            raise MoreieError(f"posts {names[name]!r} and {extraction.id!r} would share the file {name}.txt")
        names[name] = extraction.id
        parts = standoff(extraction)
        (folder / f"{name}.txt").write_text(parts.text, encoding="utf-8", newline="")
        (folder / f"{name}.ann").write_text(parts.annotation, encoding="utf-8", newline="")
    types = sorted({_name(m.type or "entity") for e in extractions for m in e.mentions})
    relations = sorted({_name(r.type) for e in extractions for r in e.relations})
    sections = [
        "[entities]",
        *types,
        "[relations]",
        *(f"{name}\tArg1:<ENTITY>, Arg2:<ENTITY>" for name in relations),
        "[events]",
        "[attributes]",
    ]
    (folder / "annotation.conf").write_text("\n".join(sections) + "\n", encoding="utf-8")


def _name(type: str) -> str:
    return _NOT_A_NAME.sub("-", type).strip("-") or "entity"


def _fragments(text: str, mention: Mention) -> str:
    """Offsets of a mention; one that runs over a line's end is one of several fragments, which brat asks for."""
    parts = [
        (mention.start + m.start(), mention.start + m.end())
        for m in regex.finditer(r"[^\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", text[mention.start : mention.end])
    ]
    return ";".join(f"{start} {end}" for start, end in parts)
