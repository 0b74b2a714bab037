"""Texts of posts: read from JSONL and PGIM files, given to the posts they belong to, damage named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.datasets import post_from_words, read_posts
from moreie.datasets.pgim import read_pgim
from moreie.datasets.texts import PostText, match_texts, read_texts
from moreie.errors import DataFormatError


def test_knowledge_finds_its_posts_by_their_words(data: Path) -> None:
    posts = read_posts(data / "twitter2017-sample.txt")
    texts = read_texts(data / "pgim-sample.txt")
    assert [text.key for text in texts] == ["words"] * 3
    matched = match_texts(posts, texts)
    assert [i for i, text in enumerate(matched.texts) if text] == [0, 1, 3]
    assert matched.texts[0].startswith("Named entities: 1. Nashville (city)")
    assert matched.unclaimed == ()


def test_captions_find_posts_by_picture_or_id(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    rows = [
        {"image_id": "i", "blip": " a stage "},
        {"image_id": "lost", "blip": "nobody's"},
        {"id": "c", "image_id": "i", "blip": "my own"},
        {"image_id": 7, "blip": ""},
    ]
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    posts = [
        post_from_words(["x"], id=id, image_id=image) for id, image in zip("abcd", ["i", "i", "i", "7"], strict=True)
    ]
    matched = match_texts(posts, read_texts(path))
    assert matched.texts == ("a stage", "a stage", "my own", "")
    assert [text.value for text in matched.unclaimed] == ["lost"]


def test_posts_of_the_same_words_get_texts_in_their_order() -> None:
    posts = [post_from_words(["same", "words"], id=id) for id in "abc"]
    texts = [PostText("words", ("same", "words"), text, line) for line, text in enumerate(("one", "two"))]
    assert match_texts(posts, texts).texts == ("one", "two", "")
    assert match_texts(posts[:1], texts).unclaimed == (texts[1],)


JSONL_DAMAGE = [
    ("{broken", "not a JSON object"),
    ("[1]", "not a JSON object"),
    ('{"caption": "a"}', "neither id nor image_id"),
    ('{"image_id": "2", "text": "a"}', "no text in field 'caption'; fields are image_id, text"),
    ('{"image_id": "2", "caption": 3}', "no text in field 'caption'"),
    ('{"image_id": "1", "caption": "b"}', "image_id '1' already stands in line 1"),
]


@pytest.mark.parametrize(("line", "message"), JSONL_DAMAGE)
def test_malformed_texts_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"image_id": "1", "caption": "a"}\n' + line + "\n")
    with pytest.raises(DataFormatError, match=r"bad.jsonl:2: ") as caught:
        read_texts(path)
    assert message in str(caught.value)


def test_a_field_is_asked_for_where_there_are_several(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('{"image_id": "1", "blip": "a", "llava": "b"}\n')
    with pytest.raises(DataFormatError, match=r"captions.jsonl:1: which field holds the text\? there are blip, llava"):
        read_texts(path)
    assert read_texts(path, "llava")[0].text == "b"
    path.write_text("word\tO\n<EOS>\tX\nmore\tX\n")
    with pytest.raises(DataFormatError, match="no field 'llava'"):
        read_texts(path, "llava")


PGIM_DAMAGE = [
    ("word O\n", r"bad.txt:1: expected word<TAB>tag"),
    ("<EOS>\tX\nmore\tX\n", r"bad.txt:1: knowledge before the first post"),
    ("word\tO\n\nword\tO\n", r"bad.txt: no word is tagged X"),
    ("", r"bad.txt: no word is tagged X"),
]


@pytest.mark.parametrize(("content", "message"), PGIM_DAMAGE)
def test_malformed_knowledge_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(content)
    with pytest.raises(DataFormatError, match=message):
        read_texts(path)


word = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp", "Zs")), min_size=1, max_size=6)
post_and_knowledge = st.tuples(st.lists(word, min_size=1, max_size=4), st.lists(word, min_size=1, max_size=4))


@settings(max_examples=100, deadline=None)
@given(st.lists(post_and_knowledge, min_size=1, max_size=5), st.data())
def test_posts_are_told_apart_with_and_without_blank_lines(
    tmp_path_factory: pytest.TempPathFactory, posts: list[tuple[list[str], list[str]]], draw: st.DataObject
) -> None:
    lines = []
    starts = []
    for words, knowledge in posts:
        starts.append(len(lines) + 1)
        lines += [f"{w}\tO" for w in words] + ["<EOS>\tX"] + [f"{w}\tX" for w in knowledge]
        lines += [""] * draw.draw(st.integers(0, 2))
    path = tmp_path_factory.mktemp("pgim") / "train.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    expected = [(n, tuple(w), " ".join(k)) for n, (w, k) in zip(starts, posts, strict=True)]
    assert read_pgim(path) == expected
