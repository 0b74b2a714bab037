"""Image retrieval: k-NN over article pictures gives titles and introductions (paper, §3.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moreie.encoders.pictures import EmbeddedImages, embed_pictures
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.retrieved import Retrieved, ranked
from moreie.schema import Post

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder


class ImageRetriever:
    """The photograph is the query, article pictures are matched, their articles' introductions come back.

    `floor`: the least cosine similarity that counts as evidence.
    """

    name = "image"

    def __init__(self, corpus: KnowledgeCorpus, encoder: ImageEncoder, k: int = 10, floor: float = 0.0):
        self.corpus, self.encoder, self.k, self.floor = corpus, encoder, k, floor

    def embed(self, posts: Sequence[Post]) -> EmbeddedImages:
        """Embed the posts' pictures, each file once."""
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
