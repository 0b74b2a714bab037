"""What the embedded store's writer, editor and reader share: rows appended, listed and counted, vectors read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from moreie.knowledge.stores.vectors import EXACT_LIMIT, ROWS_PER_READ, build_index, index_file

T = TypeVar("T")


def parts(values: Sequence[T], size: int = 1_000) -> Iterator[Sequence[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def quoted(values: Iterable[str]) -> str:
    return ",".join("'" + value.replace("'", "''") + "'" for value in values)


def append(table: Any, rows: pa.Table) -> None:
    if len(rows):
        table.add(rows)


def index_vectors(folder: Path, name: str, table: Any) -> None:
    """Make the vector index of a table that is large enough to need one."""
    count, path = table.count_rows(), folder / index_file(name)
    if count <= EXACT_LIMIT:
        path.unlink(missing_ok=True)
        return
    rows = table.search().with_row_id(True).select(["vector"]).limit(None).to_batches(ROWS_PER_READ)
    build_index(((row_ids(batch), matrix(batch["vector"])) for batch in rows), count, path)


def read_vectors(table: Any, ids: NDArray[np.int64], some: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Vectors [N, D] of rows in the order of their ids, of all rows (None) or of some."""
    if some is None:
        rows = table.search().with_row_id(True).select(["vector"]).limit(None).to_arrow()
    else:
        rows = table.take_row_ids(some.tolist()).with_row_id().select(["vector"]).to_arrow()
    places = {id: place for place, id in enumerate(row_ids(rows).tolist())}
    order = [places[id] for id in (ids if some is None else some).tolist()]
    return matrix(rows["vector"].combine_chunks())[order]


def row_ids(rows: Any) -> NDArray[np.int64]:
    return np.asarray(rows["_rowid"]).astype(np.int64)


def tuples(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)


def matrix(vectors: Any) -> NDArray[np.float32]:
    return np.asarray(vectors.flatten()).astype(np.float32).reshape(len(vectors), -1)


def batches(table: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    found: Iterator[pa.RecordBatch] = table.search().select(list(columns)).limit(None).to_batches(ROWS_PER_READ)
    return found
