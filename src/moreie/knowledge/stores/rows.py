"""What a store keeps, engine aside: rows of passages, sentences and images, and what a search gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moreie.schema import Link, Passage


@dataclass(slots=True)
class PassageRows:
    """Columns of passages; `key` is the passage's number in the corpus."""

    key: list[int] = field(default_factory=list)
    article: list[str] = field(default_factory=list)
    title: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    introduction: list[bool] = field(default_factory=list)
    links: list[list[dict[str, int | str]]] = field(default_factory=list)
    url: list[str | None] = field(default_factory=list)


@dataclass(slots=True)
class SentenceRows:
    """Columns of sentences; `passage` is the key of the paragraph that holds the sentence."""

    passage: list[int] = field(default_factory=list)
    sentence: list[str] = field(default_factory=list)
    introduction: list[bool] = field(default_factory=list)


@dataclass(slots=True)
class ImageRows:
    """Columns of article images; `passage` is the key of the article's introduction. `vector` [N, D], unit length."""

    file: list[str] = field(default_factory=list)
    passage: list[int] = field(default_factory=list)
    caption: list[str] = field(default_factory=list)
    attribution: list[str] = field(default_factory=list)
    thumbnail: list[bytes] = field(default_factory=list)
    vector: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SentenceHit:
    """A sentence found: its passage's key, its text, its BM25 score."""

    passage: int
    sentence: str
    score: float


@dataclass(frozen=True, slots=True)
class ImageHit:
    """An article image found: file name, key of the article's introduction, cosine similarity."""

    file: str
    passage: int
    score: float


def passage_of(row: Mapping[str, Any]) -> Passage:
    """The passage of a stored row."""
    return Passage(
        id=f"{row['article']}#{row['key']}",
        article_id=row["article"],
        title=row["title"],
        text=row["text"],
        introduction=row["introduction"],
        links=tuple(Link(**link) for link in row["links"] or ()),
        url=row["url"] or None,
    )


class StoreWriter(Protocol):
    """Takes rows in batches during a build or update."""

    def add_passages(self, passages: PassageRows, sentences: SentenceRows) -> None: ...

    def add_images(self, images: ImageRows) -> None: ...

    def finish(self) -> dict[str, int]:
        """Build the indexes; returns the table versions for the manifest."""
        ...


class StoreReader(Protocol):
    """Answers batches of queries against one state of a corpus."""

    def search_sentences(
        self, queries: Sequence[str], k: int, *, introductions_only: bool
    ) -> list[list[SentenceHit]]: ...

    def search_images(self, vectors: NDArray[np.float32], k: int) -> list[list[ImageHit]]: ...

    def passages(self, keys: Sequence[int]) -> dict[int, Passage]: ...

    def thumbnails(self, files: Sequence[str]) -> dict[str, bytes]: ...
