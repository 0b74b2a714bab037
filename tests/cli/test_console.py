"""Errors that end a command, in words."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest
import typer

from moreie.cli.console import EXIT_DISK, clear_errors

FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "posts.jsonl"),
    RuntimeError("lance error: LanceError(IO): No space left on device (os error 28)"),
    sqlite3.OperationalError("database or disk is full"),
]


@pytest.mark.parametrize("problem", FULL)
def test_a_full_disk_is_said_with_what_to_do(problem: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end, clear_errors():
        raise problem
    assert end.value.exit_code == EXIT_DISK
    said = capsys.readouterr().err
    assert said.startswith(f"error disk: {problem}")
    assert "make room" in said


def test_what_may_not_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end, clear_errors():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/srv/corpus")
    assert end.value.exit_code == EXIT_DISK
    assert capsys.readouterr().err == "error PermissionError: [Errno 13] Permission denied: '/srv/corpus'\n"


@pytest.mark.parametrize("problem", [RuntimeError("a mistake of ours"), FileNotFoundError(errno.ENOENT, "gone")])
def test_other_errors_keep_their_traceback(problem: Exception) -> None:
    with pytest.raises(type(problem)), clear_errors():
        raise problem
