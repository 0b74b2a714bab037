"""PGIM (Li et al., 2023): Twitter posts, each with a language model's knowledge behind it as words tagged `X`."""

from __future__ import annotations

from pathlib import Path

from moreie.datasets.lines import numbered_lines
from moreie.errors import DataFormatError

MARKER = "<EOS>"
AUXILIARY = "X"


def read_pgim(path: Path) -> list[tuple[int, tuple[str, ...], str]]:
    """(line of its first word, words, knowledge) of each post; the knowledge is "" where a post has none.

    A post begins behind the knowledge of the one before it, whether or not a blank line stands between them. Gold tags
    are not read: they are those of the Twitter files.

    Raises:
        DataFormatError: a malformed line, with its number; no word tagged `X` in the whole file.
    """
    posts: list[tuple[int, list[str], list[str]]] = []
    ended = True
    for number, line in numbered_lines(path):
        if not line.strip():
            ended = True
            continue
        columns = line.split("\t")
        if len(columns) != 2 or not columns[1].strip():
            raise DataFormatError(f"expected word<TAB>tag, found {line!r}", path, number)
        word, auxiliary = columns[0] or " ", columns[1].strip() == AUXILIARY
        if auxiliary and not posts:
            raise DataFormatError("knowledge before the first post", path, number)
        if auxiliary:
            posts[-1][2].append(word)
        elif ended or posts[-1][2]:
            posts.append((number, [word], []))
        else:
            posts[-1][1].append(word)
        ended = False
    if not any(knowledge for _, _, knowledge in posts):
        raise DataFormatError(f"no word is tagged {AUXILIARY}: the file holds no knowledge", path)
    return [(number, tuple(words), _joined(knowledge)) for number, words, knowledge in posts]


def _joined(knowledge: list[str]) -> str:
    return " ".join(knowledge[1:] if knowledge[:1] == [MARKER] else knowledge)
