"""Sentence boundaries, by `sentencex` (why it and not another: `benchmarks/sentence_splitters.py`)."""

from __future__ import annotations

from itertools import accumulate

from sentencex import segment

from moreie.errors import MoreieError


def split_sentences(paragraph: str, language: str = "en") -> list[tuple[int, int]]:
    """Character offsets of the sentences of a paragraph, in order and without gaps; white space ends a sentence."""
    if not paragraph.strip():
        return []
    pieces = segment(language, paragraph)
    ends = list(accumulate(map(len, pieces)))
    if ends[-1] != len(paragraph):
        raise MoreieError(f"sentence splitter lost text of {paragraph[:60]!r}…")
    return list(zip([0, *ends[:-1]], ends, strict=True))
