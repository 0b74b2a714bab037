"""Evidence of a data set, found once and kept: a Zstandard-compressed JSONL file, one line a post behind a header."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import zstandard
from pydantic import BaseModel, ConfigDict, ValidationError

from moreie.errors import DataFormatError
from moreie.knowledge.sources.articles import open_text
from moreie.retrieval.settings import RetrievalSettings
from moreie.schema import Evidence, Link, Passage, Post


class TextSource(BaseModel):
    """The file that attached evidence comes from, its checksum, and how it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    file: str
    digest: str
    field: str | None = None
    title: str = ""


class EvidenceHeader(BaseModel):
    """What the evidence depends on: retriever, settings, state of the corpus, and the posts (`posts_digest`).

    Evidence that was not retrieved has a `source` instead of a corpus; its `query` says how texts found their posts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    retriever: str
    query: str
    k: int
    corpus: str | None = None
    posts: int
    settings: RetrievalSettings | None = None
    digest: str | None = None
    source: TextSource | None = None
    format: int = 1


def posts_digest(posts: Sequence[Post]) -> str:
    """Names posts by what their queries are made of."""
    digest = hashlib.sha256()
    for post in posts:
        digest.update(f"{post.id}\0{post.text}\0{post.caption or ''}\0".encode())
    return digest.hexdigest()[:16]


def read_header(path: Path) -> EvidenceHeader:
    """Raises `DataFormatError` for what is no evidence file of this version."""
    with open_text(path) as lines:
        try:
            return EvidenceHeader.model_validate_json(next(lines))
        except (StopIteration, ValidationError) as problem:
            raise DataFormatError("no evidence file of this version", path, 1) from problem


def save_evidence(
    path: Path, header: EvidenceHeader, posts: Sequence[Post], rows: Sequence[Sequence[Evidence]]
) -> None:
    """Write evidence, one row a post; each passage's text is written once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    seen: set[str] = set()
    with temporary.open("wb") as file, zstandard.ZstdCompressor(10).stream_writer(file) as out:
        out.write((header.model_dump_json() + "\n").encode())
        for post, row in zip(posts, rows, strict=True):
            items: list[dict[str, Any]] = []
            for e in row:
                passage = asdict(e.passage)
                sentence, image = passage.pop("sentence"), passage.pop("image")
                item = {"id": e.passage.id, "score": round(e.score, 4), "sentence": sentence, "image": image}
                if e.passage.id not in seen:
                    seen.add(e.passage.id)
                    item["passage"] = passage
                items.append(item)
            out.write((json.dumps({"post": post.id, "text": post.text, "evidence": items}) + "\n").encode())
    os.replace(temporary, path)


def each_row(path: Path) -> Iterator[tuple[str, str, tuple[Evidence, ...]]]:
    """Post id, post text and evidence, post by post.

    Raises:
        DataFormatError: damaged, or no evidence file.
    """
    header = read_header(path)
    passages: dict[str, Passage] = {}
    with open_text(path) as lines:
        next(lines)
        for number, line in enumerate(lines, 2):
            try:
                row = json.loads(line)
                found = (
                    _evidence(item, rank, header.retriever, passages) for rank, item in enumerate(row["evidence"], 1)
                )
                yield row["post"], row["text"], tuple(found)
            except (ValueError, KeyError, TypeError) as problem:
                raise DataFormatError(f"damaged line ({problem!r})", path, number) from problem


def load_evidence(path: Path, posts: Sequence[Post]) -> tuple[EvidenceHeader, list[tuple[Evidence, ...]]]:
    """Evidence of exactly these posts, in their order.

    Raises:
        DataFormatError: damaged, or made for other posts.
    """
    found = {id: (text, evidence) for id, text, evidence in each_row(path)}
    rows = []
    for post in posts:
        text, evidence = found.get(post.id, (None, ()))
        if text != post.text:
            raise DataFormatError(f"holds no evidence for post {post.id} as it stands now; retrieve again", path)
        rows.append(evidence)
    return read_header(path), rows


def _evidence(item: dict[str, Any], rank: int, retriever: str, passages: dict[str, Passage]) -> Evidence:
    if "passage" in item:
        fields = dict(item["passage"])
        fields["links"] = tuple(Link(**link) for link in fields["links"])
        passages[item["id"]] = Passage(**fields)
    known = passages[item["id"]]
    passage = Passage(
        known.id,
        known.article_id,
        known.title,
        known.text,
        known.introduction,
        item["sentence"],
        known.links,
        known.url,
        item["image"],
    )
    return Evidence(passage, retriever, rank, item["score"])
