"""Posts in, evidence out: by text, by caption, by picture; and evidence kept in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreie.datasets import post_from_text, read_jsonl
from moreie.encoders.images import ImageEncoder
from moreie.errors import DataFormatError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.cache import EvidenceHeader, load_evidence, save_evidence
from moreie.retrieval.image import ImageRetriever
from moreie.retrieval.query import post_query, split_case
from moreie.retrieval.text import CaptionRetriever, TextRetriever
from moreie.shipped import DEMO_CORPUS, DEMO_POSTS, IMAGE_ENCODER


@pytest.fixture(scope="module")
def demo() -> KnowledgeCorpus:
    return KnowledgeCorpus.open(DEMO_CORPUS)


def test_the_query_keeps_what_a_post_is_about() -> None:
    post = post_from_text("RT @AFP: the UN is in #NewYorkCity now http://t.co/x &amp; 😀", id="1")
    words = post_query(post).split()
    assert "http://t.co/x" not in words
    assert "the" not in words
    assert {"New", "York", "City", "UN", "AFP"} <= set(words)
    assert words.count("UN") == 2, "capitalised words count twice"
    assert post_query(post_from_text("😀 ... !!", id="2")) == ""
    assert "東" in post_query(post_from_text("東京 に行く", id="3")), "ideographs are words of their own"


@given(st.text(max_size=200))
def test_any_text_makes_a_query(text: str) -> None:
    post_query(post_from_text(text, id="x"))
    assert "".join(split_case(text)) == text or not text


def test_text_retrieval_ranks_paragraphs(demo: KnowledgeCorpus) -> None:
    posts = [
        post_from_text("Frederic Edwin Church and his painting of the Andes", id="1"),
        post_from_text("😀", id="2"),
    ]
    found, nothing = TextRetriever(demo, 5).retrieve(posts)
    assert "The Heart of the Andes" in {e.passage.title for e in found.evidence}
    assert [e.rank for e in found.evidence] == [1, 2, 3, 4, 5]
    assert {e.retriever for e in found.evidence} == {"text"}
    assert nothing.evidence == ()
    assert nothing.warnings == ("no text evidence found",)


def test_a_caption_finds_introductions(demo: KnowledgeCorpus) -> None:
    post = replace(post_from_text("look", id="1"), caption="a painting of a harbour by moonlight with a volcano")
    found, nothing = CaptionRetriever(demo, 3).retrieve([post, replace(post, caption=None)])
    assert found.evidence
    assert all(e.passage.introduction and e.retriever == "image" for e in found.evidence)
    assert nothing.warnings == ("no caption",)


def test_a_photograph_finds_its_article(demo: KnowledgeCorpus, tmp_path: Path) -> None:
    retriever = ImageRetriever(demo, ImageEncoder.from_pretrained(IMAGE_ENCODER), 5, floor=0.5)
    posts = {post.id: post for post in read_jsonl(DEMO_POSTS)}
    (tmp_path / "text.jpg").write_text("no picture")
    wrong = replace(posts["andes"], image=tmp_path / "text.jpg")
    asked = [posts["andes"], posts["sobieski"], posts["toledo"], posts["libya"], posts["no-picture"], wrong]
    andes, sobieski, toledo, libya, none, broken = retriever.retrieve(asked)
    assert andes.evidence[0].passage.title == "The Heart of the Andes"
    assert sobieski.evidence[0].passage.title == "John III Sobieski"
    assert toledo.evidence[0].passage.title == "View of Toledo"
    assert all(e.score >= 0.5 for e in andes.evidence)
    assert libya.evidence == ()
    assert "similar enough" in libya.warnings[0]
    assert none.warnings == ("no picture",)
    assert "not a picture" in broken.warnings[0]


def test_evidence_is_kept_and_checked_against_its_posts(demo: KnowledgeCorpus, data: Path, tmp_path: Path) -> None:
    posts = read_jsonl(data / "posts.jsonl")
    rows = [r.evidence for r in TextRetriever(demo, 3).retrieve(posts)]
    path = tmp_path / "evidence.jsonl.zst"
    header = EvidenceHeader(retriever="text", query="post", k=3, corpus=demo.version, posts=len(posts))
    save_evidence(path, header, posts, rows)
    loaded, again = load_evidence(path, posts)
    assert loaded == header
    for ours, theirs in zip(again, rows, strict=True):
        assert [e.passage for e in ours] == [e.passage for e in theirs]
    other = [replace(posts[0], text="something else"), *posts[1:]]
    with pytest.raises(DataFormatError, match="retrieve again"):
        load_evidence(path, other)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises((DataFormatError, EOFError)):
        load_evidence(path, posts)
