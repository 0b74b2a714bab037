"""What all commands share: where they print, how errors end them, how progress is shown."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from moreie.rendering.progress import progress_bar as progress_bar

if TYPE_CHECKING:
    from rich.console import Console

EXIT_BAD_INPUT = 2
EXIT_DISK = 1
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def console(*, stderr: bool = False) -> Console:
    """A rich console; results go to stdout, everything said on the way to stderr."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


@contextmanager
def clear_errors() -> Iterator[None]:
    """End the command with the error's own words instead of a traceback: exit status 2 for what the user gave, 1 for a
    disk that is full or may not be written."""
    from moreie.errors import MoreieError

    _quiet_libraries()
    try:
        yield
    except MoreieError as problem:
        _say_error(type(problem).__name__, str(problem))
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except _disk_errors() as problem:
        if _is_full(problem):
            _say_error("disk", f"{problem}; make room (or raise the limit) and run the same command again")
        elif isinstance(problem, OSError) and problem.errno in CLOSED:
            _say_error(type(problem).__name__, str(problem))
        else:
            raise
        raise typer.Exit(EXIT_DISK) from None


def _say_error(name: str, text: str) -> None:
    # Left to the terminal to wrap: a path or a message cut by a line break can neither be copied nor searched.
    said = console(stderr=True)
    said.print(f"[bold red]error[/] {name}:", end=" ", soft_wrap=True)
    said.print(text, markup=False, soft_wrap=True)


def _disk_errors() -> tuple[type[Exception], ...]:
    import sqlite3

    return OSError, RuntimeError, sqlite3.OperationalError  # LanceDB's and torch's are of the second kind


def _is_full(problem: Exception) -> bool:
    text = str(problem)
    full = isinstance(problem, OSError) and problem.errno in FULL
    return full or "No space left on device" in text or "disk is full" in text


def _quiet_libraries() -> None:
    import os
    import warnings

    # joblib's, after an error that ends a build: the error itself is said.
    warnings.filterwarnings("ignore", message=".*tasks which were still being processed by the workers")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("LANCE_LOG", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
