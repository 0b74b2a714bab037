"""Real servers over the real model, on ports of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

import httpx
import uvicorn

from moreie import Extractor
from moreie.serving.server import DrainingServer
from moreie.serving.service import create_app
from moreie.serving.settings import ServiceSettings
from moreie.serving.state import Service
from moreie.serving.tokens import parse_tokens

READ, WRITE = "r" * 20, "w" * 20


@dataclass
class Live:
    """A running server and a client of it."""

    client: httpx.Client
    server: DrainingServer
    service: Service
    port: int
    thread: threading.Thread

    @property
    def folder(self) -> Path:
        """The corpus that it serves."""
        return Path(self.service.extractor.corpus.location)

    def metric(self, line: str) -> float:
        """The value of a metric, by its name and labels as Prometheus writes them; 0 where it is not there."""
        rows = self.client.get("/metrics").text.splitlines()
        return next((float(row.rpartition(" ")[2]) for row in rows if row.rpartition(" ")[0] == line), 0.0)

    def until(self, true: Callable[[], Any], seconds: float = 60) -> None:
        """Wait until something has come true."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not come true"
            time.sleep(0.01)


@contextmanager
def running(extractor: Any, settings: ServiceSettings | None = None, grace: float = 30) -> Iterator[Live]:
    app = create_app(extractor, settings)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
        server = DrainingServer(config, app.state.service, grace)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        port = listener.getsockname()[1]
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            live = Live(client, server, app.state.service, port, thread)
            live.until(lambda: server.started or not thread.is_alive())
            yield live
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


@contextmanager
def running_process(log: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moreie", "serve", "--port", str(port), *options]
    with log.open("wb") as file:  # a pipe that nobody reads would fill, and hold the server
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        until = time.monotonic() + 240
        while not _ready(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, "the service did not become ready"
            time.sleep(0.1)
        yield process, url
    finally:
        process.kill()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def process() -> Callable[..., Any]:
    """`with process(log, *options) as (process, url):` runs `moreie serve` on a port of its own until it is ready, its
    output in the file `log`; it is killed at the end if it still runs."""
    return running_process


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """`with serve(extractor, settings) as live:` runs a server in a thread."""
    return running


@pytest.fixture(scope="module")
def live(extractor: Extractor) -> Iterator[Live]:
    """A server with the default settings over the shipped model and corpus, loaded."""
    with running(extractor) as live:
        live.until(lambda: live.service.phase == "ready")
        yield live


@pytest.fixture
def own_extractor(extractor: Extractor, small_corpus: Path, tmp_path: Path) -> Extractor:
    """The shipped model over a corpus that may be changed."""
    import shutil

    from moreie.knowledge.corpus import KnowledgeCorpus

    corpus = KnowledgeCorpus.open(shutil.copytree(small_corpus, tmp_path / "corpus"))
    return Extractor(extractor.ner, extractor.relations, corpus=corpus, image_encoder=extractor.image_encoder)


@pytest.fixture
def own(own_extractor: Extractor) -> Iterator[Live]:
    """A server over a corpus that may be changed, by whoever has the token."""
    with running(own_extractor, ServiceSettings(tokens=parse_tokens(f"write {WRITE}", "here"))) as live:
        yield live
