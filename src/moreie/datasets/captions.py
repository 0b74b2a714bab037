"""Machine captions of pictures: one JSON object a line, `image_id` and one or more caption fields."""

from __future__ import annotations

import json
from pathlib import Path

from moreie.datasets.lines import numbered_lines
from moreie.errors import DataFormatError


def read_captions(path: str | Path, field: str) -> dict[str, str]:
    """Caption by image id.

    Raises:
        DataFormatError: a line that is no object with `image_id` and `field`.
    """
    path = Path(path)
    captions: dict[str, str] = {}
    for number, text in numbered_lines(path):
        try:
            row = json.loads(text)
            captions[str(row["image_id"])] = str(row[field])
        except (ValueError, TypeError) as problem:
            raise DataFormatError(f"not a JSON object ({problem})", path, number) from problem
        except KeyError as problem:
            raise DataFormatError(f"no field {problem}; fields are {', '.join(row)}", path, number) from problem
    return captions
