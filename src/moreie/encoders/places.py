"""Where encoders and models are: on the hub, in the package, or in a folder named relative to that of a saved model."""

from __future__ import annotations

import os
from pathlib import Path

from moreie.shipped import SHIPPED

MARK = "shipped:"


def relative_name(name: str, folder: Path) -> str:
    """How what is saved in `folder` names an encoder or a model: by its hub id, by the way to its folder, or, where it
    ships with the package, which may lie anywhere, as `shipped:encoders/minilm`."""
    place = Path(name)
    if not place.is_dir():
        return name
    if place.resolve().is_relative_to(SHIPPED.resolve()):
        return MARK + place.resolve().relative_to(SHIPPED.resolve()).as_posix()
    return os.path.relpath(place.resolve(), folder.resolve())


def located(name: str, folder: Path) -> str:
    """What is named in `folder`: the absolute path of its folder, or its hub id."""
    if name.startswith(MARK):
        return str((SHIPPED / name.removeprefix(MARK)).resolve())
    local = (folder / name).resolve()
    return str(local) if local.is_dir() else name
