"""Knowledge in Milvus read and changed over HTTP: an embedded file, and a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from moreie import Extractor
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.verify import verify
from moreie.serving.settings import ServiceSettings
from moreie.serving.tokens import parse_tokens

WRITE = "w" * 20
WRITER = {"Authorization": f"Bearer {WRITE}"}
ARTICLE = {"title": "Zorblax", "paragraphs": ["Zorblax is a statesman from Quintara.", "Nobody elected Zorblax."]}
ASKED = {"text": "Barack Obama meets Zorblax in Quintara"}


@pytest.fixture(scope="module")
def serve_corpus(
    extractor: Extractor, serve: Callable[..., Any], data: Path
) -> Callable[[str], AbstractContextManager[Any]]:
    """`with serve_corpus(location) as live:` builds a corpus there and serves it; it may be changed."""

    def served(location: str) -> AbstractContextManager[Any]:
        build_corpus(location, Sources(articles=(data / "articles.jsonl",)))
        corpus = KnowledgeCorpus.open(location)
        over = Extractor(extractor.ner, extractor.relations, corpus=corpus, image_encoder=extractor.image_encoder)
        running: AbstractContextManager[Any] = serve(
            over, ServiceSettings(tokens=parse_tokens(f"write {WRITE}", "here"))
        )
        return running

    return served


@pytest.fixture(scope="module", params=["file", pytest.param("server", marks=pytest.mark.slow)])
def own(
    request: pytest.FixtureRequest,
    serve_corpus: Callable[[str], AbstractContextManager[Any]],
    milvus_server: Callable[[Path], AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (it has no build for this platform)")
    folder = tmp_path_factory.mktemp("served")
    if request.param == "file":
        with serve_corpus(f"milvus:{folder / 'corpus.db'}") as live:
            yield live
    else:
        with milvus_server(folder / "milvus") as server, serve_corpus(f"{server}/served") as live:
            yield live


def titles(live: Any, **asked: Any) -> list[str]:
    answer = live.client.post("/v1/retrieve", json={**ASKED, **asked})
    assert answer.status_code == 200, answer.text
    return [row["title"] for row in answer.json()["evidence"]]


def test_an_article_is_added_replaced_and_removed(own: Any) -> None:
    location = own.service.extractor.corpus.location
    before = KnowledgeCorpus.open(location).manifest
    found = titles(own)
    assert found
    assert "Zorblax" not in found
    added = own.client.put("/v1/knowledge/z1", json={**ARTICLE, "url": "https://a.example/z"}, headers=WRITER)
    assert added.status_code == 201, added.text
    after = KnowledgeCorpus.open(location).manifest
    assert added.json() == {
        "added": 1,
        "replaced": 0,
        "removed": 0,
        "skipped": [],
        "articles": before.articles + 1,
        "passages": before.passages + 2,
        "corpus": after.version,
    }
    assert titles(own, text="Zorblax in Quintara")[0] == "Zorblax"
    row = own.client.post("/v1/extract", json={**ASKED, "link": True}).json()
    assert row["corpus"].endswith(after.version)
    assert {e["text"] for e in row["evidence"] if e["title"] == "Zorblax"} == set(ARTICLE["paragraphs"])
    assert {m["text"]: m["link"]["article"] for m in row["mentions"]}["Zorblax"] == "z1"
    read = own.client.get("/v1/knowledge/z1").json()
    assert (read["title"], read["url"]) == ("Zorblax", "https://a.example/z")
    assert [paragraph["text"] for paragraph in read["paragraphs"]] == ARTICLE["paragraphs"]
    replaced = own.client.put(
        "/v1/knowledge/z1", json={**read, "paragraphs": ["Zorblax left Quintara."]}, headers=WRITER
    )
    assert (replaced.status_code, replaced.json()["replaced"]) == (200, 1), replaced.text
    evidence = own.client.post("/v1/retrieve", json=ASKED).json()["evidence"]
    assert [e["text"] for e in evidence if e["title"] == "Zorblax"] == ["Zorblax left Quintara."]
    assert own.client.delete("/v1/knowledge/z1", headers=WRITER).json()["removed"] == 1
    assert own.client.delete("/v1/knowledge/z1", headers=WRITER).status_code == 404
    assert own.client.get("/v1/knowledge/z1").status_code == 404
    assert titles(own) == found
    row = own.client.post("/v1/extract", json={**ASKED, "link": True}).json()
    assert {m["text"]: m["link"]["article"] for m in row["mentions"]}["Zorblax"] is None
    assert verify(location) == []


def test_one_change_at_a_time_while_others_read(own: Any) -> None:
    def put(i: int) -> int:
        return int(own.client.put(f"/v1/knowledge/p{i}", json=ARTICLE, headers=WRITER).status_code)

    with ThreadPoolExecutor(8) as pool:
        reading = [pool.submit(titles, own) for _ in range(8)]
        statuses = list(pool.map(put, range(6)))
        assert all(one.result() for one in reading)
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    for i, status in enumerate(statuses):
        assert own.client.get(f"/v1/knowledge/p{i}").status_code == (200 if status == 201 else 404)
    rows = [{"id": f"m{i}", **ARTICLE} for i in range(3)]
    assert own.client.post("/v1/knowledge", json={"articles": rows}, headers=WRITER).json()["added"] == 3
    for id in (*(row["id"] for row in rows), *(f"p{i}" for i, status in enumerate(statuses) if status == 201)):
        assert own.client.delete(f"/v1/knowledge/{id}", headers=WRITER).json()["removed"] == 1
    assert verify(own.service.extractor.corpus.location) == []


def test_what_milvus_does_not_keep_is_refused_and_nothing_is_written(own: Any) -> None:
    location = own.service.extractor.corpus.location
    before = KnowledgeCorpus.open(location).version
    rows = [{"id": "z1", **ARTICLE}, {"id": "z2", "title": "Long", "paragraphs": ["Zorblax " * 10_000]}]
    refused = own.client.post("/v1/knowledge", json={"articles": rows}, headers=WRITER)
    assert refused.status_code == 409
    assert "longer than Milvus keeps" in refused.json()["detail"]
    assert own.client.get("/v1/knowledge/z1").status_code == 404
    assert "Zorblax" not in titles(own)
    assert KnowledgeCorpus.open(location).version == before
    assert own.client.put("/v1/knowledge/z1", json=ARTICLE, headers=WRITER).status_code == 201
    assert "Zorblax" in titles(own)
    assert verify(location) == []


@pytest.mark.slow
def test_a_milvus_that_goes_away(
    serve_corpus: Callable[[str], AbstractContextManager[Any]],
    milvus_server: Callable[[Path], AbstractContextManager[str]],
    tmp_path: Path,
) -> None:
    with ExitStack() as services:
        with milvus_server(tmp_path / "milvus") as server:
            live = services.enter_context(serve_corpus(f"{server}/served"))
            assert titles(live)
        for answer in (
            live.client.post("/v1/extract", json=ASKED),
            live.client.get("/v1/knowledge/z1"),
            live.client.put("/v1/knowledge/z1", json=ARTICLE, headers=WRITER),
            live.client.post("/v1/extract", json={**ASKED, "link": True}),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), answer.text
            assert "127.0.0.1" not in answer.text
        assert live.client.get("/health").status_code == 200
