"""Links asked for over HTTP: those of the Linker, over the corpus as it is, beside what others ask for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from moreie import Extractor, Linker
from moreie.knowledge.update import compact

WRITE = "w" * 20
WRITER = {"Authorization": f"Bearer {WRITE}"}
TEXT = "Kawhi Leonard leads the Toronto Raptors past Golden State in Oakland"
NEW = "Barack Obama meets Zorblax in Berlin"


def expected(live: Any, text: str) -> Any:
    """The mentions as `moreie extract --link --json` writes them."""
    extraction = live.service.extractor.extract(text)
    return json.loads(json.dumps(Linker.for_corpus(live.folder).link(extraction).to_dict()["mentions"]))


def links(row: dict[str, Any]) -> dict[str, str | None]:
    """By mention the title that it is linked to."""
    return {mention["text"]: mention["link"]["title"] for mention in row["mentions"]}


def test_links_are_those_of_the_linker_however_they_are_asked_for(own: Any) -> None:
    mentions = expected(own, TEXT)
    row = own.client.post("/v1/extract", json={"text": TEXT, "link": True}).json()
    assert row["mentions"] == mentions
    assert row["mentions"][0]["link"]["article"] == "simple:550510"
    assert links(row)["Kawhi Leonard"] == "Kawhi Leonard"
    assert None in links(row).values(), "no article is an answer, too"
    form = {"text": (None, TEXT), "link": (None, "true")}
    assert own.client.post("/v1/extract", files=form).json()["mentions"] == mentions
    attributed = own.client.post("/v1/extract", json={"text": TEXT, "link": True, "attribute": True}).json()
    assert attributed["mentions"] == mentions
    assert attributed["influences"]
    posts = [{"text": TEXT}, {"text": NEW, "link": True}, {"text": TEXT, "link": True}]
    plain, other, same = own.client.post("/v1/extract/batch", json={"posts": posts}).json()["extractions"]
    assert not any("link" in mention for mention in plain["mentions"])
    assert (links(other), links(same)) == (links({"mentions": expected(own, NEW)}), links(row))
    assert own.client.post("/v1/extract", json={"text": "", "link": True}).json()["mentions"] == []
    assert own.metric('moreie_stage_seconds_count{stage="linking"}') >= 5
    refused = own.client.post("/v1/extract", files={"text": (None, TEXT), "link": (None, "perhaps")})
    assert refused.status_code == 422


def test_what_is_written_can_be_linked_to_at_once_and_what_is_removed_cannot(own: Any) -> None:
    asked = {"text": NEW, "link": True}
    assert links(own.client.post("/v1/extract", json=asked).json())["Zorblax"] is None
    article = {"title": "Zorblax", "text": "Zorblax is a statesman from Quintara.", "url": "https://a.example/z"}
    assert own.client.put("/v1/knowledge/z1", json=article, headers=WRITER).status_code == 201
    row = own.client.post("/v1/extract", json=asked).json()
    (link,) = [m["link"] for m in row["mentions"] if m["text"] == "Zorblax"]
    assert (link["article"], link["title"], link["url"]) == ("z1", "Zorblax", "https://a.example/z")
    assert row["mentions"] == expected(own, NEW)
    own.client.put("/v1/knowledge/z1", json={**article, "title": "Zorblax!"}, headers=WRITER)
    assert links(own.client.post("/v1/extract", json=asked).json())["Zorblax"] == "Zorblax!"
    own.client.delete("/v1/knowledge/z1", headers=WRITER)
    assert links(own.client.post("/v1/extract", json=asked).json())["Zorblax"] is None


def test_a_corpus_that_cannot_be_linked_to(own: Any) -> None:
    manifest = json.loads((own.folder / "manifest.json").read_text())
    del manifest["tables"]["names"]  # as of a corpus built before names were kept
    (own.folder / "manifest.json").write_text(json.dumps(manifest))
    posts = {"posts": [{"text": TEXT}, {"text": TEXT, "link": True}]}
    for path, asked in (("/v1/extract", posts["posts"][1]), ("/v1/extract/batch", posts)):
        answer = own.client.post(path, json=asked)
        assert answer.status_code == 409
        assert "`moreie corpus compact`" in answer.json()["detail"]
        assert str(own.folder) not in answer.text
    assert own.client.post("/v1/extract", json={"text": TEXT}).status_code == 200
    compact(own.folder)
    assert own.client.post("/v1/extract", json=posts["posts"][1]).json()["mentions"] == expected(own, TEXT)


def test_without_a_corpus_there_is_nothing_to_link_to(extractor: Extractor, serve: Callable[..., Any]) -> None:
    bare = Extractor(extractor.ner, extractor.relations, corpus=None, image_encoder=None)
    with serve(bare) as live:
        answer = live.client.post("/v1/extract", json={"text": TEXT, "link": True})
        assert (answer.status_code, "no knowledge corpus" in answer.json()["detail"]) == (409, True)


def test_clients_at_the_same_time_get_their_own_links(own: Any) -> None:
    names = ("London", "Libya", "Tripoli", "Kawhi Leonard", "Zorblax", "Lionel Messi")

    def ask(i: int) -> tuple[int, dict[str, Any]]:
        text = f"{names[i % len(names)]} met Barack Obama {i}"
        return i, own.client.post("/v1/extract", json={"text": text, "link": i % 4 != 0, "id": str(i)}).json()

    with ThreadPoolExecutor(12) as pool:
        rows = dict(pool.map(ask, range(24)))
    for i, row in rows.items():
        assert row["id"] == str(i)
        assert all(("link" in mention) == (i % 4 != 0) for mention in row["mentions"])
        if i % 4:
            assert links(row) == links({"mentions": expected(own, row["text"])})
    assert links(rows[3])["Kawhi Leonard"] == "Kawhi Leonard"


def test_counting_anchors_holds_up_nobody_who_asks_for_no_links(own: Any) -> None:
    held = threading.Event()
    own.service.linking._worker.submit(held.wait, 60)  # as if the anchors of a large corpus were counted
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(own.client.post, "/v1/extract", json={"text": TEXT, "link": True})
            own.until(lambda: own.metric("moreie_batch_posts_count") == 1)
            for _ in range(3):
                assert own.client.post("/v1/extract", json={"text": NEW}).status_code == 200
            assert not waiting.done()
            held.set()
            assert waiting.result().json()["mentions"] == expected(own, TEXT)
    finally:
        held.set()
