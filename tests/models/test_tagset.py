from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreie.errors import MoreieError
from moreie.models.tagset import TagSet
from moreie.schema import Mention

TAGS = TagSet(("LOC", "PER"))


@st.composite
def flat_mentions(draw: st.DrawFn) -> tuple[int, list[tuple[str, int, int]]]:
    words = draw(st.integers(1, 12))
    spans, position = [], 0
    while position < words:
        length = draw(st.integers(0, 4))
        if length and position + length <= words:
            spans.append((draw(st.sampled_from(TAGS.types)), position, position + length - 1))
        position += max(length, 1)
    return words, spans


@given(flat_mentions())
def test_encode_then_spans_is_the_identity(case: tuple[int, list[tuple[str, int, int]]]) -> None:
    words, spans = case
    path = TAGS.encode([Mention(t, a, b, 0, 0) for t, a, b in spans], words)
    assert TAGS.spans(path) == spans
    assert TAGS.start_allowed[path[0]]
    assert TAGS.end_allowed[path[-1]]
    assert all(TAGS.transitions_allowed[a, b] for a, b in itertools.pairwise(path))


def test_spans_of_illegal_paths_keep_only_complete_mentions() -> None:
    index = {tag: i for i, tag in enumerate(TAGS.tags)}
    path = [index[t] for t in ("I-LOC", "B-PER", "I-PER", "E-LOC", "S-LOC", "B-LOC")]
    assert TAGS.spans(path) == [("LOC", 4, 4)]


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(MoreieError, match="'DRUG' is unknown; the model knows LOC, PER"):
        TAGS.encode([Mention("DRUG", 0, 0, 0, 1)], 2)
    with pytest.raises(MoreieError, match="overlap at word 1"):
        TAGS.encode([Mention("LOC", 0, 1, 0, 1), Mention("PER", 1, 2, 0, 1)], 4)
    with pytest.raises(MoreieError, match="distinct"):
        TagSet(("PER", "PER"))
