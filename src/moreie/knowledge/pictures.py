"""Pictures → vectors, in batches that are kept once done, so that a run that is cut off embeds nothing twice."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather

from moreie.errors import ImageError, KnowledgeCorpusError
from moreie.knowledge.stores.rows import image_rows
from moreie.knowledge.workers import LocalWorkers, Workers

if TYPE_CHECKING:
    from PIL import Image

    from moreie.encoders.images import ImageEncoder
    from moreie.knowledge.sources.images import ImageEntry

IMAGES_PER_BATCH = 64
THUMBNAIL_PIXELS = 256


@dataclass(frozen=True, slots=True)
class PictureBatch:
    """Pictures to embed, and the first passages of their articles."""

    key: str
    entries: tuple[ImageEntry, ...]


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Image rows without their passages; `places` says which entries of the batch they are, `skipped` why not all."""

    rows: pa.Table
    places: tuple[int, ...]
    skipped: tuple[str, ...]
    fingerprint: str


class PictureStore:
    """Embeds pictures and keeps what is done in `folder` until `clear`."""

    def __init__(self, folder: Path, encoder: ImageEncoder, workers: Workers | None = None):
        self.folder, self.encoder = folder, encoder
        # One process of many threads embeds faster than many processes of one thread; a cluster has more machines.
        self.workers = LocalWorkers(1) if workers is None or isinstance(workers, LocalWorkers) else workers

    def embed(self, entries: Iterable[tuple[ImageEntry, int]]) -> Iterator[tuple[pa.Table, int, tuple[str, ...]]]:
        """Image rows, the number of entries they come from, and what was skipped, batch by batch in the order given.

        `entries` come with the first passages of their articles.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        order: list[tuple[str, list[int]]] = []
        for batch, done in self.workers.each(self._work(), lambda: self._missing(_batches(entries), order)):
            if done.fingerprint != self.encoder.fingerprint:
                raise KnowledgeCorpusError(
                    f"a worker's image encoder is another one ({done.fingerprint}) than ours "
                    f"({self.encoder.fingerprint}); let {self.encoder.name} lead to the same files everywhere"
                )
            self._save(batch.key, done)
        for key, passages in order:
            rows, places, skipped = self._load(key)
            column = pa.array([passages[place] for place in places], type=pa.int64())
            yield rows.set_column(rows.schema.get_field_index("passage"), "passage", column), len(passages), skipped

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _work(self) -> partial[EmbeddedBatch]:
        if isinstance(self.workers, LocalWorkers):
            return partial(embed_batch, self.encoder)
        return partial(_embed_with, self.encoder.name)

    def _missing(
        self, batches: Iterable[Sequence[tuple[ImageEntry, int]]], order: list[tuple[str, list[int]]]
    ) -> Iterator[PictureBatch]:
        for batch in batches:
            entries = tuple(entry for entry, _ in batch)
            key = _key(entries, self.encoder.fingerprint)
            order.append((key, [passage for _, passage in batch]))
            if not (self.folder / key).is_dir():
                yield PictureBatch(key, entries)

    def _save(self, key: str, done: EmbeddedBatch) -> None:
        unfinished = self.folder / f".{key}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        feather.write_feather(done.rows, unfinished / "rows", compression="lz4")
        notes = pa.table({"places": [list(done.places)], "skipped": [list(done.skipped)]})
        feather.write_feather(notes, unfinished / "notes", compression="lz4")
        os.replace(unfinished, self.folder / key)

    def _load(self, key: str) -> tuple[pa.Table, list[int], tuple[str, ...]]:
        notes = feather.read_table(self.folder / key / "notes")
        rows = feather.read_table(self.folder / key / "rows")
        return rows, notes["places"][0].as_py() or [], tuple(notes["skipped"][0].as_py() or ())


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
    flat = pa.array(vectors.astype(np.float16).ravel())
    columns = {
        "file": [e.file for e in kept],
        "passage": [0] * len(kept),
        "caption": [e.caption for e in kept],
        "attribution": ["; ".join(part for part in (e.attribution, e.licence) if part) for e in kept],
        "thumbnail": [thumbnail(picture) for picture in pictures],
        "vector": pa.FixedSizeListArray.from_arrays(flat, encoder.dimension),
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


def _embed_with(name: str, batch: PictureBatch) -> EmbeddedBatch:
    return embed_batch(_encoder(name), batch)


@lru_cache(maxsize=1)
def _encoder(name: str) -> ImageEncoder:
    from moreie.encoders.images import ImageEncoder

    return ImageEncoder.from_pretrained(name)


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
