"""Requests a second that the service answers, with and without dynamic batching.

python benchmarks/service.py --posts twitter2017/test.txt
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import uvicorn
from rows import Row, compare, save

from moreie import Extractor
from moreie.datasets import read_jsonl, read_posts
from moreie.serving.service import create_app
from moreie.serving.settings import ServiceSettings
from moreie.shipped import DEMO_POSTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, default=None, help="default: the demo posts, again and again")
    parser.add_argument("--corpus", default=None, help="default: the demo corpus")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16], help="at once, a row for each number")
    parser.add_argument("--requests", type=int, default=96, help="in each run")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    known = read_posts(arguments.posts) if arguments.posts else read_jsonl(DEMO_POSTS)
    texts = [known[i % len(known)].text for i in range(arguments.requests)]
    extractor = Extractor.from_pretrained(corpus=arguments.corpus)
    if extractor.corpus is None:
        raise SystemExit("the extractor has no corpus")
    batched, single = (served(extractor, ServiceSettings(batch_size=size, time_limit=3_600)) for size in (16, 1))
    source = arguments.posts.parent.name if arguments.posts else "demo"
    work = f"{len(texts)} posts of {source} without pictures; {extractor.corpus.manifest.articles:,} articles"
    rows: list[Row] = []
    for clients in arguments.clients:
        rows.append(
            compare(
                f"service: {clients} client{'s' if clients > 1 else ''} at once",
                work,
                lambda clients=clients: ask(batched, texts, clients),
                lambda clients=clients: ask(single, texts, clients),
                "without dynamic batching",
                amount=len(texts),
                unit="requests/s",
                repeats=arguments.repeats,
            )
        )
    save("service", rows)


def served(extractor: Extractor, settings: ServiceSettings) -> str:
    """Start a server in a thread; returns its address."""
    app = create_app(extractor, settings)
    # The server makes its socket itself: on one of `socket.create_server` every answer waits 40 ms, since asyncio does
    # not know it as one of TCP and leaves Nagle's algorithm on.
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started or app.state.service.phase != "ready":
        time.sleep(0.01)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


def ask(address: str, texts: Sequence[str], clients: int) -> None:
    """Every text in a request of its own, by so many clients at once, each on one connection."""

    def one(own: Sequence[str]) -> None:
        with httpx.Client(base_url=address, timeout=600) as client:
            for text in own:
                answer = client.post("/v1/extract", json={"text": text})
                answer.raise_for_status()
                if answer.json()["text"] != text:
                    raise SystemExit("an answer to another question")

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, [texts[i::clients] for i in range(clients)]))


if __name__ == "__main__":
    main()
