"""The command line as a process of its own: the commands of seconds by themselves, all others together."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import typer

from moreie.cli.app import app
from moreie.cli.short import SHORT, short_app


def commands(application: typer.Typer) -> dict[str, object]:
    found: dict[str, object] = typer.main.get_command(application).commands  # type: ignore[attr-defined]
    return found


def test_they_are_the_same_commands() -> None:
    every, short = commands(app), commands(short_app())
    assert tuple(short) == SHORT
    for name, command in short.items():
        own, other = vars(command), vars(every[name])
        assert own["help"] == other["help"]
        assert own["callback"].__wrapped__ is other["callback"].__wrapped__


@pytest.mark.parametrize(
    ("arguments", "all_there", "status", "said"),
    [
        (["--help"], True, 0, "extract"),
        (["serve", "--help"], True, 0, "HTTP"),
        (["extract", "--help"], False, 0, "--certainty"),
        (["demo", "--help"], False, 0, "HTML report"),
        (["--version"], True, 0, "0."),
        (["extarct"], True, 2, "No such command"),
        (["extract", "--txet", "Obama"], False, 2, "--txet"),
    ],
)
def test_what_is_not_asked_for_is_not_imported(arguments: list[str], all_there: bool, status: int, said: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "moreie", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TERM": "dumb", "COLUMNS": "200"})
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert ("moreie.cli.serve" in done.stderr) is all_there
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)
