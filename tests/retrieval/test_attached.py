"""Attached evidence: kept in files like any other, one passage a text, none where there is none."""

from __future__ import annotations

from pathlib import Path

from moreie.datasets import read_posts
from moreie.retrieval.attached import attached_evidence
from moreie.retrieval.cache import EvidenceHeader, TextSource, load_evidence, save_evidence


def test_texts_are_evidence_of_their_posts(data: Path, tmp_path: Path) -> None:
    posts = read_posts(data / "twitter2017-sample.txt")[:4]
    rows = attached_evidence(["a stage", "", "a stage", "a sofa"], "caption", "Image")
    assert [len(row) for row in rows] == [1, 0, 1, 1]
    (first,) = rows[0]
    assert (first.retriever, first.rank, first.passage.title, first.passage.text) == ("caption", 1, "Image", "a stage")
    ids = [row[0].passage.id for row in rows if row]
    assert ids[0] == ids[1] != ids[2], "an id names a text"
    source = TextSource(file="captions.jsonl", digest="0", title="Image")
    header = EvidenceHeader(retriever="caption", query="image_id", k=1, posts=4, source=source)
    save_evidence(tmp_path / "e.jsonl.zst", header, posts, rows)
    assert load_evidence(tmp_path / "e.jsonl.zst", posts) == (header, rows)
