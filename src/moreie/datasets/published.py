"""The published sizes of the benchmark splits, to notice a file that is not what it should be."""

from __future__ import annotations

from pathlib import Path

PUBLISHED: dict[tuple[str, str], int] = {
    ("twitter2015", "train"): 4000,
    ("twitter2015", "valid"): 1000,
    ("twitter2015", "test"): 3257,
    ("twitter2017", "train"): 3373,
    ("twitter2017", "valid"): 723,
    ("twitter2017", "test"): 723,
    ("snap", "train"): 4290,
    ("snap", "valid"): 1432,
    ("snap", "test"): 1459,
    ("wikidiverse", "train"): 6312,
    ("wikidiverse", "valid"): 755,
    ("wikidiverse", "test"): 757,
    ("mnre", "train"): 12247,
    ("mnre", "valid"): 1624,
    ("mnre", "test"): 1614,
}
# Releases name the validation split differently.
SPLITS = {"val": "valid", "dev": "valid"}


def published_count(path: Path) -> int | None:
    """The published number of posts of a file in a folder named after its data set; None for other files."""
    data_set = path.resolve().parent.name.lower().replace("-", "").replace("_", "")
    return PUBLISHED.get((data_set, SPLITS.get(path.stem, path.stem)))
