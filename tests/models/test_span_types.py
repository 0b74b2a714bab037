"""Types of given spans: the product of marginals by definition, and sensible ones from the shipped model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moreie.datasets import post_from_text, read_posts
from moreie.models.expert import EncoderPool, load_expert
from moreie.models.ner import NerExpert
from moreie.models.span_types import type_log_probabilities, with_types
from moreie.models.tagset import TagSet
from moreie.schema import Post
from moreie.shipped import MODEL

LIMIT = 192


@pytest.fixture(scope="module")
def expert() -> NerExpert:
    return load_expert(NerExpert, MODEL / "ner" / "baseline", EncoderPool())


def types(post: Post) -> dict[str, str | None]:
    return {post.surface(m): m.type for m in post.mentions or ()}


@pytest.mark.parametrize(("first", "last", "parts"), [(1, 1, "S"), (0, 1, "BE"), (0, 3, "BIIE")])
def test_a_type_is_as_probable_as_the_product_of_its_tags(first: int, last: int, parts: str) -> None:
    tagset = TagSet(("LOC", "PER", "ORG"))
    torch.manual_seed(0)
    p = torch.rand(4, len(tagset), dtype=torch.float64)
    p /= p.sum(1, keepdim=True)
    products = []
    for type in tagset.types:
        own = 1.0
        for t, part in enumerate(parts, first):
            own *= float(p[t, tagset.tags.index(f"{part}-{type}")])
        products.append(own)
    expected = [x / sum(products) for x in products]
    assert type_log_probabilities(tagset, p.log(), first, last).exp().tolist() == pytest.approx(expected)


def test_persons_and_places_of_mnre_are_told_apart(expert: NerExpert, data: Path) -> None:
    posts = read_posts(data / "mnre-sample.txt")
    typed = with_types(expert, posts, LIMIT)
    found = {name: type for post in typed for name, type in types(post).items()}
    for name in ("David Bowie", "Gus Stewart", "Ronaldo", "Messi", "Margot Robbie", "Alan Greenspan"):
        assert found[name] == "PER"
    for name in ("London", "Libya"):
        assert found[name] == "LOC"
    assert found["UN"] == "ORG"
    for before, after in zip(posts, typed, strict=True):
        untyped = tuple(replace(m, type=None) for m in after.mentions or ())
        assert replace(after, mentions=untyped) == before, "nothing but the types has changed"


def test_types_that_are_known_stay(expert: NerExpert) -> None:
    post = post_from_text("David Bowie in London", id="p")
    given = replace(post, mentions=(post.mention("BAND", 0, 1), post.mention(None, 3, 3)))
    bare = replace(post, id="bare")
    typed, same = with_types(expert, [given, bare], LIMIT)
    assert types(typed) == {"David Bowie": "BAND", "London": "LOC"}
    assert same == bare, "a post without annotation"
    assert with_types(expert, [replace(post, mentions=(post.mention("BAND", 0, 1),))], LIMIT)[0].mentions
    assert with_types(expert, [], LIMIT) == []


def test_a_long_post_is_read_in_windows(expert: NerExpert) -> None:
    post = post_from_text("David Bowie plays in London . " * 3, id="p")
    words = [w.text for w in post.words]
    (sizes,) = expert.encoder.word_subtokens([words])
    limit = sum(len(piece) for piece in sizes[:6])
    mentions = tuple(post.mention(None, first, last) for first, last in ((0, 1), (4, 4), (16, 16), (4, 7)))
    (typed,) = with_types(expert, [replace(post, mentions=mentions)], limit)
    assert [m.type for m in typed.mentions or ()] == ["PER", "LOC", "LOC", None], "None straddles two windows"
