"""Training posts as a recipe changes them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from moreie.datasets import read_posts
from moreie.retrieval.cache import EvidenceHeader, save_evidence
from moreie.schema import NO_RELATION, Relation
from moreie.training.data import load_split, missing_reversed_none, with_swapped_none
from moreie.training.recipe import SplitFiles


def test_pairs_without_a_relation_are_read_in_both_directions(data: Path) -> None:
    posts = read_posts(data / "mnre-sample.txt")
    for before, after in zip(posts, with_swapped_none(posts), strict=True):
        given, made = before.relations or (), after.relations or ()
        assert made[: len(given)] == given
        none = [r for r in given if r.type == NO_RELATION]
        assert made[len(given) :] == tuple(Relation(r.tail, r.head, NO_RELATION) for r in none)
    assert any(r.type == NO_RELATION for p in posts for r in p.relations or ())


def test_a_direction_that_is_annotated_stays_as_it_is(data: Path) -> None:
    post = read_posts(data / "mnre-sample.txt")[0]
    relations = (Relation(0, 1, NO_RELATION), Relation(1, 0, "/per/per/peer"))
    (after,) = with_swapped_none([replace(post, relations=relations)])
    assert after.relations == relations
    (untouched,) = with_swapped_none([replace(post, relations=None)])
    assert untouched.relations is None


def test_none_that_is_missing_against_the_text_is_counted(data: Path) -> None:
    posts = read_posts(data / "mnre-sample.txt")
    none = [
        post.mentions[r.head].first < post.mentions[r.tail].first
        for post in posts
        for r in post.relations or ()
        if r.type == NO_RELATION and post.mentions
    ]
    assert none
    expected = math.log((sum(none) + 1) / (len(none) - sum(none) + 1))
    assert missing_reversed_none(posts) == pytest.approx(expected)
    assert missing_reversed_none(with_swapped_none(posts)) == pytest.approx(0)
    assert missing_reversed_none([]) == 0


def test_posts_without_words_are_left_out_with_their_evidence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "posts.jsonl"
    rows = [{"id": name, "text": text, "mentions": []} for name, text in (("a", "one"), ("b", " "), ("c", "two"))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    posts = read_posts(path)
    header = EvidenceHeader(retriever="text", query="post", k=1, corpus="none", posts=3)
    save_evidence(tmp_path / "text.jsonl.zst", header, posts, [(), (), ()])
    split = load_split(SplitFiles(posts=path, evidence={"text": tmp_path / "text.jsonl.zst"}))
    assert [post.id for post in split.posts] == ["a", "c"]
    assert len(split.rows("text")) == 2
    assert "1 posts without words are left out" in caplog.text
