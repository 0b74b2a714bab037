"""What a store keeps, engine aside: its tables (their columns: `stores.schemas`), and what a search gives back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from moreie.schema import Link, Passage

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moreie.knowledge.manifest import Manifest

PASSAGES, SENTENCES, NAMES, FILES, IMAGES = "passages", "sentences", "names", "files", "images"
INTRODUCTIONS = "introductions"
# Tables of vectors, both of the corpus' image encoder.
VECTORS = (IMAGES, INTRODUCTIONS)


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
    """Takes rows in batches; nothing is readable before `finish`."""

    def add_passages(self, passages: pa.Table, sentences: pa.Table) -> None: ...

    def add_names(self, names: pa.Table) -> None: ...

    def add_files(self, files: pa.Table) -> None: ...

    def add_images(self, images: pa.Table) -> None: ...

    def finish(self) -> dict[str, int]:
        """Build the indexes; returns each table's version, for the manifest."""
        ...


class Editor(StoreWriter, Protocol):
    """Changes a corpus that is being read: nothing of a change is seen before `commit`, then all of it."""

    def keys(self, articles: Iterable[str]) -> dict[str, list[int]]:
        """Passage keys of those of the article ids that are in the corpus."""
        ...

    def introductions(self, articles: Sequence[str], titles: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """First passages of articles, by id and by title."""
        ...

    def pictures(self, files: Iterable[str]) -> set[tuple[str, int]]:
        """Pictures of these file names that are in the corpus, with their articles' first passages."""
        ...

    def remove(self, keys: Iterable[int], *, images: bool = True) -> None: ...

    def move_images(self, introductions: dict[int, int]) -> None: ...

    def create_images(self, dimension: int) -> None: ...

    def create_introductions(self, dimension: int) -> None: ...

    def embedded(self, keys: Iterable[int]) -> set[int]:
        """Those of the passage keys that have an embedding."""
        ...

    def add_introductions(self, rows: Iterable[pa.Table]) -> None:
        """Add embeddings of introductions (`introduction_rows`) that have none."""
        ...

    def create_names(self) -> None: ...

    def hold(self) -> None:
        """Say that the change is still under way; to be called again and again where it may last."""
        ...

    def counts(self) -> dict[str, int]: ...

    def commit(self, manifest: Manifest) -> None: ...

    def compact(self, older_than: timedelta) -> dict[str, int]: ...


class StoreReader(Protocol):
    """Answers batches of queries against one state of a corpus."""

    def search_sentences(
        self, queries: Sequence[str], k: int, *, introductions_only: bool, all_words: bool
    ) -> list[list[SentenceHit]]: ...

    def search_images(self, vectors: NDArray[np.float32], k: int) -> list[list[ImageHit]]: ...

    def search_introductions(self, vectors: NDArray[np.float32], k: int) -> list[list[tuple[int, float]]]:
        """Keys of embedded introductions with their cosine similarity."""
        ...

    def count_introductions(self) -> int:
        """Passages that are introductions, embedded or not."""
        ...

    def passages(self, keys: Sequence[int]) -> dict[int, Passage]: ...

    def article(self, id: str) -> dict[int, Passage]:
        """Passages of an article by their keys, in order; none where it is not there."""
        ...

    def redirects(self, key: int) -> list[str]:
        """Normal forms of the redirects to the article whose first passage this is."""
        ...

    def pictures(self, keys: Sequence[int]) -> list[tuple[str, str]]:
        """File names and captions of the pictures that belong to passages."""
        ...

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Every row of a table, in batches; passages in the order of their keys."""
        ...

    def names(self, names: Sequence[str]) -> dict[str, list[int]] | None:
        """First passages of the articles that bear these normal forms, titles before redirects; None where the
        corpus keeps no names."""
        ...

    def thumbnails(self, files: Sequence[str]) -> dict[str, bytes]: ...
