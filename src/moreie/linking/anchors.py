"""What a corpus' hyperlinks say: how often an anchor leads to which article, and how rare words are.

The counts of one revision lie beside it in two files (`moreie corpus anchors` makes them) and are read where they lie:
a table is searched, not loaded.
"""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from moreie.knowledge.stores import in_cluster

FORMAT = 1
LINK_ROWS = pa.schema([("name", pa.string()), ("key", pa.int64()), ("count", pa.int64())])
WORD_ROWS = pa.schema([("word", pa.string()), ("count", pa.int64())])
# A link whose target is no article of the corpus is counted under this key.
OUTSIDE = -1
# Rarer words are not kept, and taken to occur so often.
RAREST = 3
_ABOUT = b"moreie.anchors"


@dataclass(frozen=True, slots=True)
class AnchorCounts:
    """Where links of one anchor text lead: first passages of articles with their number of links, and the number of
    links whose target is not in the corpus."""

    targets: Mapping[int, int] = field(default_factory=dict)
    outside: int = 0

    @property
    def total(self) -> int:
        return sum(self.targets.values()) + self.outside


class AnchorStatistics(Protocol):
    """What linking asks about anchors and words."""

    def counts(self, name: str) -> AnchorCounts:
        """Where links lead whose text has this normal form (`knowledge.names`)."""
        ...

    def rarity(self, word: str) -> float:
        """-ln of the word's share of the words of all introductions."""
        ...


class Anchors:
    """Anchor counts and word frequencies of the corpus `version`. `links` has `LINK_ROWS`, sorted by name and key, one
    row for both; `words` has `WORD_ROWS`, sorted by word."""

    def __init__(self, version: str, links: pa.Table, words: pa.Table):
        self.version, self._links, self._words = version, links, words

    def counts(self, name: str) -> AnchorCounts:
        column, keys, counts = self._columns
        targets: dict[int, int] = {}
        outside = 0
        for row in range(_place(column, name), len(column)):
            if column[row].as_py() != name:
                break
            if keys[row] == OUTSIDE:
                outside = int(counts[row])
            else:
                targets[int(keys[row])] = int(counts[row])
        return AnchorCounts(targets, outside)

    def rarity(self, word: str) -> float:
        column, counts, total = self._frequencies
        place = _place(column, word)
        known = place < len(column) and column[place].as_py() == word
        return math.log(max(total, RAREST) / (counts[place] if known else RAREST))

    @property
    def names(self) -> int:
        """Different anchor texts, in normal form."""
        return len(pc.unique(self._links["name"]))

    @property
    def links(self) -> int:
        """Links counted."""
        return int(self._columns[2].sum())

    @property
    def outside(self) -> int:
        """Those of the links whose target is not in the corpus."""
        _, keys, counts = self._columns
        return int(counts[keys == OUTSIDE].sum())

    @cached_property
    def _columns(self) -> tuple[Any, NDArray[np.int64], NDArray[np.int64]]:
        return _whole(self._links["name"]), self._links["key"].to_numpy(), self._links["count"].to_numpy()

    @cached_property
    def _frequencies(self) -> tuple[Any, NDArray[np.int64], int]:
        counts = self._words["count"].to_numpy()
        return _whole(self._words["word"]), counts, int(counts.sum())

    def save(self, folder: Path) -> None:
        """Write `links.arrow` and `words.arrow`, each in one step.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(exist_ok=True)
        about = {_ABOUT: json.dumps({"format": FORMAT, "version": self.version}).encode()}
        for name, table in (("links", self._links), ("words", self._words)):
            whole = table.combine_chunks().replace_schema_metadata(about)
            unfinished = folder / f".{name}.{os.getpid()}"
            with pa.ipc.new_file(unfinished, whole.schema) as out:
                out.write_table(whole)
            os.replace(unfinished, folder / f"{name}.arrow")

    @classmethod
    def load(cls, folder: Path, version: str) -> Anchors | None:
        """The counts kept in a folder; None where there are none of this corpus version, or damaged ones."""
        tables = []
        for name in ("links", "words"):
            try:
                table = pa.ipc.open_file(pa.memory_map(str(folder / f"{name}.arrow"))).read_all()
                about = json.loads((table.schema.metadata or {})[_ABOUT])
            except (OSError, pa.ArrowInvalid, KeyError, ValueError):
                return None
            if about != {"format": FORMAT, "version": version}:
                return None
            tables.append(table)
        return cls(version, *tables)


def anchors_folder(location: str | Path) -> Path:
    """Where the counts of a corpus are kept: inside its folder; of one in Milvus in the working directory."""
    if in_cluster(location):
        return Path(f"{Path(location).name}.anchors")
    return Path(location) / "anchors"


def _place(column: Any, text: str) -> int:
    """Where a text stands in a sorted column, or would."""
    return bisect_left(range(len(column)), text, key=lambda row: column[row].as_py())


def _whole(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
