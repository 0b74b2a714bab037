"""Where an encoder is: a hub id, or a folder that saved models name relative to their own."""

from __future__ import annotations

import os
from pathlib import Path


def relative_name(name: str, folder: Path) -> str:
    """How a model saved in `folder` names an encoder: by the way to its folder, or by its hub id."""
    return os.path.relpath(Path(name).resolve(), folder.resolve()) if Path(name).is_dir() else name


def located(name: str, folder: Path) -> str:
    """The encoder that a model in `folder` names: the absolute path of its folder, or its hub id."""
    local = (folder / name).resolve()
    return str(local) if local.is_dir() else name
