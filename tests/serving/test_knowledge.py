"""Knowledge read and changed over HTTP, and what an extraction makes of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from filelock import FileLock

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from moreie import Extractor
from moreie.knowledge.manifest import read_manifest
from moreie.knowledge.update import LOCK, remove
from moreie.knowledge.verify import verify
from moreie.serving.settings import ServiceSettings
from moreie.serving.tokens import parse_tokens

WRITE = "w" * 20
WRITER = {"Authorization": f"Bearer {WRITE}"}
ARTICLE = {"title": "Zorblax", "paragraphs": ["Zorblax are a rock band from Quintara.", "They play loud."]}
ASKED = {"text": "Great night with Zorblax in Quintara"}


def test_an_article_is_added_found_read_replaced_and_removed(own: Any) -> None:
    before = read_manifest(own.folder)
    assert own.client.get("/v1/knowledge/z1").status_code == 404
    added = own.client.put("/v1/knowledge/z1", json={**ARTICLE, "url": "https://a.example/z"}, headers=WRITER)
    assert added.status_code == 201
    after = read_manifest(own.folder)
    assert added.json() == {
        "added": 1,
        "replaced": 0,
        "removed": 0,
        "skipped": [],
        "articles": before.articles + 1,
        "passages": before.passages + 2,
        "corpus": after.version,
    }
    row = own.client.post("/v1/extract", json=ASKED).json()
    assert row["corpus"].endswith(after.version)
    assert row["evidence"][0]["title"] == "Zorblax"
    assert own.client.post("/v1/retrieve", json=ASKED).json()["evidence"][0]["text"] == ARTICLE["paragraphs"][0]
    assert own.client.get("/v1/knowledge/z1").json() == {
        "id": "z1",
        "title": "Zorblax",
        "url": "https://a.example/z",
        "paragraphs": [
            {"text": text, "introduction": i == 0, "links": []} for i, text in enumerate(ARTICLE["paragraphs"])
        ],
    }
    replaced = own.client.put("/v1/knowledge/z1", json={"title": "Zorblax", "text": "One.\n\nTwo."}, headers=WRITER)
    assert (replaced.status_code, replaced.json()["replaced"]) == (200, 1)
    read = own.client.get("/v1/knowledge/z1").json()
    assert [paragraph["text"] for paragraph in read["paragraphs"]] == ["One.", "Two."]
    again = own.client.put("/v1/knowledge/z1", json={**read, "title": "Zorblax (band)"}, headers=WRITER)
    assert again.status_code == 200, "what was read can be written"
    assert own.client.delete("/v1/knowledge/z1", headers=WRITER).json()["removed"] == 1
    assert own.client.delete("/v1/knowledge/z1", headers=WRITER).status_code == 404
    assert own.client.post("/v1/retrieve", json=ASKED).json()["evidence"][:1] != row["evidence"][:1]
    assert verify(own.folder) == []
    assert own.metric('moreie_knowledge_articles_total{change="replaced"}') == 2
    sources = read_manifest(own.folder).sources
    assert len(sources) == len(before.sources) + 1, "what the service writes is one source"
    assert sources[-1].items == 3


def test_several_articles_come_together_or_not_at_all(own: Any) -> None:
    rows = [{"id": f"z/{i} é'", **ARTICLE} for i in range(3)]
    assert own.client.post("/v1/knowledge", json={"articles": rows}, headers=WRITER).json()["added"] == 3
    assert own.client.get("/v1/knowledge/z/1 é'").json()["title"] == "Zorblax"
    link = {"text": "short", "links": [{"start": 0, "end": 99, "target": "A"}]}
    for bad in (
        ARTICLE,
        {"id": "z9", "title": "no text"},
        {"id": "z9", "title": "blank", "text": " \n\n "},
        {"id": "z9", "title": "both", "text": "a", "paragraphs": ["a"]},
        {"id": "z9", "title": "link", "paragraphs": [link]},
        {"id": "z9", "title": "unknown", "text": "a", "txt": "a"},
    ):
        body = {"articles": [{"id": "z8", **ARTICLE}, bad]}
        answer = own.client.post("/v1/knowledge", json=body, headers=WRITER)
        assert answer.status_code == 422, bad
        assert answer.json()["detail"]
        assert own.client.get("/v1/knowledge/z8").status_code == 404
    other = own.client.put("/v1/knowledge/z1", json={"id": "z2", **ARTICLE}, headers=WRITER)
    assert "not that of the address" in other.json()["detail"]


def test_one_change_at_a_time(own: Any) -> None:
    with FileLock(own.folder / LOCK, timeout=10):  # as another process that changes it holds it
        busy = own.client.put("/v1/knowledge/z1", json=ARTICLE, headers=WRITER)
    assert (busy.status_code, busy.headers["retry-after"]) == (409, "1")
    assert "somebody else" in busy.json()["detail"]

    def put(i: int) -> int:
        return int(own.client.put(f"/v1/knowledge/p{i}", json=ARTICLE, headers=WRITER).status_code)

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(put, range(8)))
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    for i, status in enumerate(statuses):
        assert own.client.get(f"/v1/knowledge/p{i}").status_code == (200 if status == 201 else 404)
    assert verify(own.folder) == []


def test_the_last_article_stays(own: Any) -> None:
    from moreie.knowledge.corpus import KnowledgeCorpus

    own.client.put("/v1/knowledge/z1", json=ARTICLE, headers=WRITER)
    passages = KnowledgeCorpus.open(own.folder).scan("passages", ["article"])
    ids = {id for part in passages for id in part["article"].to_pylist()}
    remove(own.folder, sorted(ids - {"z1"}))
    last = own.client.delete("/v1/knowledge/z1", headers=WRITER)
    assert (last.status_code, "nothing" in last.json()["detail"]) == (409, True)


def test_without_a_token_nothing_is_written(live: Any) -> None:
    for headers in ({}, WRITER):
        answer = live.client.put("/v1/knowledge/z1", json=ARTICLE, headers=headers)
        assert answer.status_code == 403
        assert "without a token" in answer.json()["detail"]


def test_the_demo_corpus_is_not_changed(extractor: Extractor, serve: Callable[..., Any]) -> None:
    with serve(extractor, ServiceSettings(tokens=parse_tokens(f"write {WRITE}", "here"))) as live:
        answer = live.client.put("/v1/knowledge/z1", json=ARTICLE, headers=WRITER)
        assert (answer.status_code, "demo corpus" in answer.json()["detail"]) == (403, True)
        article = live.client.post("/v1/retrieve", json={"text": "Frederic Edwin Church"}).json()["evidence"][0]
        assert article["title"]


def test_pictures_of_an_article_are_named(live: Any) -> None:
    from moreie.knowledge.corpus import KnowledgeCorpus
    from moreie.shipped import DEMO_CORPUS

    corpus = KnowledgeCorpus.open(DEMO_CORPUS)
    row = next(corpus.scan("images", ["file", "caption", "passage"])).to_pylist()[0]
    passage = corpus.passages([row["passage"]])[row["passage"]]
    article = live.client.get(f"/v1/knowledge/{passage.article_id}").json()
    assert {"file": row["file"], "caption": row["caption"]} in article["images"]


def test_without_a_corpus(extractor: Extractor, serve: Callable[..., Any]) -> None:
    bare = Extractor(extractor.ner, extractor.relations, corpus=None, image_encoder=None)
    with serve(bare, ServiceSettings(tokens=parse_tokens(f"write {WRITE}", "here"))) as live:
        for answer in (
            live.client.get("/v1/knowledge/z1"),
            live.client.put("/v1/knowledge/z1", json=ARTICLE, headers=WRITER),
            live.client.post("/v1/retrieve", json=ASKED),
        ):
            assert (answer.status_code, answer.json()["detail"]) == (409, "the service has no knowledge corpus")
        assert live.client.get("/health").json()["corpus"] is None
        assert live.client.post("/v1/extract", json=ASKED).status_code == 200


def test_a_corpus_that_cannot_be_read(own: Any) -> None:
    manifest = own.folder / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(b"{")
    for answer in (own.client.post("/v1/extract", json=ASKED), own.client.get("/v1/knowledge/z1")):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert str(own.folder) not in answer.text
    manifest.write_bytes(content)
    assert own.client.post("/v1/extract", json=ASKED).status_code == 200
