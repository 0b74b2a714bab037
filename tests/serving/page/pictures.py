"""Takes the pictures of the evidence page that stand in the documentation: a server of its own, a headless browser.

    python tests/serving/page/pictures.py

Needs chromium and chromium-driver, and the dev extra.
"""

from __future__ import annotations

import base64
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from selenium import webdriver
from test_visit import FINAL, TOKEN, Visitor

from moreie.shipped import DEMO_CORPUS

ROOT = Path(__file__).parents[3]
PHONE = (390, 940)
GAP = 26


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a service over a copy of the demo corpus."""
    corpus = shutil.copytree(DEMO_CORPUS, folder / "corpus")
    (folder / "tokens").write_text(f"write {TOKEN}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--corpus", str(corpus), "--token-file", str(folder / "tokens")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moreie", "serve", *options, "--time-limit", "240"], stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _ready(address):
            if process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/ready").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def visiting(address: str, width: int, height: int, *, phone: bool = False) -> Iterator[Visitor]:
    """A browser of this size with the page open."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    options.binary_location = shutil.which("chromium") or ""
    driver: Any = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        if phone:
            size = {"width": width, "height": height, "deviceScaleFactor": 1.3, "mobile": True}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield Visitor(driver, address)
    finally:
        driver.quit()


def picture(visitor: Visitor, x: float, y: float, width: float, height: float) -> Image.Image:
    """A part of the page, in its own pixels."""
    clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
    taken = visitor.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")


def edge(visitor: Visitor, selector: str, side: str) -> float:
    """Where an element's `top` or `bottom` is on the page."""
    script = "return document.querySelector(arguments[0]).getBoundingClientRect()[arguments[1]] + scrollY"
    return float(visitor.run(script, selector, side))


def save(image: Image.Image, name: str) -> None:
    few = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(ROOT / "docs" / f"page-{name}.png", optimize=True)


def desktop(visitor: Visitor) -> Image.Image:
    """An example's post, answer and experts."""
    visitor.one("[data-id=andes]").click()
    visitor.answered()
    visitor.explained()
    time.sleep(1)
    visitor.run("document.activeElement.blur()")
    return picture(visitor, 0, 0, 1280, edge(visitor, "#experts", "bottom") + 10)


def edit(visitor: Visitor) -> Image.Image:
    """What an article that is added changes."""
    visitor.open()
    visitor.ask(FINAL)
    visitor.one("#add").click()
    visitor.write("Halden", "Halden beats her rivals in the final by her serve.", TOKEN)
    visitor.answered()
    visitor.linked()
    time.sleep(1)
    top = edge(visitor, ".changes", "top") - 16
    return picture(visitor, 28, top, 1209, edge(visitor, "#answer", "bottom") - top + 16)


def phone(visitor: Visitor) -> Image.Image:
    """Three parts of the page on a phone, side by side."""
    visitor.one("[data-id=sobieski]").click()
    visitor.answered()
    visitor.explained()
    visitor.run("document.querySelectorAll('.piece img').forEach(i => i.loading = 'eager')")
    time.sleep(2)
    parts = [
        picture(visitor, 0, edge(visitor, selector, "top") - 14, *PHONE)
        for selector in ("#answer", "#influence", ".column:nth-of-type(2)")
    ]
    out = Image.new("RGB", (sum(p.width for p in parts) + GAP * (len(parts) - 1), parts[0].height), "white")
    for number, part in enumerate(parts):
        out.paste(part, (number * (part.width + GAP), 0))
    return out


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        with visiting(address, 1280, 900) as visitor:
            save(desktop(visitor), "desktop")
            save(edit(visitor), "edit")
        with visiting(address, *PHONE, phone=True) as visitor:
            save(phone(visitor), "phone")


if __name__ == "__main__":
    main()
