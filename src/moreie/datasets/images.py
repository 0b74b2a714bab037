"""Finding a post's picture in a folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})


@lru_cache(maxsize=16)
def _pictures(folder: Path) -> dict[str, Path]:
    found = {p.name: p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES}
    return {**{p.stem: p for p in found.values()}, **found}


def find_image(folder: Path | None, image_id: str) -> Path | None:
    """The picture whose file name, with or without its ending, is `image_id`; None where there is none."""
    return None if folder is None else _pictures(folder).get(image_id)
