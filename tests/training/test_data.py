"""Training posts as a recipe changes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moreie.datasets import read_posts
from moreie.schema import NO_RELATION, Relation
from moreie.training.data import with_swapped_none


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
