"""k-NN over vectors of pictures or introductions: exact while they are few, an inverted file of product codes with
re-scoring beyond.

An index file lies beside the tables and can always be made again from them. It knows rows by their row ids in the
table; rows that have changed since have others, and are searched exactly.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moreie.starting import deferring

with deferring(("faiss",)):  # most commands search no vectors
    import faiss

log = logging.getLogger(__name__)
# Up to so many vectors every one is compared.
EXACT_LIMIT = 100_000
ROWS_PER_READ = 50_000
# Vectors that an inverted list's centre, and the codes, are learnt from.
TRAINING_PER_LIST = 40
# So many times k candidates are scored again with half-precision vectors.
CANDIDATES = 20


def index_file(table: str) -> str:
    """Name of the index file of a table's vectors."""
    return f"{table}.faiss"


def unindexed(ids: NDArray[np.int64], path: Path) -> int:
    """How many of these rows an index file does not know."""
    return int((~np.isin(ids, _known_ids(_opened(path)))).sum()) if path.is_file() else len(ids)


def build_index(vectors: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]], count: int, path: Path) -> None:
    """Write an index of `count` unit vectors, given in batches of (ids [N], vectors [N, D]), in one rename."""
    waiting: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    lists = int(4 * np.sqrt(count))
    needed = min(count, lists * TRAINING_PER_LIST)
    index: Any = None
    held = 0
    for ids, rows in vectors:
        if index is not None:
            index.add_with_ids(rows, ids)
            continue
        waiting.append((ids, rows))
        held += len(ids)
        if held >= needed:
            index = _trained(np.concatenate([rows for _, rows in waiting])[:needed], lists)
            for known, early in waiting:
                index.add_with_ids(early, known)
            waiting.clear()
    unfinished = path.with_name(f".{path.name}.partial")
    faiss.write_index(index, str(unfinished))
    os.replace(unfinished, path)


def _trained(sample: NDArray[np.float32], lists: int) -> Any:
    dimension = sample.shape[1]
    codes = max(2, dimension // 4 // 2 * 2)
    while dimension % codes:
        codes -= 2
    coarse = faiss.index_factory(
        dimension, f"IVF{lists}_HNSW32,PQ{codes}x4fs,Refine(SQfp16)", faiss.METRIC_INNER_PRODUCT
    )
    inner = faiss.extract_index_ivf(coarse)
    inner.cp.niter = 8
    index = faiss.IndexIDMap2(coarse)
    index.train(np.ascontiguousarray(sample))
    return index


def _opened(path: Path) -> Any:
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)


def _known_ids(index: Any) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = faiss.vector_to_array(index.id_map)  # type: ignore[attr-defined]
    return ids


class VectorSearch:
    """Searches the vectors of one state of a table.

    `ids` [N] are the rows of that state; `read` gives the vectors of some of them. `path`: an index file, if there is.
    """

    def __init__(self, ids: NDArray[np.int64], read: Any, path: Path | None, probes: int = 32):
        self._known: Any = None
        # Row ids in order with their places: a dictionary of millions would be some ten times as large.
        self._places = np.argsort(ids)
        self._ids = ids[self._places]
        indexed = np.empty(0, dtype=np.int64)
        if path is not None and path.is_file():
            self._known = _opened(path)
            faiss.extract_index_ivf(self._known.index).nprobe = probes
            indexed = _known_ids(self._known)
        elif len(ids) > EXACT_LIMIT:
            log.warning("%d vectors without an index: every one is compared (compact makes one)", len(ids))
        rest = ids[~np.isin(ids, indexed)]
        self._gone = len(indexed) - (len(ids) - len(rest))
        self._exact = None
        if len(rest):
            vectors = read(rest if len(rest) < len(ids) else None)
            self._exact = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
            self._exact.add_with_ids(vectors, rest)

    def search(self, queries: NDArray[np.float32], k: int) -> list[list[tuple[int, float]]]:
        """(place among the ids, cosine) of the k nearest rows to each unit vector [Q, D], best first."""
        found: list[list[tuple[int, float]]] = [[] for _ in queries]
        wanted = np.ascontiguousarray(queries, dtype=np.float32)
        if self._known is not None:
            # Rows that are gone may stand among the nearest: so many more are asked for, within reason.
            asked = k + min(self._gone, 10 * k)
            parameters = faiss.IndexRefineSearchParameters(k_factor=CANDIDATES)  # type: ignore[call-arg]
            scores, ids = self._known.search(wanted, asked, params=parameters)
            self._collect(found, scores, ids)
        if self._exact is not None:
            scores, ids = self._exact.search(wanted, min(k, self._exact.ntotal))
            self._collect(found, scores, ids)
        return [sorted(row, key=lambda hit: -hit[1])[:k] for row in found]

    def _collect(self, found: list[list[tuple[int, float]]], scores: NDArray[Any], ids: NDArray[Any]) -> None:
        slots = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        here = self._ids[slots] == ids
        for row, own, kept, values in zip(found, self._places[slots], here, scores, strict=True):
            row += zip(own[kept].tolist(), values[kept].tolist(), strict=True)
