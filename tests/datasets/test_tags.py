from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from moreie.datasets.conll import read_conll
from moreie.datasets.tags import bio_tags, spans_from_tags
from moreie.errors import MoreieError
from moreie.schema import Mention

tags = st.lists(st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in ("PER", "LOC"))]), max_size=12)


@settings(max_examples=500)
@given(tags)
def test_any_sequence_is_read_as_seqeval_reads_it(sequence: list[str]) -> None:
    assert spans_from_tags(sequence) == [tuple(e) for e in get_entities(sequence)]


def test_real_sequences_survive_a_round_trip(data) -> None:
    for post in read_conll(data / "twitter2017-sample.txt"):
        again = spans_from_tags(bio_tags(post.mentions, len(post.words)))
        assert again == [(m.type, m.first, m.last) for m in post.mentions]


@pytest.mark.parametrize("tag", ["PER", "X-PER", "B-", "", "b-PER"])
def test_unknown_tags_are_errors(tag: str) -> None:
    with pytest.raises(MoreieError, match="is not O or one of"):
        spans_from_tags(["O", tag])


def test_overlapping_mentions_are_errors() -> None:
    with pytest.raises(MoreieError, match="overlap at word 1"):
        bio_tags([Mention("PER", 0, 1, 0, 1), Mention("LOC", 1, 1, 0, 1)], 3)
