"""WikiDiverse: Wikinews sentences with linked entities, one JSON array a file, read as named-entity annotation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, Field, ValidationError, model_validator

from moreie.datasets.images import find_image
from moreie.datasets.lines import OnBad, numbered_lines, report
from moreie.datasets.words import post_from_text
from moreie.errors import DataFormatError, MoreieError
from moreie.schema import Mention, Post

# Entries of the authors' other file, one a mention with its candidates, have so many items.
CANDIDATE_ENTRY = 11


class _Row(BaseModel):
    """Fields by their place in a JSON array."""

    @model_validator(mode="before")
    @classmethod
    def _by_place(cls, items: Any) -> Any:
        names = list(cls.model_fields)
        if not isinstance(items, list) or len(items) != len(names):
            raise ValueError(f"expected [{', '.join(names)}]")
        return dict(zip(names, items, strict=True))


class _Entity(_Row):
    surface: str
    type: str
    start: int = Field(ge=0)
    end: int
    url: str | None


class _Entry(_Row):
    sentence: str
    image_url: str
    topic: str | None
    entities: list[_Entity]


def read_wikidiverse(
    path: str | Path,
    *,
    images: str | Path | None = None,
    captions: Mapping[str, str] | None = None,
    on_bad: OnBad | None = None,
) -> list[Post]:
    """One post an entry, id `<file stem>:<n>` counted from 1, with gold mentions of the annotated entity types.

    The sentence is raw text: a mention that begins or ends inside a word takes the whole word, and of mentions that
    overlap then the longest stays. `image_id` is the file name in the picture's URL; `images` is a folder of pictures
    under that name, or under its MD5 sum as in the authors' release.

    Raises:
        DataFormatError: no JSON array, or a malformed entry, with its number; with `on_bad` it is told instead and
            skipped.
    """
    path, images = Path(path), None if images is None else Path(images)
    posts = []
    for number, entry in enumerate(_entries(path), 1):
        try:
            posts.append(_post(entry, f"{path.stem}:{number}", images, captions or {}))
        except ValidationError as problem:
            error = problem.errors()[0]
            place = ".".join(map(str, error["loc"]))
            report(DataFormatError(f"entry {number}: {place + ': ' if place else ''}{error['msg']}", path), on_bad)
        except MoreieError as problem:
            report(DataFormatError(f"entry {number}: {problem}", path), on_bad)
    return posts


def _entries(path: Path) -> list[Any]:
    try:
        entries = json.loads("\n".join(line for _, line in numbered_lines(path)))
    except json.JSONDecodeError as problem:
        raise DataFormatError(f"not JSON ({problem.msg}); is the file whole?", path, problem.lineno) from problem
    except RecursionError as problem:
        raise DataFormatError("not JSON that can be read (nested too deep)", path) from problem
    if not isinstance(entries, list):
        raise DataFormatError("expected a JSON array of entries", path)
    return entries


def _post(entry: Any, id: str, images: Path | None, captions: Mapping[str, str]) -> Post:
    if isinstance(entry, list) and len(entry) == CANDIDATE_ENTRY:
        raise MoreieError("an entry of the file with candidates, one a mention; give the file of annotated sentences")
    row = _Entry.model_validate(entry)
    image_id = row.image_url.rsplit("/", 1)[-1]
    post = post_from_text(row.sentence, id=id, image=_picture(images, image_id), caption=captions.get(image_id))
    if not post.words:
        raise MoreieError("the sentence is empty")
    mentions = [_mention(post, entity) for entity in row.entities]
    return replace(post, image_id=image_id, mentions=tuple(_longest(mentions)))


def _picture(images: Path | None, image_id: str) -> Path | None:
    names = (image_id, unquote(image_id), hashlib.md5(image_id.encode(), usedforsecurity=False).hexdigest())
    return next((found for name in names if (found := find_image(images, name))), None)


def _mention(post: Post, entity: _Entity) -> Mention:
    surface, type = entity.surface.strip(), entity.type.strip()
    if not surface or not type:
        raise MoreieError(f"mention {entity.surface!r} of type {entity.type!r}: neither may be empty")
    annotated = post.text[entity.start : entity.end]
    if annotated.strip() == surface:
        start = post.text.index(surface, entity.start)
    elif post.text.count(surface) == 1:
        start = post.text.index(surface)  # not at its offsets, but nothing else can be meant
    else:
        raise MoreieError(f"mention {surface!r} is not what stands at {entity.start}..{entity.end}: {annotated!r}")
    end = start + len(surface)
    covered = [i for i, word in enumerate(post.words) if word.start < end and word.end > start]
    return post.mention(type, covered[0], covered[-1])


def _longest(mentions: Sequence[Mention]) -> list[Mention]:
    """Mentions without overlaps, in order of place."""
    kept: list[Mention] = []
    for mention in sorted(mentions, key=lambda m: (m.first - m.last, m.first)):
        if all(mention.last < other.first or mention.first > other.last for other in kept):
            kept.append(mention)
    return sorted(kept, key=lambda m: m.first)
