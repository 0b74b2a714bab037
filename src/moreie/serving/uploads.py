"""Pictures that clients upload: files for as long as they are needed, called what the client calls them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from starlette.datastructures import UploadFile

from moreie.schema import Extraction


async def read_upload(image: UploadFile | None) -> tuple[bytes | None, str]:
    """Bytes and bare file name of an upload; None and "" where no file was chosen."""
    if image is None or not image.filename:
        return None, ""
    return await image.read(), PurePosixPath(image.filename.replace("\\", "/")).name


@contextmanager
def picture_file(data: bytes | None) -> Iterator[Path | None]:
    """The uploaded bytes as a file for as long as they are needed."""
    if data is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="moreie-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        yield path


def renamed(extraction: Extraction, path: Path | None, name: str) -> tuple[str, ...]:
    """The warnings with the client's name for the picture, not the service's."""
    return tuple(w.replace(str(path), name) for w in extraction.warnings) if path else extraction.warnings
