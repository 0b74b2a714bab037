"""What a client may not do to the service, over real connections."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from moreie import Extractor
from moreie.serving.limits import BODY_LIMIT
from moreie.serving.logs import JsonLines
from moreie.serving.settings import ServiceSettings
from moreie.serving.tokens import parse_tokens

TEXT = "Barack Obama meets Angela Merkel in Berlin"
READ, WRITE = "r" * 20, "w" * 20


def png(width: int, height: int) -> bytes:
    """A well-formed black 1-bit PNG of any size, a thousandth of what it unfolds to."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 30_000])
def test_a_decompression_bomb_is_not_unfolded(live: Any, side: int) -> None:
    bomb = png(side, side)
    assert len(bomb) < 200_000
    assert Image.open(io.BytesIO(png(100, 100))).load() is not None, "its small sister is a picture"
    answer = live.client.post("/v1/extract", data={"text": TEXT}, files={"image": ("b.png", bomb, "image/png")})
    assert answer.status_code == 200
    assert any("pixels" in warning and "b.png" in warning for warning in answer.json()["warnings"])
    assert answer.json()["mentions"]


def test_formats_that_other_programs_read_are_no_pictures(live: Any) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n%%EOF\n"
    answer = live.client.post("/v1/retrieve", files={"image": ("a.eps", eps, "image/png")})
    assert answer.json() == {"evidence": [], "warnings": ["picture unreadable: a.eps: not a picture"]}


@pytest.mark.parametrize(
    "name, label",
    [
        ("../../../etc/passwd", "passwd"),
        ("..\\..\\windows\\win.ini", "win.ini"),
        ("/abs/olute.png", "olute.png"),
        ("..", ".."),
        ("a\u202eb<script>.png", "ab<script>.png"),
        ("http://127.0.0.1:1/x.png", "x.png"),
        ("n" * 300, "n" * 255),
    ],
)
def test_the_name_of_a_picture_is_a_label_and_nothing_else(live: Any, name: str, label: str) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(picture, "PNG")
    row = live.client.post("/v1/extract", data={"text": "Hi"}, files={"image": (name, picture.getvalue())}).json()
    assert row["image"] == label
    assert not any("moreie-" in warning for warning in row["warnings"])


def test_markup_stays_data(live: Any) -> None:
    evil = "<script>alert(1)</script> Obama & <b>Berlin</b>"
    answer = live.client.post("/v1/extract", json={"text": evil, "id": "<img src=x>"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (answer.json()["text"], answer.json()["id"]) == (evil, "<img src=x>")


def test_an_address_in_a_text_is_not_fetched(live: Any) -> None:
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.2)
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/a.png"
        body = {"text": f"Obama {address}", "id": address}
        assert live.client.post("/v1/extract", json=body).status_code == 200
        assert live.client.post("/v1/extract", data={"text": "Obama", "image": address}).status_code == 415
        fields = {"text": (None, "Obama"), "image": (None, address)}
        assert live.client.post("/v1/extract", files=fields).status_code == 422
        with pytest.raises(TimeoutError):
            trap.accept()


def raw(port: int, head: str, body: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 60)
    connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
    return connection


def test_an_oversized_body_is_refused_before_it_comes(live: Any) -> None:
    head = f"POST /v1/extract HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: {BODY_LIMIT + 1}\n"
    with raw(live.port, head) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_what_comes_too_slowly_or_takes_too_long_ends(extractor: Extractor, serve: Callable[..., Any]) -> None:
    with serve(extractor, ServiceSettings(time_limit=0.3)) as live:
        head = "POST /v1/extract HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: 50\n"
        with raw(live.port, head, b'{"text": ') as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        with extractor._lock:  # as if another batch took long
            late = live.client.post("/v1/extract", json={"text": TEXT})
        assert late.status_code == 504
        assert "0.3 s" in late.json()["detail"]
        assert live.metric('moreie_rejected_requests_total{reason="too late"}') == 1
        assert live.metric('moreie_rejected_requests_total{reason="too slow"}') == 1


def test_who_hangs_up_is_dropped_and_those_behind_are_answered(extractor: Extractor, serve: Callable[..., Any]) -> None:
    body = json.dumps({"text": TEXT}).encode()
    head = f"POST /v1/extract HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: {len(body)}\n"
    with serve(extractor) as live, ThreadPoolExecutor(2) as pool:
        with extractor._lock:
            running = pool.submit(live.client.post, "/v1/extract", json={"text": "Messi in Paris"})
            live.until(lambda: live.metric("moreie_batch_posts_count") == 1)
            gone = raw(live.port, head, body)
            live.until(lambda: live.service.batcher.length == 1)
            kept = pool.submit(live.client.post, "/v1/extract", json={"text": "Obama in Berlin"})
            live.until(lambda: live.service.batcher.length == 2)
            gone.close()
            live.until(lambda: live.service.batcher.length == 1)
        assert running.result().json()["text"] == "Messi in Paris"
        assert kept.result().json()["text"] == "Obama in Berlin"
        assert live.metric("moreie_batch_posts_sum") == 2
        assert live.metric('moreie_rejected_requests_total{reason="hung up"}') == 1
        assert live.metric('moreie_requests_total{route="/v1/extract",status="499"}') == 1


def test_a_full_queue_says_when_to_come_again(extractor: Extractor, serve: Callable[..., Any]) -> None:
    settings = ServiceSettings(queue_size=2, batch_size=1, batch_wait=0)
    with serve(extractor, settings) as live, ThreadPoolExecutor(8) as pool:
        with extractor._lock:
            asked = [pool.submit(live.client.post, "/v1/extract", json={"text": f"Obama {i}"}) for i in range(8)]
            live.until(lambda: sum(one.done() for one in asked) == 5)
        answers = [one.result() for one in asked]
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5
        for i, answer in enumerate(answers):
            if answer.status_code == 503:
                assert answer.headers["retry-after"] == "1"
            else:
                assert answer.json()["text"] == f"Obama {i}"


def test_a_token_is_needed_where_the_service_has_some(extractor: Extractor, serve: Callable[..., Any]) -> None:
    tokens = parse_tokens(f"read {READ}\nwrite {WRITE}", "here")
    with serve(extractor, ServiceSettings(tokens=tokens)) as live:
        for method, path in (("POST", "/v1/extract"), ("GET", "/"), ("GET", "/metrics"), ("PUT", "/v1/knowledge/1")):
            for authorization in ({}, {"Authorization": "Bearer " + "x" * 20}):
                answer = live.client.request(method, path, json={"text": TEXT}, headers=authorization)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
        assert live.client.get("/health").status_code == live.client.get("/ready").status_code == 200
        assert live.client.get("/openapi.json").status_code == 200
        reader = {"Authorization": f"Bearer {READ}"}
        assert live.client.post("/v1/retrieve", json={"text": TEXT}, headers=reader).status_code == 200
        assert live.client.get("/", auth=("anybody", READ)).status_code == 200, "a browser asks for a password"
        refused = live.client.put("/v1/knowledge/1", json={}, headers=reader)
        assert (refused.status_code, refused.json()["detail"]) == (403, "this token may read, not write")


def test_guesses_do_not_slow_others_down(extractor: Extractor, serve: Callable[..., Any]) -> None:
    with serve(extractor, ServiceSettings(tokens=parse_tokens(f"read {READ}", "here"))) as live:
        guess = {"Authorization": "Bearer " + "x" * 20}
        took = []
        for _ in range(100):
            start = time.perf_counter()
            assert live.client.post("/v1/extract", content=b"{}", headers=guess).status_code == 401
            took.append(time.perf_counter() - start)
        assert sorted(took)[50] < 0.1, "no answer is held back, and the last comes as fast as the first"


def test_a_refusal_arrives_though_the_body_comes_after_it(extractor: Extractor, serve: Callable[..., Any]) -> None:
    body = b" " * 60_000
    head = f"POST /v1/extract HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serve(extractor, ServiceSettings(tokens=parse_tokens(f"read {READ}", "here"))) as own:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", own.port), timeout=10) as client:
                client.sendall(head)
                for start in range(0, len(body), 2_000):
                    client.sendall(body[start : start + 2_000])
                said = b""
                while piece := client.recv(4096):
                    said += piece
            assert said.startswith(b"HTTP/1.1 401 ")
            assert said.endswith(b'"}')


def test_other_origins_are_let_in_only_where_named(live: Any, extractor: Extractor, serve: Callable[..., Any]) -> None:
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in live.client.options("/v1/extract", headers=asks).headers
    tokens = parse_tokens(f"read {READ}", "here")
    with serve(extractor, ServiceSettings(cors_origins=("https://app.example",), tokens=tokens)) as own:
        asked = own.client.options("/v1/extract", headers=asks)
        assert asked.headers["access-control-allow-origin"] == "https://app.example"
        other = own.client.options("/v1/extract", headers={**asks, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        refused = own.client.post("/v1/extract", json={}, headers={"Origin": "https://app.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://app.example", "the page may see why"


def test_one_log_line_a_request_without_what_was_sent(live: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="moreie.serving.access"):
        given = live.client.post("/v1/extract", json={"text": "Secretword in Berlin"}, headers={"X-Request-ID": "a-1"})
        made = live.client.post("/v1/extract", json={"txt": "Secretword"}, headers={"X-Request-ID": "a b"})
        live.client.get("/v1/knowledge/Secretword")
    assert given.headers["x-request-id"] == "a-1"
    assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])
    assert "Secretword" not in made.text, "what was sent is not said again"
    lines = [JsonLines().format(record) for record in caplog.records]
    rows = [json.loads(line) for line in lines]
    assert [(r["method"], r["route"], r["status"]) for r in rows] == [
        ("POST", "/v1/extract", 200),
        ("POST", "/v1/extract", 422),
        ("GET", "/v1/knowledge/{article_id:path}", 404),
    ]
    assert rows[0]["request_id"] == "a-1"
    assert rows[0]["ms"] > 0
    assert not any("Secretword" in line for line in lines)


def test_a_fault_is_answered_and_logged_by_its_place(
    extractor: Extractor, serve: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    broken = Extractor(extractor.ner, extractor.relations, corpus=extractor.corpus, image_encoder=None)
    broken.ner = None  # type: ignore[assignment]
    with serve(broken) as live, caplog.at_level(logging.INFO, logger="moreie.serving.access"):
        answer = live.client.post("/v1/extract", json={"text": "Secretword"})
        assert live.client.get("/health").status_code == 200
    assert answer.status_code == 500
    record = next(r for r in caplog.records if r.__dict__.get("route") == "/v1/extract")
    row = json.loads(JsonLines().format(record))
    assert row["error"] == "AttributeError"
    assert "attachments.py" in row["at"][-1]
    assert row["request_id"] in answer.json()["detail"]
    assert "Secretword" not in json.dumps(row)


def test_before_the_model_is_there(extractor: Extractor, serve: Callable[..., Any]) -> None:
    there = threading.Event()

    def load() -> Extractor:
        assert there.wait(60)
        return extractor

    with serve(load) as live:
        assert live.client.get("/health").status_code == 200
        assert live.client.get("/ready").json()["status"] == "loading"
        assert live.client.get("/metrics").status_code == 200
        for path in ("/v1/extract", "/"):
            early = live.client.post(path, json={"text": TEXT})
            assert (early.status_code, early.headers["retry-after"]) == (503, "5")
        there.set()
        live.until(lambda: live.client.get("/ready").status_code == 200)
        assert live.client.get("/").status_code == 200
        assert live.client.post("/v1/extract", json={"text": TEXT}).status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_server(serve: Callable[..., Any]) -> None:
    with serve(lambda: Extractor.from_pretrained("/nowhere/at/all")) as live:
        live.thread.join(60)
        assert not live.thread.is_alive()
        assert "nowhere" in str(live.service.failure)


def test_what_runs_is_answered_when_the_server_is_told_to_end(extractor: Extractor, serve: Callable[..., Any]) -> None:
    with serve(extractor) as live, ThreadPoolExecutor(1) as pool:
        with extractor._lock:
            running = pool.submit(live.client.post, "/v1/extract", json={"text": TEXT})
            live.until(lambda: live.service.running == 1)
            live.server.handle_exit(15, None)
            refused = live.client.post("/v1/extract", json={"text": TEXT})
            assert (refused.status_code, refused.json()["detail"]) == (503, "the service is draining")
            assert live.client.get("/ready").status_code == 503
            assert live.client.get("/health").status_code == 200
        assert running.result().status_code == 200
        live.thread.join(60)
        assert not live.thread.is_alive()
