"""Published scores, kept in a data file beside the results, to be set beside ours."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from moreie.errors import DataFormatError

FILE = "published.json"


class Published(BaseModel):
    """F1 by data set and variant, with the publication they are from and the encoder they were got with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    encoder: str
    split: str
    f1: dict[str, dict[str, float]]


def read_published(folder: Path) -> Published | None:
    """`published.json` of a results folder, None where there is none. Raises `DataFormatError` on a damaged one."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return Published.model_validate_json(path.read_bytes())
    except ValidationError as problem:
        raise DataFormatError(f"no published scores ({problem.errors()[0]['msg']})", path) from problem
