from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreie.datasets import post_from_text
from moreie.encoders.text import TextEncoder
from moreie.models.assembly import View, assemble_posts
from moreie.models.tweets import plain_words


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        (["http://t.co/Ab1"], ["http"]),
        (["(www.example.org"], ["(http"]),
        (["@", "KingJames"], ["@", "King James"]),
        (["@KingJames", "KingJames"], ["@ King James", "KingJames"]),
        (["#", "BBCNewsUK"], ["#", "BBC News UK"]),
        (["#EURO2016"], ["# EURO 2016"]),
        (["#éCole", "#"], ["# é Cole", "#"]),
        (["#", "_"], ["#", "_"]),
        (["mail@example.org"], ["mail@example.org"]),
        (["@"], ["@"]),
    ],
)
def test_what_is_particular_to_tweets(written: list[str], plain: list[str]) -> None:
    assert plain_words(written) == plain


@given(st.lists(st.text(min_size=1, max_size=8).filter(lambda w: not any(c.isspace() for c in w)), max_size=6))
def test_a_word_stays_a_word_with_the_same_letters(words: list[str]) -> None:
    plain = plain_words(words)
    assert len(plain) == len(words)
    for before, after in zip(words, plain, strict=True):
        assert after.strip()
        if not re.search("https?://|www", before, re.IGNORECASE):
            assert after.replace(" ", "") == before or "_" in before


def test_every_word_keeps_its_place_in_the_input(tiny_encoder_folder: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    post = post_from_text("RT @AFP #ParisClimateDeal https://t.co/abcdefgh Obama in Berlin", id="p")
    view = View(retriever=None, words="plain")
    (plain,) = assemble_posts(encoder, [post], [()], view)
    (written,) = assemble_posts(encoder, [post], [()], replace(view, words="written"))
    assert len(plain.anchors) == len(written.anchors) == len(post.words)
    assert len(plain.input_ids) < len(written.input_ids)
    same = [i for i, word in enumerate(post.words) if word.text in ("Obama", "in", "Berlin")]
    assert [plain.input_ids[plain.anchors[i]] for i in same] == [written.input_ids[written.anchors[i]] for i in same]
