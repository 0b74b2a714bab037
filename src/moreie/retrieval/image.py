"""Image retrieval: k-NN over article pictures gives titles and introductions (paper, §3.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moreie.encoders.images import ImageEncoder, load_image
from moreie.errors import ImageError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.retrieved import Retrieved, ranked
from moreie.schema import Post


@dataclass(frozen=True, slots=True)
class EmbeddedImages:
    """Unit vectors [N, D] of the posts' pictures, rows of NaN where a post has none that can be read, and why."""

    vectors: NDArray[np.float32]
    warnings: tuple[tuple[str, ...], ...]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Places of the posts whose picture could be read."""
        return np.flatnonzero(~np.isnan(self.vectors).any(1))


def embed_pictures(posts: Sequence[Post], encoder: ImageEncoder) -> EmbeddedImages:
    """Embed the posts' pictures, in one batch."""
    warnings: list[tuple[str, ...]] = []
    pictures, rows = [], []
    for row, post in enumerate(posts):
        if post.image is None:
            warnings.append(("no picture",))
            continue
        try:
            pictures.append(load_image(post.image))
            rows.append(row)
            warnings.append(())
        except ImageError as problem:
            warnings.append((f"picture unreadable: {problem}",))
    vectors = np.full((len(posts), encoder.dimension), np.nan, dtype=np.float32)
    if pictures:
        vectors[rows] = encoder.encode(pictures)
    return EmbeddedImages(vectors, tuple(warnings))


class ImageRetriever:
    """The photograph is the query, article pictures are matched, their articles' introductions come back.

    `floor`: the least cosine similarity that counts as evidence.
    """

    name = "image"

    def __init__(self, corpus: KnowledgeCorpus, encoder: ImageEncoder, k: int = 10, floor: float = 0.0):
        self.corpus, self.encoder, self.k, self.floor = corpus, encoder, k, floor

    def embed(self, posts: Sequence[Post]) -> EmbeddedImages:
        """Embed the posts' pictures, in one batch."""
        return embed_pictures(posts, self.encoder)

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        """At most k introductions a post, all posts in one batch."""
        return self.search(self.embed(posts))

    def search(self, images: EmbeddedImages) -> list[Retrieved]:
        """Evidence for pictures already embedded."""
        rows = images.rows
        found = self.corpus.search_images(images.vectors[rows], self.k, encoder_fingerprint=self.encoder.fingerprint)
        hits = dict(zip(rows.tolist(), found, strict=True))
        results = []
        for row, warnings in enumerate(images.warnings):
            kept = [(passage, score) for passage, score in hits.get(row, []) if score >= self.floor]
            if not kept and not warnings:
                warnings = (f"no article picture is similar enough (floor {self.floor:.2f})",)
            results.append(Retrieved(ranked(kept, self.name), warnings))
        return results
