"""Short names of what files and folders hold: two of the same name hold the same, wherever they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCK = 1 << 20


def file_digest(path: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    _add(digest, path)
    return digest.hexdigest()[:16]


def folder_digest(folder: Path) -> str | None:
    """Of all files below a folder, by their names and bytes, hidden ones left out; None for one that is not there."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()}\0{path.stat().st_size}\0".encode())
            _add(digest, path)
    return digest.hexdigest()[:16]


def _add(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
