"""Extractions as CoNLL columns, as `datasets.conll` reads posts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moreie.datasets.conll import conll_block, write_conll
from moreie.errors import MoreieError
from moreie.schema import Extraction, Post


def as_post(extraction: Extraction) -> Post:
    """The extraction as a post whose annotation is what was found.

    Raises:
        MoreieError: the extraction does not know its words (it was not made by an `Extractor`).
    """
    if extraction.text.strip() and not extraction.words:
        raise MoreieError(f"extraction {extraction.id}: its words are not known, so it has no form by words")
    return Post(
        id=extraction.id,
        text=extraction.text,
        words=extraction.words,
        image=extraction.image,
        image_id=extraction.image.name if extraction.image else None,
        mentions=extraction.mentions,
        relations=extraction.relations,
    )


def columns(extraction: Extraction) -> str:
    """The lines of one extraction."""
    return conll_block(as_post(extraction))


def write(extractions: Sequence[Extraction], path: Path) -> None:
    """One file: an `IMGID:` line (the picture's name, else the post's id), then a word and its BIO tag a line.

    Posts without words are left out: the format has no place for them.
    """
    write_conll([as_post(e) for e in extractions if e.words], path)
