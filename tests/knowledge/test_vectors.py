"""Vector search with an index file: as good as exact search, also for rows that came or went since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moreie.knowledge.stores.vectors import VectorSearch, build_index

N, D = 6_000, 32


@pytest.fixture(scope="module")
def vectors() -> Any:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, D))
    rows = centres[rng.integers(0, 60, N)] + 0.4 * rng.normal(size=(N, D))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact(vectors: Any, ids: Any, queries: Any, k: int) -> list[list[int]]:
    return np.argsort(-(queries @ vectors[ids].T), axis=1)[:, :k].tolist()


def test_an_index_finds_what_exact_search_finds(vectors: Any, tmp_path: Path) -> None:
    ids = np.arange(N) + (7 << 32)  # row ids of a table start anywhere
    path = tmp_path / "images.faiss"
    build_index(((ids[i : i + 999], vectors[i : i + 999]) for i in range(0, N, 999)), N, path)
    queries = vectors[::97]
    found = VectorSearch(ids, None, path).search(queries, 10)
    wanted = exact(vectors, np.arange(N), queries, 10)
    recall = np.mean([len({place for place, _ in f} & set(w)) / 10 for f, w in zip(found, wanted, strict=True)])
    assert recall >= 0.97
    assert all(f[0][0] == i * 97 for i, f in enumerate(found)), "a vector is nearest to itself"
    assert [s for _, s in found[0]] == pytest.approx(sorted((s for _, s in found[0]), reverse=True))
    assert found[0][0][1] == pytest.approx(1, abs=2e-3)


def test_rows_that_came_or_went_since_are_seen(vectors: Any, tmp_path: Path) -> None:
    path = tmp_path / "images.faiss"
    old, now = np.arange(5_000), np.arange(500, N)  # 500 are gone, 1 000 are new
    build_index(iter([(old, vectors[old])]), len(old), path)
    asked: list[Any] = []

    def read(some: Any) -> Any:
        asked.append(some)
        return vectors[some]

    search = VectorSearch(now, read, path)
    assert [row.tolist() for row in asked] == [list(range(5_000, N))], "new rows alone are read"
    queries = vectors[[10, 700, 5_500]]
    found = [[int(now[place]) for place, _ in row] for row in search.search(queries, 5)]
    assert found[1][0] == 700
    assert found[2][0] == 5_500
    assert all(id >= 500 for row in found for id in row)
    wanted = [[int(now[place]) for place in row] for row in exact(vectors, now, queries, 5)]
    assert np.mean([len(set(f) & set(w)) / 5 for f, w in zip(found, wanted, strict=True)]) >= 0.8


def test_few_vectors_are_compared_exactly(vectors: Any) -> None:
    ids = np.arange(50)
    found = VectorSearch(ids, lambda some: vectors[:50], None).search(vectors[:3], 80)
    assert [[place for place, _ in row] for row in found] == exact(vectors, ids, vectors[:3], 50)
