"""A real server process over a copy of the demo corpus, and a real browser that visits it."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moreie.shipped import DEMO_CORPUS

TOKEN = "a-token-of-the-tests-0123456789"
PATIENCE = 240


@dataclass(frozen=True)
class Server:
    """A running service: its address, and the corpus that it serves."""

    address: str
    corpus: Path

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The service's JSON answer to another client, which has the token."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def server(process: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    corpus = shutil.copytree(DEMO_CORPUS, folder / "corpus")
    (folder / "tokens").write_text(f"write {TOKEN}\n")
    options = ("--corpus", str(corpus), "--token-file", str(folder / "tokens"), "--time-limit", str(PATIENCE))
    with process(folder / "log", *options) as (_, address):
        yield Server(address, corpus)


@pytest.fixture(scope="session")
def start_browser() -> Iterator[Callable[[int, int], Any]]:
    """Starts headless browsers of a size; a small one is a phone. They are closed in the end."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the dev extra has it)")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no browser is to be had: install chromium and chromium-driver (apt-get install does)")
    started: list[Any] = []

    def start(width: int, height: int) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            f"--window-size={width},{height}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        started.append(webdriver.Chrome(options, webdriver.ChromeService(driver)))
        if width < 500:
            size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
            started[-1].execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        return started[-1]

    yield start
    for one in started:
        one.quit()
