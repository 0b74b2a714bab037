"""Retrieval across text and picture, for image encoders with a text tower (CLIP and its kind)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moreie.encoders.images import ImageEncoder, load_image
from moreie.errors import EncoderError, ImageError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.retrieved import Retrieved, Retriever, ranked
from moreie.schema import Post


class TextToImageRetriever:
    """The post's text is the query, article pictures are matched, their articles' introductions come back.

    Raises:
        EncoderError: the encoder has no text tower.
    """

    name = "image"

    def __init__(self, corpus: KnowledgeCorpus, encoder: ImageEncoder, k: int = 10):
        _need_text_tower(encoder)
        self.corpus, self.encoder, self.k = corpus, encoder, k

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        """At most k introductions a post, all posts in one batch."""
        rows = [i for i, post in enumerate(posts) if post.text.strip()]
        vectors = self.encoder.encode_texts([posts[i].text for i in rows])
        found = self.corpus.search_images(vectors, self.k, encoder_fingerprint=self.encoder.fingerprint)
        hits = dict(zip(rows, found, strict=True))
        return [
            Retrieved(ranked(hits.get(i, []), self.name), () if hits.get(i) else ("no article picture found",))
            for i in range(len(posts))
        ]


class PictureRanked:
    """Another retriever's evidence in the order in which title and text fit the post's picture: image → text.

    Posts without a readable picture keep their order, and say so.

    Raises:
        EncoderError: the encoder has no text tower.
    """

    def __init__(self, retriever: Retriever, encoder: ImageEncoder, k: int = 10):
        _need_text_tower(encoder)
        self.retriever, self.encoder, self.k = retriever, encoder, k
        self.name = retriever.name

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        found = self.retriever.retrieve(posts)
        results = []
        for post, retrieved in zip(posts, found, strict=True):
            try:
                picture = load_image(post.image) if post.image else None
            except ImageError as problem:
                picture, retrieved = None, Retrieved(retrieved.evidence, (*retrieved.warnings, str(problem)))
            best = [(e.passage, e.score) for e in retrieved.evidence]
            warnings = retrieved.warnings
            if picture is None:
                warnings = (*warnings, "no picture to rank by")
            elif best:
                texts = [f"{passage.title}. {passage.text}" for passage, _ in best]
                scores = self.encoder.encode_texts(texts) @ self.encoder.encode([picture])[0]
                best = [(best[i][0], float(scores[i])) for i in np.argsort(-scores, kind="stable")]
            results.append(Retrieved(ranked(best[: self.k], self.name), warnings))
        return results


def _need_text_tower(encoder: ImageEncoder) -> None:
    if not encoder.reads_text:
        raise EncoderError(
            f"{encoder.name}: an image encoder without a text tower; text and pictures can be compared with CLIP or "
            "its kind (openai/clip-vit-base-patch32)"
        )
