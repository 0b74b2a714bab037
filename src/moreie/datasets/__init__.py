"""Readers and writers of the published formats and of users' JSONL: one function each, all giving `Post`s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from moreie.datasets.captions import read_captions
from moreie.datasets.conll import IMAGE_LINE, read_conll, write_conll
from moreie.datasets.jsonl import read_jsonl, write_jsonl
from moreie.datasets.lines import OnBad
from moreie.datasets.mnre import read_mnre, read_relation_labels, write_mnre
from moreie.datasets.wikidiverse import read_wikidiverse
from moreie.datasets.words import post_from_text, post_from_words, split_words
from moreie.errors import DataFormatError
from moreie.schema import Post

__all__ = [
    "post_from_text",
    "post_from_words",
    "read_captions",
    "read_conll",
    "read_jsonl",
    "read_mnre",
    "read_posts",
    "read_relation_labels",
    "read_wikidiverse",
    "split_words",
    "write_conll",
    "write_jsonl",
    "write_mnre",
]


def read_posts(
    path: str | Path,
    *,
    images: str | Path | None = None,
    captions: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    on_bad: OnBad | None = None,
) -> list[Post]:
    """Read a file in whichever of the known formats its first line shows.

    Raises:
        DataFormatError: no known format, or a malformed line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            first = next((line for line in lines if line.strip()), "").strip()
    except (FileNotFoundError, IsADirectoryError):
        raise DataFormatError("no such file", path) from None
    if first.startswith(IMAGE_LINE):
        return read_conll(path, images=images, captions=captions, on_bad=on_bad)
    if first.startswith("{'") or (first.startswith("{") and '"token"' in first):
        return read_mnre(path, images=images, captions=captions, labels=labels, on_bad=on_bad)
    if first.startswith("{"):
        return read_jsonl(path, on_bad=on_bad)
    if first.startswith("["):
        return read_wikidiverse(path, images=images, captions=captions, on_bad=on_bad)
    if not first:
        raise DataFormatError("the file is empty", path)
    raise DataFormatError(
        f"unknown format: the first line is neither IMGID:…, an MNRE line, nor JSON: {first[:60]!r}", path, 1
    )
