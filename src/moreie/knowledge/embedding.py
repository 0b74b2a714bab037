"""Batches → vectors by an image encoder. A batch is kept once done, so that a run that is cut off embeds nothing
twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.workers import LocalWorkers, Workers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from moreie.encoders.images import ImageEncoder


class Batch(Protocol):
    """What is embedded together; `key` names it by its content and the encoder."""

    @property
    def key(self) -> str: ...


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Rows with vectors; `places` says which items of the batch they are, `skipped` why not all."""

    rows: pa.Table
    places: tuple[int, ...]
    skipped: tuple[str, ...]
    fingerprint: str


class BatchStore:
    """Embeds batches and keeps what is done in `folder` until `clear`."""

    def __init__(self, folder: Path, encoder: ImageEncoder, workers: Workers | None = None):
        self.folder, self.encoder = folder, encoder
        # One process of many threads embeds faster than many processes of one thread; a cluster has more machines.
        self.workers = LocalWorkers(1) if workers is None or isinstance(workers, LocalWorkers) else workers
        self.resumed = 0

    def keep(self, work: Callable[[ImageEncoder, B], EmbeddedBatch], batches: Iterable[B]) -> list[str]:
        """Embed what is not kept already; the batches' keys in the order given. `resumed` counts those that were kept.

        Raises:
            KnowledgeCorpusError: a worker loaded another encoder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        order: list[str] = []
        for _ in self.workers.each(self._bound(work), self._save, lambda: self._missing(batches, order)):
            pass
        return order

    def load(self, key: str) -> EmbeddedBatch:
        """A batch that is kept."""
        notes = feather.read_table(self.folder / key / "notes")
        rows = feather.read_table(self.folder / key / "rows")
        places, skipped = (tuple(notes[name][0].as_py() or ()) for name in ("places", "skipped"))
        return EmbeddedBatch(rows, places, skipped, self.encoder.fingerprint)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _bound(self, work: Callable[[ImageEncoder, B], EmbeddedBatch]) -> partial[EmbeddedBatch]:
        if isinstance(self.workers, LocalWorkers):
            return partial(work, self.encoder)
        return partial(_embed_with, work, self.encoder.name)

    def _missing(self, batches: Iterable[B], order: list[str]) -> Iterator[B]:
        for batch in batches:
            order.append(batch.key)
            if (self.folder / batch.key).is_dir():
                self.resumed += 1
            else:
                yield batch

    def _save(self, batch: Batch, done: EmbeddedBatch) -> None:
        if done.fingerprint != self.encoder.fingerprint:
            raise KnowledgeCorpusError(
                f"a worker's image encoder is another one ({done.fingerprint}) than ours "
                f"({self.encoder.fingerprint}); let {self.encoder.name} lead to the same files everywhere"
            )
        unfinished = self.folder / f".{batch.key}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        feather.write_feather(done.rows, unfinished / "rows", compression="lz4")
        notes = pa.table({"places": [list(done.places)], "skipped": [list(done.skipped)]})
        feather.write_feather(notes, unfinished / "notes", compression="lz4")
        os.replace(unfinished, self.folder / batch.key)


def vector_column(vectors: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Vectors [N, D] as a store keeps them, in half precision."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), vectors.shape[1])


def _embed_with(work: Callable[[ImageEncoder, Any], EmbeddedBatch], name: str, batch: Any) -> EmbeddedBatch:
    return work(_encoder(name), batch)


@lru_cache(maxsize=1)
def _encoder(name: str) -> ImageEncoder:
    from moreie.encoders.images import ImageEncoder

    return ImageEncoder.from_pretrained(name)
