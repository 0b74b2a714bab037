"""Lines of data files, and what to do about a bad one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from moreie.errors import DataFormatError

OnBad = Callable[[DataFormatError], None]


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(1-based number, line without its end). Raises `DataFormatError`: absent, or not UTF-8."""
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise DataFormatError("no such file", path) from None
    except UnicodeDecodeError as problem:
        raise DataFormatError(f"not UTF-8 text ({problem.reason})", path) from problem


def report(bad: DataFormatError, on_bad: OnBad | None) -> None:
    """Raise `bad`, or tell it to `on_bad` where there is one."""
    if on_bad is None:
        raise bad
    on_bad(bad)
