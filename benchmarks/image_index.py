"""Search among a million image vectors: recall and speed of the index beside comparing every one.

python benchmarks/image_index.py [--count 1000000] [--dimension 512]

No million real pictures are at hand: the vectors are made, 2 000 clusters in 48 dimensions turned into `dimension` with
noise added, so that (as with real encoders) few directions carry most of what tells pictures apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from rows import Row, compare, save

from moreie.knowledge.stores.vectors import VectorSearch, build_index

BATCH = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    arguments = parser.parse_args()
    count, dimension = arguments.count, arguments.dimension
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2_000, 48)).astype(np.float32)
    turn = rng.normal(size=(48, dimension)).astype(np.float32) / 7

    def made(number: int, seed: int) -> np.ndarray:
        own = np.random.default_rng(seed)
        inner = centres[own.integers(0, len(centres), number)] + 0.6 * own.normal(size=(number, 48)).astype(np.float32)
        rows = inner @ turn + 0.15 * own.standard_normal((number, dimension), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    exact = faiss.IndexFlatIP(dimension)
    for start in range(0, count, BATCH):
        exact.add(made(min(BATCH, count - start), 1 + start))
    queries = made(1_000, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.faiss"
        start_time = time.perf_counter()
        parts = range(0, count, BATCH)
        build_index(
            ((np.arange(i, min(i + BATCH, count)), made(min(BATCH, count - i), 1 + i)) for i in parts), count, path
        )
        building = time.perf_counter() - start_time
        size = path.stat().st_size / count
        search = VectorSearch(np.arange(count), None, path)
        found = search.search(queries, 10)
        _, nearest = exact.search(queries, 10)
        recall = np.mean([len({i for i, _ in f} & set(n)) / 10 for f, n in zip(found, nearest.tolist(), strict=True)])
        work = f"{count:,} vectors of {dimension}, 1 000 queries in one batch, k=10"
        rows = [
            compare(
                "image search",
                work,
                lambda: search.search(queries, 10),
                lambda: exact.search(queries, 10),
                "exact (Faiss flat)",
                amount=len(queries),
                unit="queries/s",
                target=50.0,
                repeats=5,
            ),
            Row("image search: recall@10", work, float(recall), "share", target=0.97, met=bool(recall >= 0.97)),
            Row("image index: size", work, size, "bytes/vector (memory-mapped)"),
            Row("image index: build", work, count / building, "vectors/s"),
        ]
    save("image_index", rows)


if __name__ == "__main__":
    main()
