"""`moreie serve` as a process: many clients, signals, and requests made up from its own description."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

import httpx

from moreie import Extractor

WRITE = "w" * 20
CLIENTS = 1_000
pytestmark = pytest.mark.slow
# That an article has some text, and its links lie in their paragraph, cannot be written as a schema.
UNWRITTEN = """
[[operations]]
include-path-regex = "^/v1/knowledge"
checks.positive_data_acceptance.enabled = false
"""


def test_a_thousand_clients_at_once(process: Callable[..., Any], tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * CLIENTS:
        pytest.skip(f"a process may open {hard:,} files here, and {4 * CLIENTS:,} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * CLIENTS), hard))

    async def ask(client: httpx.AsyncClient, i: int) -> httpx.Response:
        return await client.post("/v1/extract", json={"text": f"Obama visited Berlin {i} times", "id": str(i)})

    async def everybody(url: str) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
            return await asyncio.gather(*(ask(client, i) for i in range(CLIENTS)))

    with process(tmp_path / "log", "--queue-size", "60", "--time-limit", "240") as (_, url):
        answers = asyncio.run(everybody(url))
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 503}
        assert statuses[200] >= 60
        for i, answer in enumerate(answers):
            if answer.status_code == 200:
                assert (answer.json()["id"], answer.json()["text"]) == (str(i), f"Obama visited Berlin {i} times")
            else:
                assert int(answer.headers["retry-after"]) >= 1
        metrics = httpx.get(f"{url}/metrics").text
        posts = re.search(r"^moreie_batch_posts_sum (.+)$", metrics, re.M)
        batches = re.search(r"^moreie_batch_posts_count (.+)$", metrics, re.M)
        assert posts
        assert batches
        assert float(posts[1]) == statuses[200]
        assert float(batches[1]) < statuses[200] / 4
        assert re.search(r"^moreie_queue_posts 0.0$", metrics, re.M)
        print(f"{statuses[200]} answered in {batches[1]} batches, {statuses[503]} told to come again")


def test_sigterm_answers_what_runs_and_ends(process: Callable[..., Any], tmp_path: Path) -> None:
    async def scenario(running: subprocess.Popen[bytes], url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            asked = [asyncio.create_task(client.post("/v1/extract", json={"text": f"Obama {i}"})) for i in range(8)]
            while not asked[0].done():
                await asyncio.sleep(0.01)
            running.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            try:
                late = await client.post("/v1/extract", json={"text": "late"})
                assert late.status_code == 503
            except httpx.TransportError:
                assert all(one.done() for one in asked), "refused before the others were answered"
            return await asyncio.gather(*asked)

    with process(tmp_path / "log", "--batch-size", "1") as (running, url):
        answers = asyncio.run(scenario(running, url))
        assert [answer.json().get("text") for answer in answers] == [f"Obama {i}" for i in range(8)]
        assert running.wait(120) == 0
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        assert sum(line.get("route") == "/v1/extract" and line["status"] == 200 for line in lines) == 8


def test_8_bits(process: Callable[..., Any], extractor: Extractor, tmp_path: Path) -> None:
    text = "Kawhi Leonard leads the Toronto Raptors past Golden State in Oakland"
    with process(tmp_path / "log", "--int8") as (_, url):
        assert httpx.get(f"{url}/ready").json()["model"] == f"{extractor.name} (int8)"
        asked = {"text": text, "link": True, "attribute": True}
        row = httpx.post(f"{url}/v1/extract", json=asked, timeout=60).json()
        assert row["model"] == f"{extractor.name} (int8)"
        assert f'model="{extractor.name} (int8)"' in httpx.get(f"{url}/metrics").text
    own = extractor.attribute(text)
    whole = own.extraction.to_dict()
    assert [(m["text"], m["type"]) for m in row["mentions"]] == [(m["text"], m["type"]) for m in whole["mentions"]]
    sure = [[m["confidence"] for m in one["mentions"]] for one in (row, whole)]
    assert sure[0] == pytest.approx(sure[1], abs=0.1)
    assert sure[0] != pytest.approx(sure[1], abs=1e-6), "other arithmetic"
    assert len(row["influences"]) == len(own.influences)
    assert "8 bits" in (tmp_path / "log").read_text()


def test_a_model_that_is_not_there_ends_the_command_with_its_words(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "moreie", "serve", "--port", "0", "--model", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr


def test_requests_made_up_from_the_description(process: Callable[..., Any], small_corpus: Path, tmp_path: Path) -> None:
    corpus, tokens = shutil.copytree(small_corpus, tmp_path / "corpus"), tmp_path / "tokens"
    tokens.write_text(f"write {WRITE}\n")
    with process(tmp_path / "log", "--corpus", str(corpus), "--token-file", str(tokens)) as (_, url):
        config = tmp_path / "schemathesis.toml"
        config.write_text(UNWRITTEN)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
                *("run", f"{url}/openapi.json", "--include-path-regex", "^/(v1|health|ready|metrics)"),
                *("--header", f"Authorization: Bearer {WRITE}", "--max-examples", "25", "--seed", "7"),
                *("--request-timeout", "60"),
            ],
            capture_output=True,
            text=True,
            timeout=1_500,
            check=False,
            cwd=tmp_path,
        )
        print(done.stdout[-6_000:])
        assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
        assert httpx.get(f"{url}/ready").status_code == 200
