"""What the page needs from the service, with the real model behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from fastapi.testclient import TestClient

from moreie import Extractor
from moreie.datasets import read_jsonl
from moreie.serving.page.routes import FILES
from moreie.serving.service import create_app
from moreie.shipped import DEMO_POSTS

TEXT = "Barack Obama meets Angela Merkel in Berlin"


@pytest.fixture(scope="module")
def client(extractor: Extractor) -> Iterator[TestClient]:
    with TestClient(create_app(extractor), raise_server_exceptions=False) as client:
        yield client


def test_the_page_takes_nothing_from_elsewhere_and_nothing_inline(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    html = answer.text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", html)
    for address in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert address.startswith("/"), "every file comes from the service itself"
        if address != "/docs":
            assert client.get(address).status_code == 200


def test_every_module_that_is_imported_is_served(client: TestClient) -> None:
    for script in FILES.glob("*.js"):
        answer = client.get(f"/page/files/{script.name}")
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["x-content-type-options"] == "nosniff"
        for name in re.findall(r'from "\./([^"]+)"', answer.text):
            assert client.get(f"/page/files/{name}").status_code == 200
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", answer.text)


def test_a_file_that_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/page/files/page.js")
    again = client.get("/page/files/page.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize("name", ["routes.py", "..%2Froutes.py", "%2e%2e/routes.py", "..\\routes.py", "nothing.js"])
def test_other_files_are_not_served(client: TestClient, name: str) -> None:
    assert client.get(f"/page/files/{name}").status_code == 404
    assert client.get(f"/page/examples/{name}").status_code == 404


def test_examples_are_the_posts_that_ship(client: TestClient) -> None:
    examples = client.get("/page/examples").json()
    posts = list(read_jsonl(DEMO_POSTS))
    assert [e["text"] for e in examples] == [post.text for post in posts]
    assert all(e["note"] for e in examples)
    for example, post in zip(examples, posts, strict=True):
        if post.image is None:
            assert example["picture"] is None
        else:
            assert client.get(example["picture"]).content == post.image.read_bytes()


def test_pictures_are_those_that_the_corpus_lists(client: TestClient, extractor: Extractor) -> None:
    post = read_jsonl(DEMO_POSTS)[0]
    assert extractor.corpus is not None
    (file,) = {e.passage.image for e in extractor.extract(post).evidence if e.passage.image and e.rank == 1}
    assert file is not None
    answer = client.get("/page/pictures", params={"file": file})
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == extractor.corpus.thumbnails([file])[file]
    for wrong in (f"../{file}", f"/{file}", "' OR file != '", str(Path(__file__)), "../../posts.jsonl", "", "\0"):
        assert client.get("/page/pictures", params={"file": wrong}).status_code == 404
    assert client.get("/page/pictures").status_code == 422


def test_an_answer_has_each_experts_own(client: TestClient, extractor: Extractor) -> None:
    post = read_jsonl(DEMO_POSTS)[0]
    assert post.image is not None
    files = {"image": ("../../andes.jpg", post.image.read_bytes(), "image/jpeg")}
    row = client.post("/page/extract", data={"text": post.text}, files=files).json()
    (expected,) = extractor.compare([post])
    own = json.loads(json.dumps(expected.to_dict()))
    for name in ("mentions", "relations", "evidence", "gate", "experts"):
        assert row[name] == own[name]
    assert row["image"] == "andes.jpg", "a client's path is cut down to a name"
    assert {e["article"] for e in row["evidence"]} >= {"14239014"}


def test_what_cannot_be_extracted_is_refused(client: TestClient) -> None:
    attached = {"text": TEXT, "attached": '{"caption": "two politicians"}'}
    files = {"image": ("mine.jpg", b"no picture", "image/jpeg")}
    refused = client.post("/page/extract", data=attached, files=files)
    assert refused.status_code == 422
    assert "no expert of the model reads attached 'caption'" in refused.json()["detail"]
    row = client.post("/page/extract", data={"text": TEXT}, files=files).json()
    (warning,) = [w for w in row["warnings"] if "not a picture" in w]
    assert "mine.jpg" in warning
    assert "moreie-" not in warning


def test_the_page_is_told_why_knowledge_cannot_be_edited(client: TestClient, extractor: Extractor) -> None:
    state = client.get("/page/state").json()
    assert state["model"] == extractor.name
    assert state["editing"] == "off"
    assert "demo corpus" in state["why"]
