"""What the help texts say reaches the reader: rich takes `[default: …]` for a style and leaves it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from rich.text import Text

from moreie.cli.app import app


def _texts(command: Any, name: str) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        if text := getattr(parameter, "help", None):
            yield f"{name} {parameter.opts[0]}", text
    for child, below in getattr(command, "commands", {}).items():
        yield from _texts(below, f"{name} {child}")


def test_no_help_text_loses_its_brackets() -> None:
    texts = dict(_texts(typer.main.get_command(app), "moreie"))
    assert len(texts) > 50
    assert any("\\[" in text for text in texts.values())
    lost = {place for place, text in texts.items() if Text.from_markup(text).plain != text.replace("\\[", "[")}
    assert not lost
