"""MNRE: one relation a line, as a Python literal."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moreie.datasets.images import find_image
from moreie.datasets.lines import OnBad, numbered_lines, report
from moreie.datasets.words import post_from_words
from moreie.errors import DataFormatError, MoreieError
from moreie.schema import Post, Relation


class _Entity(BaseModel):
    name: str
    pos: tuple[int, int]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)
    token: list[str] = Field(min_length=1)
    h: _Entity
    t: _Entity
    img_id: str
    relation: str


def read_mnre(
    path: str | Path,
    *,
    images: str | Path | None = None,
    captions: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    on_bad: OnBad | None = None,
) -> list[Post]:
    """One post a line, id `<file stem>:<line>`, with two untyped mentions (head, tail) and the relation between them.

    `labels`: the known relations; a label not among them is an error.

    Raises:
        DataFormatError: a malformed line, with its number; with `on_bad` it is told instead and skipped.
    """
    path, images = Path(path), None if images is None else Path(images)
    posts = []
    for number, text in numbered_lines(path):
        if not text.strip():
            continue
        try:
            posts.append(_post(path, number, text, images, captions or {}, labels))
        except (ValueError, SyntaxError, RecursionError, MemoryError) as problem:
            report(DataFormatError(_explain(problem), path, number), on_bad)
    return posts


def _post(
    path: Path,
    number: int,
    text: str,
    images: Path | None,
    captions: Mapping[str, str],
    labels: Sequence[str] | None,
) -> Post:
    row = _Line.model_validate(ast.literal_eval(text))
    if labels is not None and row.relation not in labels:
        raise MoreieError(f"relation label {row.relation!r} is unknown; known are {', '.join(labels)}")
    post = post_from_words(
        row.token,
        id=f"{path.stem}:{number}",
        image=find_image(images, row.img_id),
        image_id=row.img_id,
        caption=captions.get(row.img_id),
    )
    mentions = tuple(post.mention(None, entity.pos[0], entity.pos[1] - 1) for entity in (row.h, row.t))
    for entity, role in ((row.h, "head"), (row.t, "tail")):
        under = " ".join(row.token[slice(*entity.pos)])
        if under != entity.name:
            raise MoreieError(f"{role} {entity.name!r} is not what stands at words {entity.pos}: {under!r}")
    return replace(post, mentions=mentions, relations=(Relation(0, 1, row.relation),))


def _explain(problem: BaseException) -> str:
    if isinstance(problem, ValidationError):
        error = problem.errors()[0]
        return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
    if isinstance(problem, MoreieError):
        return str(problem)
    return f"not a Python literal ({problem})"


def write_mnre(posts: Sequence[Post], path: str | Path) -> None:
    """Write posts of exactly two mentions and one relation."""
    with Path(path).open("w", encoding="utf-8") as out:
        for post in posts:
            head, tail = post.mentions or ()
            (relation,) = post.relations or ()
            words = [w.text for w in post.words]
            row: dict[str, Any] = {"token": words}
            for key, m in (("h", head), ("t", tail)):
                row[key] = {"name": " ".join(words[m.first : m.last + 1]), "pos": [m.first, m.last + 1]}
            out.write(repr({**row, "img_id": post.image_id or "", "relation": relation.type}) + "\n")


def read_relation_labels(path: str | Path) -> tuple[str, ...]:
    """The labels of `rel2id.json`, in the order of their ids.

    Raises:
        DataFormatError: not a JSON object from labels to the numbers 0, 1, 2, …
    """
    path = Path(path)
    try:
        ids: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        if sorted(ids.values()) != list(range(len(ids))):
            raise ValueError("ids are not 0, 1, 2, …")
    except FileNotFoundError:
        raise DataFormatError("no such file", path) from None
    except (ValueError, AttributeError, TypeError) as problem:
        raise DataFormatError(f"expected a JSON object from relation labels to ids ({problem})", path) from problem
    return tuple(sorted(ids, key=ids.__getitem__))
