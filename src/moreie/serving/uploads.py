"""Pictures that clients upload: files for as long as they are needed, called what the client calls them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path, PurePosixPath

import anyio.to_thread
from starlette.datastructures import UploadFile

from moreie.encoders.images import picture_size
from moreie.errors import ImageError

NAME_LIMIT = 255


async def read_upload(image: UploadFile | None) -> tuple[bytes | None, str]:
    """Bytes and bare file name of an upload; None and "" where no file was chosen."""
    if image is None or not image.filename:
        return None, ""
    bare = PurePosixPath(image.filename.replace("\\", "/")).name
    return await image.read(), "".join(c for c in bare if c.isprintable())[:NAME_LIMIT]


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


@asynccontextmanager
async def opened_picture(data: bytes | None) -> AsyncIterator[tuple[Path | None, int]]:
    """The file of a picture, and the pixels that it declares (0 where that cannot be told)."""
    with ExitStack() as stack:
        path = await anyio.to_thread.run_sync(stack.enter_context, picture_file(data))
        yield path, await anyio.to_thread.run_sync(_pixels, data)


def _pixels(data: bytes | None) -> int:
    try:
        width, height = picture_size(data or b"")
    except ImageError:
        return 0
    return width * height


def renamed(warnings: tuple[str, ...], path: Path | None, name: str) -> tuple[str, ...]:
    """Warnings with the client's name for the picture, not the service's."""
    return tuple(w.replace(str(path), name) for w in warnings) if path else warnings
