"""Extractions as one self-contained HTML page: pictures inside, everything a user wrote escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from moreie.encoders.images import load_image
from moreie.errors import ImageError, MoreieError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.rendering.pages import rendered
from moreie.schema import Extraction, Influence, LinkedArticle, Mention, Relation

PICTURE_PIXELS = 480
# Changes of confidence below it are not shown.
LEAST_INFLUENCE = 0.01


@dataclass(frozen=True, slots=True)
class Shown:
    """An extraction with a heading and remarks of whoever shows it, and what its passages do for its answers."""

    extraction: Extraction
    note: str = ""
    influences: tuple[Influence, ...] = ()


def page(shown: Sequence[Shown], corpus: KnowledgeCorpus | None, *, title: str, passages: int = 3) -> str:
    """The page's HTML. Evidence pictures come from the corpus' thumbnails; `passages` per retriever are shown."""
    files = sorted({e.passage.image for s in shown for e in s.extraction.evidence if e.passage.image})
    thumbnails = {name: _data_uri(data) for name, data in (corpus.thumbnails(files) if corpus else {}).items()}
    return rendered("page.html.j2", title=title, shown=[_context(s, thumbnails, passages) for s in shown])


def fragment(extraction: Extraction, corpus: KnowledgeCorpus | None, *, passages: int = 3) -> str:
    """One extraction as a piece of HTML with its own style, for a notebook or another page."""
    files = sorted({e.passage.image for e in extraction.evidence if e.passage.image})
    thumbnails = {name: _data_uri(data) for name, data in (corpus.thumbnails(files) if corpus else {}).items()}
    return rendered("fragment.html.j2", s=_context(Shown(extraction), thumbnails, passages))


def notebook_html(extraction: Extraction) -> str:
    """The fragment with evidence pictures from the corpus that the extraction names, where that can be opened."""
    location = (extraction.corpus or "").rpartition("@")[0]
    pictured = any(e.passage.image for e in extraction.evidence)
    try:
        corpus = KnowledgeCorpus.open(location) if location and pictured else None
    except MoreieError as problem:
        note = f"evidence is shown without its pictures: {problem}"
        return fragment(replace(extraction, warnings=(*extraction.warnings, note)), None)
    return fragment(extraction, corpus)


def _context(shown: Shown, thumbnails: Mapping[str, str], passages: int) -> dict[str, object]:
    extraction = shown.extraction
    return {
        "id": extraction.id,
        "note": shown.note,
        "picture": _picture(extraction),
        "text": highlighted(extraction),
        "relations": [_relation(extraction, r) for r in extraction.relations],
        "gate": {"entities": extraction.gate.entities, "relations": extraction.gate.relations},
        "evidence": [
            {
                "retriever": e.retriever,
                "rank": e.rank,
                "score": e.score,
                "title": e.passage.title,
                "url": e.passage.url if _on_the_web(e.passage.url) else None,
                "sentence": e.passage.sentence,
                "text": e.passage.text,
                "picture": thumbnails.get(e.passage.image or ""),
                "influences": _influences(shown, place),
            }
            for place, e in enumerate(extraction.evidence)
            if e.rank <= passages
        ],
        "warnings": extraction.warnings,
        "model": extraction.model,
        "corpus": extraction.corpus and extraction.corpus.rsplit("/", 1)[-1],
    }


def _influences(shown: Shown, place: int) -> list[dict[str, object]]:
    """What a passage does for the answers that it moves by a hundredth or more, the strongest first."""
    own = [i for i in shown.influences if i.evidence == place and abs(i.change) >= LEAST_INFLUENCE]
    return [
        {"answer": _answer(shown.extraction, i), "change": i.change} for i in sorted(own, key=lambda i: -abs(i.change))
    ]


def _answer(extraction: Extraction, influence: Influence) -> str:
    if influence.mention is not None:
        mention = extraction.mentions[influence.mention]
        return extraction.text[mention.start : mention.end]
    relation = extraction.relations[influence.relation or 0]
    head, tail = (extraction.mentions[m] for m in (relation.head, relation.tail))
    return f"{extraction.text[head.start : head.end]} → {extraction.text[tail.start : tail.end]}"


def _relation(extraction: Extraction, relation: Relation) -> dict[str, object]:
    head, tail = extraction.mentions[relation.head], extraction.mentions[relation.tail]
    return {
        "head": extraction.text[head.start : head.end],
        "head_class": _class(head),
        "tail": extraction.text[tail.start : tail.end],
        "tail_class": _class(tail),
        "type": relation.type,
        "confidence": relation.confidence,
    }


def _class(mention: Mention) -> str:
    """The style class of a mention's type."""
    return "".join(c for c in (mention.type or "").lower() if c.isalnum())


def highlighted(extraction: Extraction) -> Markup:
    """The text with `<mark>` around each mention, escaped."""
    parts: list[Markup] = []
    position = 0
    for mention in sorted(extraction.mentions, key=lambda m: m.start):
        parts.append(escape(extraction.text[position : mention.start]))
        parts.append(
            Markup('<mark class="{}">{}<small>{} {:.2f}{}</small></mark>').format(
                _class(mention),
                extraction.text[mention.start : mention.end],
                mention.type,
                mention.confidence,
                _linked(mention.linked),
            )
        )
        position = mention.end
    parts.append(escape(extraction.text[position:]))
    return Markup("").join(parts)


def _linked(linked: LinkedArticle | None) -> Markup:
    """The article that a mention refers to, with its address if it has one on the web."""
    if linked is None:
        return Markup("")
    if _on_the_web(linked.url):
        return Markup(' = <a href="{}">{}</a>').format(linked.url, str(linked))
    return Markup(" = {}").format(str(linked))


def _on_the_web(url: str | None) -> bool:
    return (url or "").startswith(("http://", "https://"))


def _picture(extraction: Extraction) -> str | None:
    if extraction.image is None:
        return None
    try:
        picture = load_image(extraction.image)
    except ImageError:
        return None  # the extraction's warnings already say so
    picture.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return _data_uri(buffer.getvalue())


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
