"""From sources to rows: articles → passages and sentences, pictures → vectors, in batches, into a store."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moreie.errors import ImageError, SourceError
from moreie.knowledge.manifest import SourceRecord
from moreie.knowledge.sentences import split_sentences
from moreie.knowledge.sources.articles import read_articles
from moreie.knowledge.stores.rows import ImageRows, PassageRows, SentenceRows, StoreWriter
from moreie.schema import Article

if TYPE_CHECKING:
    from PIL import Image

    from moreie.encoders.images import ImageEncoder
    from moreie.knowledge.sources.images import ImageEntry

ARTICLES_PER_BATCH = 20_000
IMAGES_PER_BATCH = 64
THUMBNAIL_PIXELS = 256
T = TypeVar("T")
Progress = Callable[[Path, int], None]


@dataclass(frozen=True, slots=True)
class Sources:
    """What goes into a corpus. Each image manifest comes with the folder its file names start from."""

    articles: tuple[Path, ...] = ()
    dumps: tuple[Path, ...] = ()
    images: tuple[tuple[Path, Path], ...] = ()


@dataclass(slots=True)
class Counts:
    """Rows written so far."""

    articles: int = 0
    passages: int = 0
    sentences: int = 0
    images: int = 0


class Ingest:
    """State of one pass over sources: keys given out so far, counts, what was skipped.

    `first_key` is the first free passage key. `admit` sees each batch of articles before it is written and returns
    those to write; `find` looks up the introduction of an article that is already in the store.
    """

    def __init__(
        self,
        writer: StoreWriter,
        image_encoder: ImageEncoder | None,
        skip_bad: bool,
        progress: Progress,
        *,
        first_key: int = 0,
        admit: Callable[[list[Article]], list[Article]] = lambda batch: batch,
        find: Callable[[Sequence[ImageEntry]], dict[str, int]] = lambda entries: {},
    ) -> None:
        self.writer, self.image_encoder = writer, image_encoder
        self.skip_bad, self.progress = skip_bad, progress
        self.next_key, self.admit, self.find = first_key, admit, find
        self.counts = Counts()
        self.skipped: list[str] = []
        self.digest = hashlib.sha256()
        self.introductions: dict[str, int] = {}

    def run(self, sources: Sources) -> list[SourceRecord]:
        records = []
        for path in sources.articles:
            records.append(self._record("articles", path, partial(self._add_articles, self._read(read_articles, path))))
        if sources.dumps:
            from moreie.knowledge.sources.mediawiki import read_dump

            for path in sources.dumps:
                records.append(self._record("dump", path, partial(self._add_articles, self._read(read_dump, path))))
        for path, root in sources.images:
            records.append(self._record("images", path, partial(self._add_manifest, path, root)))
        return records

    def _read(self, reader: Callable[..., Iterator[Article]], path: Path) -> Iterator[Article]:
        on_bad = self.skipped.append
        return reader(path, (lambda bad: on_bad(str(bad))) if self.skip_bad else None, partial(self.progress, path))

    def _record(self, kind: Any, path: Path, add: Callable[[], int]) -> SourceRecord:
        if not path.is_file():
            raise SourceError(f"{path}: no such file")
        before = len(self.skipped)
        items = add()
        skipped = len(self.skipped) - before
        return SourceRecord(kind=kind, name=path.name, bytes=path.stat().st_size, items=items, skipped=skipped)

    def _add_articles(self, articles: Iterable[Article]) -> int:
        before = self.counts.articles
        for batch in _batches(articles, ARTICLES_PER_BATCH):
            passages, sentences = PassageRows(), SentenceRows()
            for article in self.admit(batch):
                self._add_article(article, passages, sentences)
            self.writer.add_passages(passages, sentences)
        return self.counts.articles - before

    def _add_article(self, article: Article, passages: PassageRows, sentences: SentenceRows) -> None:
        first = None
        for paragraph in article.paragraphs:
            if not paragraph.text.strip():
                continue
            key = self.next_key
            self.next_key += 1
            first = key if first is None else first
            passages.key.append(key)
            passages.article.append(article.id)
            passages.title.append(article.title)
            passages.text.append(paragraph.text)
            passages.introduction.append(paragraph.introduction)
            passages.links.append([{"start": x.start, "end": x.end, "target": x.target} for x in paragraph.links])
            passages.url.append(article.url)
            spans = split_sentences(paragraph.text)
            sentences.passage += [key] * len(spans)
            sentences.sentence += [paragraph.text[start:end].strip() for start, end in spans]
            sentences.introduction += [paragraph.introduction] * len(spans)
            self.digest.update(paragraph.text.encode())
            self.counts.passages += 1
            self.counts.sentences += len(spans)
        if first is not None:
            self.digest.update(f"\0{article.id}\0{article.title}\0".encode())
            self.counts.articles += 1
            self.introductions.setdefault(f"id:{article.id}", first)
            for title in (article.title, *article.redirects):
                self.introductions.setdefault(f"title:{title}", first)

    def _add_manifest(self, path: Path, root: Path) -> int:
        from moreie.knowledge.sources.images import read_image_manifest

        before = self.counts.images
        entries = read_image_manifest(path, root, lambda bad: self.skipped.append(str(bad)))
        for batch in _batches(entries, IMAGES_PER_BATCH):
            self._add_images(batch)
            self.progress(path, len(batch))
        return self.counts.images - before

    def _add_images(self, entries: Sequence[ImageEntry]) -> None:
        from moreie.encoders.images import load_image

        kept: list[tuple[ImageEntry, int, Image.Image]] = []
        stored = self.find(entries)
        for entry in entries:
            names = (f"id:{entry.article_id}", f"title:{entry.title}")
            places = (known[name] for name in names for known in (self.introductions, stored) if name in known)
            passage = next(places, None)
            if passage is None:
                self.skipped.append(f"{entry.file}: no article {entry.title!r} in the corpus")
                continue
            try:
                kept.append((entry, passage, load_image(entry.path)))
            except ImageError as problem:
                self.skipped.append(str(problem))
        if not kept or self.image_encoder is None:
            return
        vectors = self.image_encoder.encode([picture for _, _, picture in kept])
        rows = ImageRows()
        for (entry, passage, picture), vector in zip(kept, vectors, strict=True):
            rows.file.append(entry.file)
            rows.passage.append(passage)
            rows.caption.append(entry.caption)
            rows.attribution.append("; ".join(part for part in (entry.attribution, entry.licence) if part))
            rows.thumbnail.append(thumbnail(picture))
            rows.vector.append(vector)
            self.digest.update(f"{entry.file}\0{passage}\0".encode())
        self.writer.add_images(rows)
        self.counts.images += len(kept)


def thumbnail(picture: Image.Image, pixels: int = THUMBNAIL_PIXELS) -> bytes:
    """A small JPEG of a picture, for showing it as evidence."""
    small = picture.copy()
    small.thumbnail((pixels, pixels))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
