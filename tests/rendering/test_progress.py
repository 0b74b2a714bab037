"""A bar where somebody can see it, nothing elsewhere."""

from __future__ import annotations

import pytest

from moreie import Extractor
from moreie.datasets import read_jsonl
from moreie.rendering.progress import tracked
from moreie.shipped import DEMO_POSTS


def test_a_bar_is_shown_on_a_terminal_only(
    extractor: Extractor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    posts = read_jsonl(DEMO_POSTS)[:2]
    silent = extractor.extract_batch(posts, progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert extractor.extract_batch(posts, progress=True) == silent
    shown = capsys.readouterr()
    assert "extracting" in shown.err
    assert "2/2" in shown.err
    assert not shown.out


def test_what_is_walked_over_is_given_on_as_it_is() -> None:
    assert list(tracked(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert list(tracked([], "nothing")) == []
