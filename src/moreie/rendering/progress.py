"""How far long work is: a bar on stderr where that is a terminal or a notebook, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
# A long walk over things, with what it is called.
Each = Callable[[Sequence[T], str], Iterable[T]]


def progress_bar() -> Progress:
    """A bar to be entered, with tasks to be added."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    said = Console(stderr=True, highlight=False)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=said,
        disable=not (said.is_terminal or said.is_jupyter),
    )


def tracked(things: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The things, with a bar while somebody walks over them; `total` where they cannot be counted beforehand."""
    with progress_bar() as bar:
        yield from bar.track(things, total=total, description=what)


def untracked(things: Sequence[T], what: str) -> Iterable[T]:
    """The things, with nobody watching."""
    return things
