"""Attribution over HTTP while others ask: in pieces, between which they are answered."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from moreie import Extractor
from moreie.datasets import read_jsonl
from moreie.shipped import DEMO_POSTS

POST = read_jsonl(DEMO_POSTS)[0]  # with a photograph, and evidence of both kinds


async def attributed(client: httpx.AsyncClient) -> dict[str, Any]:
    assert POST.image is not None
    form = {"text": POST.text, "id": POST.id, "attribute": "true"}
    answer = await client.post("/v1/extract", data=form, files={"image": ("a.jpg", POST.image.read_bytes())})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_others_are_answered_before_an_attribution_ends(extractor: Extractor, serve: Callable[..., Any]) -> None:
    async def scenario(url: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[float], float]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            start = time.perf_counter()
            long = asyncio.create_task(attributed(client))
            await asyncio.sleep(0.05)
            rows, took = [], []
            while not long.done():
                begun = time.perf_counter()
                answer = await client.post("/v1/extract", json={"text": f"Obama visited Berlin {len(rows)} times"})
                took.append(time.perf_counter() - begun)
                rows.append(answer.json())
            return await long, rows, took, time.perf_counter() - start

    with serve(extractor) as live:
        live.client.post("/v1/extract", json={"text": "warm"})
        row, others, took, whole = asyncio.run(scenario(f"http://127.0.0.1:{live.port}"))
    print(
        f"attribution {whole:.2f} s, {len(took)} others, median {statistics.median(took):.3f} s, max {max(took):.3f} s"
    )
    assert len(others) >= 3, "several were answered while it ran"
    assert max(took) < whole
    assert [other["text"] for other in others] == [f"Obama visited Berlin {i} times" for i in range(len(others))]
    expected = json.loads(json.dumps(extractor.attribute(POST).to_dict()))
    assert len(expected["influences"]) > 50
    assert {**row, "image": None} == {**expected, "image": None}


def test_who_hangs_up_is_left_between_two_steps(extractor: Extractor, serve: Callable[..., Any]) -> None:
    async def scenario(live: Any) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=120) as client:
            long = asyncio.create_task(attributed(client))
            while not (live.service.batcher._long and live.service.batcher._long[0].begun):
                await asyncio.sleep(0.01)
            long.cancel()

    with serve(extractor) as live:
        asyncio.run(scenario(live))
        live.until(lambda: live.metric('moreie_rejected_requests_total{reason="hung up"}') == 1)
        assert all(one.answer.cancelled() for one in live.service.batcher._long)
        assert live.client.post("/v1/extract", json={"text": "Obama"}).status_code == 200
        assert not live.service.batcher._long


def test_what_has_begun_is_answered_when_the_server_is_told_to_end(
    extractor: Extractor, serve: Callable[..., Any]
) -> None:
    async def scenario(live: Any) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=120) as client:
            long = asyncio.create_task(attributed(client))
            while not (live.service.batcher._long and live.service.batcher._long[0].begun):
                await asyncio.sleep(0.01)
            live.server.handle_exit(15, None)
            assert (await client.post("/v1/extract", json={"text": "late"})).status_code == 503
            return await long

    with serve(extractor) as live:
        assert asyncio.run(scenario(live))["influences"]
        live.thread.join(60)
        assert not live.thread.is_alive()
