"""Links between the project's own files lead somewhere: to a file, and to a heading in it."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CODE = re.compile(r"^(?P<fence>```+).*?^(?P=fence)$|(?P<ticks>`+).+?(?P=ticks)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<link>[^)\s]+)(?:\s\"[^\"]*\")?\)|(?:src|href)=\"(?P<attribute>[^\"]+)\"")
HEADING = re.compile(r"^#{1,6} (?P<text>.+)$", re.MULTILINE)


def _pages() -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", "examples/*.ipynb"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    return [ROOT / name for name in found] or [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Names of the page's headings as GitHub and the site make them."""
    headings = HEADING.findall(re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S))
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings]
    return frozenset(re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in plain)


def _broken(page: Path) -> list[str]:
    broken = []
    for found in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8"))):
        link = (found["link"] or found["attribute"]).rstrip("\\")
        if re.match(r"https://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert not _broken(page)


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# A (b) `c`\n\n[a](page.md#a-b-c) [b](page.md#b) [c](lost.md) [d](http://example.org) `[e](code.md)`\n"
    page.write_text(text + '\n<img src="lost.png">\n\n```\n[f](fenced.md)\n```\n')
    assert _broken(page) == ["page.md#b", "lost.md", "http://example.org", "lost.png"]
