"""Texts that belong to posts: captions of their pictures, what a language model knows about them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moreie.datasets.lines import numbered_lines
from moreie.datasets.pgim import read_pgim
from moreie.errors import DataFormatError, MoreieError
from moreie.schema import Post

KEYS = ("id", "image_id")


@dataclass(frozen=True, slots=True)
class PostText:
    """A text, and the post it belongs to: the one whose `key` (`id`, `image_id` or `words`) is `value`.

    `line` is where it stands in its file.
    """

    key: str
    value: str | tuple[str, ...]
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Matched:
    """The text of each post, in their order ("" where there is none), and the texts that belong to none of them.

    `key`: by what the first text names its post (`PostText.key`), "" where there are no texts.
    """

    texts: tuple[str, ...]
    unclaimed: tuple[PostText, ...]
    key: str


def read_texts(path: Path, field: str | None = None) -> list[PostText]:
    """Texts of a JSONL file (`id` of a post or `image_id`, and the text in `field`) or of a PGIM file.

    `field` may be None where the lines have one field only.

    Raises:
        DataFormatError: a malformed line, with its number; a field that is not there or could be several.
    """
    first = next((line for _, line in numbered_lines(path) if line.strip()), "")
    if first.startswith("{"):
        return _read_jsonl(path, field)
    if field is not None:
        raise DataFormatError(f"no JSONL file, so it has no field {field!r}", path)
    return [PostText("words", words, text, line) for line, words, text in read_pgim(path)]


def match_texts(posts: Sequence[Post], texts: Sequence[PostText]) -> Matched:
    """Give each post its text.

    Posts of the same picture share a text; of posts with the same words the first gets the first such text, and so on.
    """
    known: dict[tuple[str, str | tuple[str, ...]], list[PostText]] = defaultdict(list)
    for text in texts:
        known[text.key, text.value].append(text)
    times: dict[tuple[str, ...], int] = defaultdict(int)
    found: list[PostText | None] = []
    for post in posts:
        words = tuple(word.text for word in post.words)
        own = [*known.get(("id", post.id), ()), *known.get(("image_id", post.image_id or ""), ())]
        own += known.get(("words", words), [])[times[words] :]
        times[words] += 1
        found.append(own[0] if own else None)
    claimed = {text.line for text in found if text}
    return Matched(
        tuple(text.text if text else "" for text in found),
        tuple(t for t in texts if t.line not in claimed),
        texts[0].key if texts else "",
    )


def _read_jsonl(path: Path, field: str | None) -> list[PostText]:
    texts: list[PostText] = []
    seen: dict[tuple[str, str], int] = {}
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            field = field or _only_field(row)
            key, value, text = _row(row, field)
            if (key, value) in seen:
                raise MoreieError(f"{key} {value!r} already stands in line {seen[key, value]}")
        except json.JSONDecodeError as problem:
            raise DataFormatError(f"not a JSON object ({problem})", path, number) from problem
        except MoreieError as problem:
            raise DataFormatError(str(problem), path, number) from problem
        seen[key, value] = number
        texts.append(PostText(key, value, text, number))
    return texts


def _only_field(row: Any) -> str:
    fields = [name for name in row if name not in KEYS]
    if len(fields) != 1:
        raise MoreieError(f"which field holds the text? there are {', '.join(fields) or 'none'}")
    return str(fields[0])


def _row(row: Any, field: str) -> tuple[str, str, str]:
    if not isinstance(row, dict):
        raise MoreieError("not a JSON object")
    key = next((k for k in KEYS if row.get(k) is not None), None)
    if key is None:
        raise MoreieError("neither id nor image_id says whose text it is")
    if not isinstance(row.get(field), str):
        raise MoreieError(f"no text in field {field!r}; fields are {', '.join(row)}")
    return key, str(row[key]), row[field].strip()
