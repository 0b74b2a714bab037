"""Files read as far as they can be, and what is wrong with their other lines."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from moreie.checking.findings import EXAMPLES, CheckedFile, Finding
from moreie.datasets import read_posts
from moreie.errors import DataFormatError

# What differs from line to line in one kind of message.
_PARTICULAR = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+")


def read_file(
    path: Path,
    *,
    split: str = "",
    task: str | None = None,
    images: Path | None = None,
    captions: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
) -> CheckedFile:
    """Read what can be read. `task`: that of the recipe; by itself a file is for all that it has annotation of."""
    bad: list[DataFormatError] = []
    try:
        posts = read_posts(path, images=images, captions=captions, labels=labels, on_bad=bad.append)
    except DataFormatError as problem:  # the file as a whole
        posts = []
        bad.append(problem)
    tasks = {task} if task else set()
    if not task and any(m.type for p in posts for m in p.mentions or ()):
        tasks.add("ner")
    if not task and any(p.relations for p in posts):
        tasks.add("re")
    return CheckedFile(path, tuple(posts), tuple(bad), split, frozenset(tasks))


def line_findings(file: CheckedFile) -> Iterator[Finding]:
    """Lines that cannot be read, one finding a kind of problem."""
    kinds: dict[str, list[DataFormatError]] = defaultdict(list)
    for problem in file.bad:
        kinds[_PARTICULAR.sub("…", problem.problem)].append(problem)
    for kind, problems in sorted(kinds.items(), key=lambda item: -len(item[1])):
        many, what = len(problems) > 1, "file" if problems[0].line is None else "line"
        yield Finding(
            "error",
            "unreadable-lines",
            file.where,
            f"lines that cannot be read ({kind}): {len(problems):,}" if many else f"the {what} cannot be read",
            len(problems),
            tuple(str(p) for p in problems[:EXAMPLES]),
            "docs/data-formats.md says what a line holds",
        )
    if not file.posts and not file.bad:
        yield Finding("error", "no-posts", file.where, "there are no posts", 0)
