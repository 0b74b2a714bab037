"""A corpus written out as article JSONL, and built from that again."""

from __future__ import annotations

import json
from pathlib import Path

from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.export import export
from moreie.knowledge.sources.articles import article_row
from moreie.knowledge.update import replace

ROWS = [
    {
        "id": "1",
        "title": "Kawhi Leonard",
        "paragraphs": ["Leonard plays.", "He won."],
        "redirects": ["The Klaw", "Kawhi"],
    },
    {"id": "2", "title": "Beyoncé", "paragraphs": ["A singer."], "redirects": ["Queen Bey", "Beyoncé Knowles-Carter"]},
    {"id": "3", "title": "London", "paragraphs": ["A city."]},
]
NAMES = ["the klaw", "kawhi", "theklaw", "queen bey", "beyonce knowles carter", "beyonce", "london", "kawhi leonard"]


def named(corpus: KnowledgeCorpus) -> dict[str, list[str]]:
    return {name: [p.title for p in found] for name, found in (corpus.named(NAMES) or {}).items()}


def test_redirects_come_back_from_an_export_and_through_an_edit(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    build_corpus(tmp_path / "first", Sources(articles=(path,)))
    first = KnowledgeCorpus.open(tmp_path / "first")
    assert set(named(first)) == set(NAMES)

    assert export(tmp_path / "first", tmp_path / "out.jsonl") == 3
    written = {row["id"]: row for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    assert written["1"]["redirects"] == ["kawhi", "the klaw"]
    assert "redirects" not in written["3"]
    build_corpus(tmp_path / "again", Sources(articles=(tmp_path / "out.jsonl",)))
    again = KnowledgeCorpus.open(tmp_path / "again")
    assert named(again) == named(first)
    export(tmp_path / "again", tmp_path / "out-again.jsonl")
    assert (tmp_path / "out-again.jsonl").read_text() == (tmp_path / "out.jsonl").read_text()

    article = first.article("1")
    assert article is not None
    row = {**article_row(article), "paragraphs": ["Leonard has retired."]}
    path.write_text(json.dumps(row) + "\n")
    replace(tmp_path / "first", Sources(articles=(path,)))
    edited = KnowledgeCorpus.open(tmp_path / "first")
    assert named(edited) == named(first)
    assert [p.text for p in (edited.named(["the klaw"]) or {})["the klaw"]] == ["Leonard has retired."]
