"""Pictures → vectors and thumbnails, in batches that are kept once done (`knowledge.embedding`)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from moreie.errors import ImageError
from moreie.knowledge.embedding import BatchStore, EmbeddedBatch, vector_column
from moreie.knowledge.stores.schemas import image_rows

if TYPE_CHECKING:
    from PIL import Image

    from moreie.encoders.images import ImageEncoder
    from moreie.knowledge.sources.images import ImageEntry
    from moreie.knowledge.workers import Workers

IMAGES_PER_BATCH = 64
THUMBNAIL_PIXELS = 256


@dataclass(frozen=True, slots=True)
class PictureBatch:
    """Pictures to embed, and the first passages of their articles."""

    key: str
    entries: tuple[ImageEntry, ...]


class PictureStore:
    """Embeds pictures and keeps what is done in `folder` until `clear`."""

    def __init__(self, folder: Path, encoder: ImageEncoder, workers: Workers | None = None):
        self._store = BatchStore(folder, encoder, workers)

    def embed(self, entries: Iterable[tuple[ImageEntry, int]]) -> Iterator[tuple[pa.Table, int, tuple[str, ...]]]:
        """Image rows, the number of entries they come from, and what was skipped, batch by batch in the order given.

        `entries` come with the first passages of their articles.
        """
        passages: list[list[int]] = []
        keys = self._store.keep(embed_batch, self._picture_batches(entries, passages))
        for key, own in zip(keys, passages, strict=True):
            done = self._store.load(key)
            column = pa.array([own[place] for place in done.places], type=pa.int64())
            rows = done.rows.set_column(done.rows.schema.get_field_index("passage"), "passage", column)
            yield rows, len(own), done.skipped

    def clear(self) -> None:
        self._store.clear()

    def _picture_batches(
        self, entries: Iterable[tuple[ImageEntry, int]], passages: list[list[int]]
    ) -> Iterator[PictureBatch]:
        for batch in _batches(entries):
            pictures = tuple(entry for entry, _ in batch)
            passages.append([passage for _, passage in batch])
            yield PictureBatch(_key(pictures, self._store.encoder.fingerprint), pictures)


def embed_batch(encoder: ImageEncoder, batch: PictureBatch) -> EmbeddedBatch:
    """Vectors and thumbnails of the pictures of a batch that can be read."""
    from moreie.encoders.images import decode_image, load_image

    pictures: list[Image.Image] = []
    places: list[int] = []
    skipped: list[str] = []
    for place, entry in enumerate(batch.entries):
        try:
            if entry.content is not None:
                pictures.append(decode_image(entry.content, entry.file))
            elif entry.path is not None:
                pictures.append(load_image(entry.path))
            places.append(place)
        except ImageError as problem:
            skipped.append(str(problem))
    kept = [batch.entries[place] for place in places]
    vectors = encoder.encode(pictures) if pictures else np.zeros((0, encoder.dimension), np.float32)
    columns = {
        "file": [e.file for e in kept],
        "passage": [0] * len(kept),
        "caption": [e.caption for e in kept],
        "attribution": ["; ".join(part for part in (e.attribution, e.licence) if part) for e in kept],
        "thumbnail": [thumbnail(picture) for picture in pictures],
        "vector": vector_column(vectors),
    }
    rows = pa.table(columns, schema=image_rows(encoder.dimension))
    return EmbeddedBatch(rows, tuple(places), tuple(skipped), encoder.fingerprint)


def thumbnail(picture: Image.Image, pixels: int = THUMBNAIL_PIXELS) -> bytes:
    """A small JPEG of a picture, for showing it as evidence."""
    small = picture.copy()
    small.thumbnail((pixels, pixels))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _key(entries: Sequence[ImageEntry], fingerprint: str) -> str:
    """Names a batch by its pictures and the encoder."""
    digest = hashlib.sha256(fingerprint.encode())
    for entry in entries:
        digest.update(f"\0{entry.file}\0{entry.caption}\0{entry.attribution}\0{entry.licence}\0".encode())
        if entry.content is not None:
            digest.update(hashlib.sha256(entry.content).digest())
        elif entry.path is not None:
            status = entry.path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def _batches(entries: Iterable[tuple[ImageEntry, int]]) -> Iterator[list[tuple[ImageEntry, int]]]:
    batch: list[tuple[ImageEntry, int]] = []
    for item in entries:
        batch.append(item)
        if len(batch) == IMAGES_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
