"""The HTTP service with the real model behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

fastapi = pytest.importorskip("fastapi", reason="the serve extra is not installed")

from fastapi.testclient import TestClient  # noqa: E402

from moreie import Extractor  # noqa: E402
from moreie.datasets import read_jsonl  # noqa: E402
from moreie.serving.limits import BATCH_LIMIT, BODY_LIMIT  # noqa: E402
from moreie.serving.service import create_app  # noqa: E402
from moreie.shipped import DEMO_POSTS  # noqa: E402

TEXT = "Barack Obama meets Angela Merkel in Berlin"


@pytest.fixture(scope="module")
def client(extractor: Extractor) -> Iterator[TestClient]:
    with TestClient(create_app(extractor), raise_server_exceptions=False) as client:
        yield client


def test_health_names_model_and_corpus(client: TestClient, extractor: Extractor) -> None:
    answer = client.get("/health").json()
    assert answer["status"] == "ok"
    assert answer["model"] == extractor.name
    assert answer["corpus"]


def test_json_extract(client: TestClient, extractor: Extractor) -> None:
    answer = client.post("/v1/extract", json={"text": TEXT, "id": "7"})
    assert answer.status_code == 200
    row = answer.json()
    assert row["id"] == "7"
    assert row["mentions"] == json.loads(json.dumps(extractor.extract(TEXT).to_dict()["mentions"]))


def test_multipart_with_a_photograph(client: TestClient) -> None:
    post = read_jsonl(DEMO_POSTS)[0]
    assert post.image is not None
    files = {"image": ("../../andes.jpg", post.image.read_bytes(), "image/jpeg")}
    row = client.post("/v1/extract", data={"text": post.text}, files=files).json()
    images = [e for e in row["evidence"] if e["retriever"] == "image"]
    assert images[0]["title"] == "The Heart of the Andes"
    assert row["image"] == "andes.jpg", "a client's path is cut down to a name"


def test_a_broken_picture_is_named_as_the_client_knows_it(client: TestClient) -> None:
    files = {"image": ("mine.jpg", b"no picture", "image/jpeg")}
    row = client.post("/v1/extract", data={"text": TEXT}, files=files).json()
    (warning,) = [w for w in row["warnings"] if "not a picture" in w]
    assert "mine.jpg" in warning
    assert "moreie-" not in warning
    assert row["mentions"]


def test_a_batch_keeps_its_order(client: TestClient) -> None:
    posts = [{"text": f"{name} visits Paris", "id": name} for name in ("Obama", "Merkel", "Messi")]
    rows = client.post("/v1/extract/batch", json={"posts": posts}).json()["extractions"]
    assert [r["id"] for r in rows] == ["Obama", "Merkel", "Messi"]


def test_texts_are_attached(client: TestClient, extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = client.post("/v1/extract", json={"text": TEXT, "attached": {"caption": "two politicians"}})
    assert refused.status_code == 422
    assert "no expert of the model reads attached 'caption'" in refused.json()["detail"]
    expert = extractor.ner.experts[-1]
    view = replace(expert.spec.view, retriever="caption")
    monkeypatch.setattr(expert, "spec", expert.spec.model_copy(update={"view": view}))
    row = {"text": TEXT, "attached": {"caption": "two politicians"}}
    form = {"text": TEXT, "attached": json.dumps(row["attached"])}
    files = {"image": ("mine.jpg", b"no picture", "image/jpeg")}
    answers = [
        client.post("/v1/extract", json=row).json(),
        client.post("/v1/extract", data=form, files=files).json(),
        *client.post("/v1/extract/batch", json={"posts": [row, {"text": TEXT}]}).json()["extractions"],
    ]
    read = [[e["text"] for e in answer["evidence"] if e["retriever"] == "caption"] for answer in answers]
    assert read == [["two politicians"]] * 3 + [[]]
    assert [any("left out" in w for w in answer["warnings"]) for answer in answers] == [False] * 3 + [True]
    for wrong in ("[]", "{", '{"caption": 3}'):
        assert client.post("/v1/extract", data={**form, "attached": wrong}, files=files).status_code == 422
    assert client.post("/v1/retrieve", json=row).status_code == 422, "texts are not retrieved"


def test_retrieve(client: TestClient) -> None:
    answer = client.post("/v1/retrieve", json={"text": "Frederic Edwin Church"}).json()
    assert answer["evidence"][0]["retriever"] == "text"
    nothing = client.post("/v1/retrieve", json={"text": "😀"}).json()
    assert nothing == {"evidence": [], "warnings": ["no text evidence found"]}


@pytest.mark.parametrize(
    "content, kind, status",
    [
        (b"{", "application/json", 422),
        (b'{"txt": "x"}', "application/json", 422),
        (b'{"text": 3}', "application/json", 422),
        (b'{"text": "' + b"x" * 200_001 + b'"}', "application/json", 422),
        (b"text=x", "text/plain", 415),
        (b"", "", 415),
    ],
)
def test_bad_bodies_get_a_clear_status(client: TestClient, content: bytes, kind: str, status: int) -> None:
    answer = client.post(
        "/v1/extract", content=content, headers={"content-type": kind, "content-length": str(len(content))}
    )
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_an_oversized_body_is_refused_before_it_is_read(client: TestClient) -> None:
    answer = client.post(
        "/v1/extract",
        content=b"{}",
        headers={"content-type": "application/json", "content-length": str(BODY_LIMIT + 1)},
    )
    assert answer.status_code == 413


def test_a_body_without_a_length_is_refused(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"text": "x"}'

    assert client.post("/v1/extract", content=chunks()).status_code == 411


def test_too_large_a_batch_is_refused(client: TestClient) -> None:
    posts = [{"text": "x"}] * (BATCH_LIMIT + 1)
    assert client.post("/v1/extract/batch", json={"posts": posts}).status_code == 422


def test_parallel_clients_get_their_own_answers(client: TestClient) -> None:
    def ask(i: int) -> tuple[int, str]:
        return i, client.post("/v1/extract", json={"text": f"Obama visited Berlin {i}", "id": str(i)}).json()["text"]

    with ThreadPoolExecutor(8) as pool:
        for i, text in pool.map(ask, range(16)):
            assert text == f"Obama visited Berlin {i}"


def test_evidence_for_a_picture(client: TestClient) -> None:
    post = read_jsonl(DEMO_POSTS)[0]
    assert post.image is not None
    files = {"image": ("andes.jpg", post.image.read_bytes(), "image/jpeg")}
    alone = client.post("/v1/retrieve", files=files).json()["evidence"]
    assert {row["retriever"] for row in alone} == {"image"}
    assert alone[0]["title"] == "The Heart of the Andes"
    both = client.post("/v1/retrieve", data={"text": "Frederic Edwin Church"}, files=files).json()["evidence"]
    assert [row["retriever"] for row in both].index("image") > 0
    assert both[-len(alone) :] == alone


def test_attribution(client: TestClient, extractor: Extractor) -> None:
    text = "Kawhi Leonard in Paris"
    expected = json.loads(json.dumps(extractor.attribute(text).to_dict()))
    asked = {"text": text, "attribute": True}
    assert client.post("/v1/extract", json=asked).json() == expected
    assert expected["influences"]
    form = {"text": (None, ""), "attribute": (None, "true")}
    assert client.post("/v1/extract", files=form).json()["influences"] == []
    assert client.post("/v1/extract/batch", json={"posts": [asked]}).status_code == 422


@pytest.mark.parametrize("form", [{"txt": "x"}, {"text": "x", "attribute": "perhaps"}, {"text": "x", "id": "i" * 501}])
def test_forms_are_as_strict_as_json(client: TestClient, form: dict[str, str]) -> None:
    fields = {name: (None, value) for name, value in form.items()}
    answer = client.post("/v1/extract", files=fields)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"]


def test_other_content_types_are_refused_everywhere(client: TestClient) -> None:
    for path in ("/v1/extract", "/v1/extract/batch", "/v1/retrieve"):
        assert client.post(path, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_the_description_has_every_route_with_its_refusals(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    routes = {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert {("/v1/extract", "post"), ("/v1/knowledge/{article_id}", "put"), ("/metrics", "get")} <= routes
    extract = described["paths"]["/v1/extract"]["post"]
    assert set(extract["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"200", "401", "413", "415", "422", "503", "504"} <= set(extract["responses"])
    assert described["components"]["schemas"]["PostBody"]["examples"]
    assert client.get("/docs").status_code == 200
