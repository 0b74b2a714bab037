"""What all commands share: where they print, how errors end them, how progress is shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from moreie.rendering.progress import progress_bar as progress_bar

if TYPE_CHECKING:
    from rich.console import Console

EXIT_BAD_INPUT = 2


def console(*, stderr: bool = False) -> Console:
    """A rich console; results go to stdout, everything said on the way to stderr."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


@contextmanager
def clear_errors() -> Iterator[None]:
    """End the command with the error's own words instead of a traceback, exit status 2."""
    from moreie.errors import MoreieError

    _quiet_libraries()
    try:
        yield
    except MoreieError as problem:
        # Left to the terminal to wrap: a path or a message cut by a line break can neither be copied nor searched.
        said = console(stderr=True)
        said.print(f"[bold red]error[/] {type(problem).__name__}:", end=" ", soft_wrap=True)
        said.print(str(problem), markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None


def _quiet_libraries() -> None:
    import os

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("LANCE_LOG", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
