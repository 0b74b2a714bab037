from __future__ import annotations

import itertools

import regex
from hypothesis import given
from hypothesis import strategies as st

from moreie.datasets.words import post_from_text, post_from_words, split_words


@given(st.text())
def test_words_tile_everything_but_white_space(text: str) -> None:
    words = split_words(text)
    assert all(text[w.start : w.end] == w.text for w in words)
    assert "".join(w.text for w in words) == regex.sub(r"\s", "", text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))


def test_tweets_are_split_like_the_annotation() -> None:
    text = "RT @foo: I'm at #NYCpride https://t.co/x 👨‍👩‍👧‍👦🇩🇪 日本 हिन्दी ☀️"
    expected = ["RT", "@", "foo", ":", "I", "'", "m", "at", "#", "NYCpride", "https://t.co/x"]
    assert [w.text for w in split_words(text)] == [*expected, "👨‍👩‍👧‍👦", "🇩🇪", "日", "本", "हिन्दी", "☀️"]


def test_right_to_left_text_keeps_logical_offsets() -> None:
    post = post_from_text("مرحبا من القاهرة", id="a")
    assert [w.text for w in post.words] == ["مرحبا", "من", "القاهرة"]
    assert post.surface(post.mention("LOC", 2, 2)) == "القاهرة"


@given(st.lists(st.text(min_size=1), min_size=1))
def test_posts_from_words_keep_them(words: list[str]) -> None:
    post = post_from_words(words, id="a")
    assert [w.text for w in post.words] == words
    assert all(post.text[w.start : w.end] == w.text for w in post.words)
