"""Texts given with posts: which are read, under which name, and what is wrong with others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moreie.attachments import own_texts, paired
from moreie.datasets import post_from_text
from moreie.errors import MoreieError

POST = post_from_text("Live from Nashville", id="p")


def test_a_posts_own_caption_is_read_unless_another_is_given() -> None:
    captioned = replace(POST, caption=" a stage ")
    assert own_texts(captioned, {}, ("caption",)) == {"caption": "a stage"}
    assert own_texts(captioned, {"caption": "a crowd"}, ("caption",)) == {"caption": "a crowd"}
    assert own_texts(captioned, {"caption": ""}, ("caption",)) == {}, "none, said expressly"
    assert own_texts(captioned, {}, ("knowledge",)) == {}
    assert own_texts(POST, {"knowledge": " \n"}, ("caption", "knowledge")) == {}


def test_a_name_that_no_expert_reads_is_an_error() -> None:
    with pytest.raises(
        MoreieError, match=r"post p: no expert .* reads attached 'captoin'; they read caption, knowledge"
    ):
        own_texts(POST, {"captoin": "x"}, ("caption", "knowledge"))
    with pytest.raises(MoreieError, match="they read retrieved evidence only"):
        own_texts(POST, {"text": "x"}, ())


def test_posts_and_their_texts_come_in_pairs() -> None:
    assert list(paired([POST, POST], None)) == [(POST, {}), (POST, {})]
    assert list(paired([POST], [{"caption": "x"}])) == [(POST, {"caption": "x"})]
    with pytest.raises(MoreieError, match=r"more posts than mappings \(1\)"):
        list(paired([POST, POST], [{}]))
    with pytest.raises(MoreieError, match=r"more mappings than posts \(1\)"):
        list(paired([POST], [{}, {}]))
