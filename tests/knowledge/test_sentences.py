"""Sentence boundaries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moreie.knowledge.sentences import split_sentences


def test_abbreviations_initials_and_decimals_do_not_end_a_sentence() -> None:
    text = 'Dr. J. R. Smith paid $3.5 million, i.e. a lot. He left at 5 p.m. on Monday. "Why?" she asked.'
    found = [text[a:b].strip() for a, b in split_sentences(text)]
    assert found[0] == "Dr. J. R. Smith paid $3.5 million, i.e. a lot."
    assert len(found) in (3, 4)


@given(st.text(max_size=300))
def test_sentences_tile_their_paragraph(text: str) -> None:
    spans = split_sentences(text)
    if text.strip():
        assert "".join(text[a:b] for a, b in spans) == text
    else:
        assert spans == []
