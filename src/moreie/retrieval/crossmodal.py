"""Retrieval across text and picture, for image encoders with a text tower (CLIP and its kind)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moreie.encoders.images import ImageEncoder, load_image
from moreie.encoders.pictures import embed_pictures
from moreie.errors import ImageError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.passages import titled
from moreie.retrieval.retrieved import Retrieved, Retriever, ranked
from moreie.schema import Post


class TextToImageRetriever:
    """The post's text is the query, article pictures are matched, their articles' introductions come back.

    Raises:
        EncoderError: the encoder has no text tower.
    """

    name = "image"

    def __init__(self, corpus: KnowledgeCorpus, encoder: ImageEncoder, k: int = 10):
        encoder.need_text_tower()
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


class ImageToTextRetriever:
    """The photograph is the query, titles and texts of introductions are matched, embedded by `moreie corpus embed`.

    Raises:
        EncoderError: the encoder has no text tower.
    """

    name = "image"

    def __init__(self, corpus: KnowledgeCorpus, encoder: ImageEncoder, k: int = 10):
        encoder.need_text_tower()
        self.corpus, self.encoder, self.k = corpus, encoder, k

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        """At most k introductions a post, all posts in one batch.

        Raises:
            KnowledgeCorpusError: the corpus' introductions are not embedded, or by another encoder.
        """
        images = embed_pictures(posts, self.encoder)
        vectors = images.vectors[images.rows]
        found = self.corpus.search_introductions(vectors, self.k, encoder_fingerprint=self.encoder.fingerprint)
        hits = dict(zip(images.rows.tolist(), found, strict=True))
        left = self.corpus.unembedded
        lacking = f"{left:,} introductions are not embedded, so not found (`moreie corpus embed` adds them)"
        results = []
        for row, warnings in enumerate(images.warnings):
            kept = hits.get(row, [])
            nothing = () if kept or warnings else ("no introduction found",)
            said = (*warnings, *nothing, *((lacking,) if left else ()))
            results.append(Retrieved(ranked(kept, self.name), said))
        return results


class PictureRanked:
    """Another retriever's evidence in the order in which title and text fit the post's picture.

    Posts without a readable picture keep their order, and say so.

    Raises:
        EncoderError: the encoder has no text tower.
    """

    def __init__(self, retriever: Retriever, encoder: ImageEncoder, k: int = 10):
        encoder.need_text_tower()
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
                texts = [titled(passage.title, passage.text) for passage, _ in best]
                scores = self.encoder.encode_texts(texts) @ self.encoder.encode([picture])[0]
                best = [(best[i][0], float(scores[i])) for i in np.argsort(-scores, kind="stable")]
            results.append(Retrieved(ranked(best[: self.k], self.name), warnings))
        return results
