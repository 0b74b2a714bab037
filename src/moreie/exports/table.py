"""Extractions as rows of a `pandas` table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from moreie.errors import MoreieError
from moreie.schema import Extraction

if TYPE_CHECKING:
    import pandas


COLUMNS = ("id", "text", "image", "entities", "links", "relations", "evidence", "gate", "warnings", "model", "corpus")


def row(extraction: Extraction) -> dict[str, Any]:
    """One post as plain values: lists of tuples for what was found, the title of the article that each entity refers to
    (None: no article, or it was not linked), and the titles of its evidence by retriever."""
    surfaces = [extraction.text[m.start : m.end] for m in extraction.mentions]
    titles: dict[str, list[str]] = {}
    for e in extraction.evidence:
        titles.setdefault(e.retriever, []).append(e.passage.title)
    return {
        "id": extraction.id,
        "text": extraction.text,
        "image": str(extraction.image) if extraction.image else None,
        "entities": [
            (surface, m.type, round(m.confidence, 4)) for surface, m in zip(surfaces, extraction.mentions, strict=True)
        ],
        "links": [m.linked.title if m.linked else None for m in extraction.mentions],
        "relations": [
            (surfaces[r.head], r.type, surfaces[r.tail], round(r.confidence, 4)) for r in extraction.relations
        ],
        "evidence": titles,
        "gate": extraction.gate.entities,
        "warnings": list(extraction.warnings),
        "model": extraction.model,
        "corpus": extraction.corpus,
    }


def frame(extractions: Iterable[Extraction]) -> pandas.DataFrame:
    """A table with a row a post, its index the posts' ids.

    Raises:
        MoreieError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise MoreieError("tables need pandas: pip install 'moreie[pandas]'") from None
    return pandas.DataFrame([row(e) for e in extractions], columns=COLUMNS).set_index("id")


def series(extraction: Extraction) -> pandas.Series:
    """One post as a row named by its id.

    Raises:
        MoreieError: pandas is not installed.
    """
    return frame([extraction]).iloc[0]
