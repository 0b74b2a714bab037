"""The pictures of posts as vectors, and what is wrong with those that have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moreie.encoders.images import ImageEncoder, load_image
from moreie.errors import ImageError
from moreie.schema import Post

NO_PICTURE = "no picture"


@dataclass(frozen=True, slots=True)
class EmbeddedImages:
    """Unit vectors [N, D] of the posts' pictures, rows of NaN where a post has none that can be read, and why."""

    vectors: NDArray[np.float32]
    warnings: tuple[tuple[str, ...], ...]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Places of the posts whose picture could be read."""
        return np.flatnonzero(~np.isnan(self.vectors).any(1))

    @property
    def shortfall(self) -> str:
        """How many posts have no picture, or one that cannot be read; "" where all have one."""
        unreadable = [w for warnings in self.warnings for w in warnings if w != NO_PICTURE]
        without = len(self.warnings) - len(self.rows) - len(unreadable)
        parts = [f"{without:,} have no picture"] if without else []
        if unreadable:
            parts.append(f"{len(unreadable):,} have one that cannot be read (the first: {unreadable[0]})")
        return f"of {len(self.warnings):,} posts " + ", ".join(parts) if parts else ""


def embed_pictures(posts: Sequence[Post], encoder: ImageEncoder, *, batch_size: int = 32) -> EmbeddedImages:
    """Embed the posts' pictures batch by batch, each file once."""
    files = list(dict.fromkeys(post.image for post in posts if post.image is not None))
    known: dict[Path, NDArray[np.float32]] = {}
    problems: dict[Path, str] = {}
    for start in range(0, len(files), batch_size):
        pictures = {}
        for file in files[start : start + batch_size]:
            try:
                pictures[file] = load_image(file)
            except ImageError as problem:
                problems[file] = f"picture unreadable: {problem}"
        known.update(zip(pictures, encoder.encode(list(pictures.values())), strict=True))
    vectors = np.full((len(posts), encoder.dimension), np.nan, dtype=np.float32)
    warnings: list[tuple[str, ...]] = []
    for row, post in enumerate(posts):
        if post.image in known:
            vectors[row] = known[post.image]
            warnings.append(())
        else:
            warnings.append((NO_PICTURE if post.image is None else problems[post.image],))
    return EmbeddedImages(vectors, tuple(warnings))
