"""The pictures of posts as vectors, and what is wrong with those that have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moreie.errors import ImageError
from moreie.schema import Post

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from moreie.encoders.images import ImageEncoder

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
    known = dict(zip(files, encoder.encode_files(files, batch_size=batch_size), strict=True))
    vectors = np.full((len(posts), encoder.dimension), np.nan, dtype=np.float32)
    warnings: list[tuple[str, ...]] = []
    for row, post in enumerate(posts):
        found = known[post.image] if post.image is not None else NO_PICTURE
        if isinstance(found, np.ndarray):
            vectors[row] = found
            warnings.append(())
        else:
            warnings.append((f"picture unreadable: {found}" if isinstance(found, ImageError) else found,))
    return EmbeddedImages(vectors, tuple(warnings))
