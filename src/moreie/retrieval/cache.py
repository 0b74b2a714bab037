"""Evidence of a data set, found once and kept: a Zstandard-compressed JSONL file, one line a post behind a header."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import zstandard
from pydantic import BaseModel, ConfigDict, ValidationError

from moreie.errors import DataFormatError
from moreie.knowledge.sources.articles import open_text
from moreie.schema import Evidence, Link, Passage, Post


class EvidenceHeader(BaseModel):
    """Which retriever found the evidence, in which state of which corpus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retriever: str
    query: str
    k: int
    corpus: str
    posts: int
    format: int = 1


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


def load_evidence(path: Path, posts: Sequence[Post]) -> tuple[EvidenceHeader, list[tuple[Evidence, ...]]]:
    """Evidence of exactly these posts, in their order.

    Raises:
        DataFormatError: damaged, or made for other posts.
    """
    with open_text(path) as lines:
        try:
            header = EvidenceHeader.model_validate_json(next(lines))
        except (StopIteration, ValidationError) as problem:
            raise DataFormatError("no evidence file of this version", path, 1) from problem
        passages: dict[str, Passage] = {}
        found: dict[str, tuple[str, tuple[Evidence, ...]]] = {}
        for number, line in enumerate(lines, 2):
            try:
                row = json.loads(line)
                evidence = tuple(
                    _evidence(item, rank, header.retriever, passages) for rank, item in enumerate(row["evidence"], 1)
                )
                found[row["post"]] = (row["text"], evidence)
            except (ValueError, KeyError, TypeError) as problem:
                raise DataFormatError(f"damaged line ({problem!r})", path, number) from problem
    rows = []
    for post in posts:
        text, evidence = found.get(post.id, (None, ()))
        if text != post.text:
            raise DataFormatError(f"holds no evidence for post {post.id} as it stands now; retrieve again", path)
        rows.append(evidence)
    return header, rows


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
