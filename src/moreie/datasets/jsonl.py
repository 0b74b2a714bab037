"""Users' posts: one JSON object a line (format: `docs/data-formats.md`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moreie.datasets.lines import OnBad, numbered_lines, report
from moreie.datasets.words import post_from_text, post_from_words
from moreie.errors import DataFormatError, MoreieError
from moreie.schema import Mention, Post, Relation


class _MentionRow(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)
    start: int = Field(ge=0)
    end: int
    type: str | None = None
    text: str | None = None


class _RelationRow(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)
    head: int = Field(ge=0)
    tail: int = Field(ge=0)
    type: str


class _PostRow(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)
    id: str | None = None
    text: str | None = None
    words: list[str] | None = None
    image: str | None = None
    image_id: str | None = None
    caption: str | None = None
    mentions: list[_MentionRow] | None = None
    relations: list[_RelationRow] | None = None

    @model_validator(mode="after")
    def _one_text(self) -> _PostRow:
        if (self.text is None) == (self.words is None):
            raise ValueError("give either text or words")
        return self


def read_jsonl(path: str | Path, *, on_bad: OnBad | None = None) -> list[Post]:
    """Posts of a JSONL file; a relative `image` starts at the file's folder, a missing id is `<file stem>:<line>`.

    Raises:
        DataFormatError: a malformed line, with its number; with `on_bad` it is told instead and skipped.
    """
    path = Path(path)
    posts: list[Post] = []
    seen: dict[str, int] = {}
    for number, text in numbered_lines(path):
        if not text.strip():
            continue
        try:
            post = _post(_PostRow.model_validate_json(text), path, number)
            if post.id in seen:
                raise MoreieError(f"id {post.id!r} already stands in line {seen[post.id]}")
        except ValidationError as problem:
            error = problem.errors()[0]
            place = ".".join(map(str, error["loc"]))
            report(DataFormatError(f"{place + ': ' if place else ''}{error['msg']}", path, number), on_bad)
        except MoreieError as problem:
            report(DataFormatError(str(problem), path, number), on_bad)
        else:
            seen[post.id] = number
            posts.append(post)
    return posts


def _post(row: _PostRow, path: Path, number: int) -> Post:
    id = row.id or f"{path.stem}:{number}"
    image = path.parent / row.image if row.image else None
    if row.words is not None:
        post = post_from_words(row.words, id=id, image=image, image_id=row.image_id, caption=row.caption)
    else:
        post = replace(post_from_text(row.text or "", id=id, image=image, caption=row.caption), image_id=row.image_id)
    mentions = None if row.mentions is None else tuple(_mention(post, m) for m in row.mentions)
    relations = None
    if row.relations is not None:
        count = len(mentions or ())
        for r in row.relations:
            if r.head >= count or r.tail >= count or r.head == r.tail:
                raise MoreieError(f"relation {r.head} → {r.tail} does not join two of the {count} mentions")
        relations = tuple(Relation(r.head, r.tail, r.type) for r in row.relations)
    return replace(post, mentions=mentions, relations=relations)


def _mention(post: Post, row: _MentionRow) -> Mention:
    first = next((i for i, w in enumerate(post.words) if w.start == row.start), None)
    last = next((i for i, w in enumerate(post.words) if w.end == row.end), None)
    if first is None or last is None or last < first:
        near = post.text[max(0, row.start - 10) : row.end + 10]
        raise MoreieError(f"mention {row.start}..{row.end} does not begin and end with a word, near {near!r}")
    if row.text is not None and row.text != post.text[row.start : row.end]:
        raise MoreieError(f"mention text {row.text!r} differs from {post.text[row.start : row.end]!r} in the post")
    return post.mention(row.type, first, last)


def write_jsonl(posts: Sequence[Post], path: str | Path) -> None:
    """Write posts, gold annotation included; images are written as absolute paths."""
    with Path(path).open("w", encoding="utf-8") as out:
        for post in posts:
            out.write(json.dumps(_row(post), ensure_ascii=False) + "\n")


def _row(post: Post) -> dict[str, Any]:
    row: dict[str, Any] = {"id": post.id, "text": post.text}
    if post.text == " ".join(w.text for w in post.words):
        row = {"id": post.id, "words": [w.text for w in post.words]}
    if post.image:
        row["image"] = str(post.image.resolve())
    row |= {k: v for k, v in (("image_id", post.image_id), ("caption", post.caption)) if v is not None}
    if post.mentions is not None:
        row["mentions"] = [{"start": m.start, "end": m.end, "type": m.type} for m in post.mentions]
    if post.relations is not None:
        row["relations"] = [{"head": r.head, "tail": r.tail, "type": r.type} for r in post.relations]
    return row
