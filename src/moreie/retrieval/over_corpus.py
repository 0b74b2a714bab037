"""The retrievers of one corpus: text, and pictures where it holds some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.entity import Predict
from moreie.retrieval.image import ImageRetriever
from moreie.retrieval.retrieved import Retrieved, Retriever
from moreie.retrieval.settings import RetrievalSettings
from moreie.schema import Post

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder


@dataclass(frozen=True)
class Retrievers:
    """Those of one corpus; `text` is None where there is none, `image` where pictures are not searched, for the reason
    `without_image`."""

    text: Retriever | None
    image: ImageRetriever | None
    without_image: str = "there is no corpus"

    def of_one(self, post: Post) -> Retrieved:
        """The evidence of one post, text first, then picture; that of a picture alone where there is no text.

        Raises:
            KnowledgeCorpusError: there is no corpus.
        """
        if self.text is None:
            raise KnowledgeCorpusError("no knowledge corpus: nothing can be retrieved")
        found = [] if post.image and not post.text.strip() else self.text.retrieve([post])
        if post.image:
            unused = Retrieved((), (f"the picture was not used: {self.without_image}",))
            found += self.image.retrieve([post]) if self.image else [unused]
        return Retrieved(
            tuple(evidence for part in found for evidence in part.evidence),
            tuple(warning for part in found for warning in part.warnings),
        )


def retrievers_over(
    corpus: KnowledgeCorpus | None,
    settings: RetrievalSettings,
    image_encoder: ImageEncoder | None,
    image_floor: float,
    predict: Predict,
) -> Retrievers:
    """Text retrieval by `settings` (`predict`: what iterative retrieval asks for mentions), image retrieval by the
    encoder that the corpus' pictures were embedded with.

    Raises:
        KnowledgeCorpusError: that is another one.
    """
    if corpus is None:
        return Retrievers(None, None)
    text, known = settings.retriever(corpus, predict), corpus.manifest.image_encoder
    if known is None or not corpus.manifest.images:
        return Retrievers(text, None, "the corpus holds no images")
    if image_encoder is None:
        return Retrievers(text, None, "the model has no image encoder")
    if known.fingerprint != image_encoder.fingerprint:
        # Raises, and says which encoder is needed.
        corpus.search_images(np.zeros((0, 1), np.float32), 1, encoder_fingerprint=image_encoder.fingerprint)
    return Retrievers(text, ImageRetriever(corpus, image_encoder, settings.k, image_floor))
