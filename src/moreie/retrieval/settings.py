"""How evidence is found: what a user chooses, and what an evidence file says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from moreie.errors import MoreieError
from moreie.retrieval.entity import EntityRetriever, IterativeRetriever, Predict
from moreie.retrieval.filters import Filtered
from moreie.retrieval.text import CaptionRetriever, TextRetriever

if TYPE_CHECKING:
    from moreie.knowledge.corpus import KnowledgeCorpus
    from moreie.retrieval.retrieved import Retriever

# So many more passages are asked for as filters may leave out, and as a re-ranker chooses from.
SPARE = 5
CANDIDATES = 30
Mode = Literal["sentences", "entities", "iterative", "captions", "pictures"]


class RetrievalSettings(BaseModel):
    """`sentences`: the whole post against sentences; `entities`: its names first, against titles and sentences;
    `iterative`: as `entities`, the names being those that `model` predicts without evidence; `captions`: the caption of
    its picture against introductions; `pictures`: its picture against those of articles, by `image_encoder` (the
    shipped one unless named). `rerank` names a sentence encoder or cross-encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "sentences"
    k: int = Field(default=10, ge=1)
    model: str | None = None
    image_encoder: str | None = None
    rerank: str | None = None
    cross_encoder: bool = False
    keep_copies: bool = True
    """False leaves out near-copies of the post and repetitions: for training and evaluation."""

    def retriever(self, corpus: KnowledgeCorpus, predict: Predict | None = None) -> Retriever:
        """The retriever of these settings over a corpus; `iterative` needs what predicts mentions.

        Raises:
            EncoderError: `rerank` or `image_encoder` cannot be loaded.
            MoreieError: `iterative` without `predict`.
        """
        wanted = self.k if self.keep_copies else self.k + SPARE
        found = max(wanted, CANDIDATES) if self.rerank else wanted
        retriever: Retriever
        if self.mode == "captions":
            retriever = CaptionRetriever(corpus, found)
        elif self.mode == "pictures":
            from moreie.encoders.images import ImageEncoder
            from moreie.retrieval.image import ImageRetriever
            from moreie.shipped import IMAGE_ENCODER

            retriever = ImageRetriever(corpus, ImageEncoder.from_pretrained(self.image_encoder or IMAGE_ENCODER), found)
        elif self.mode == "entities":
            retriever = EntityRetriever(corpus, found)
        elif self.mode == "iterative":
            if predict is None:
                raise MoreieError("iterative retrieval needs a model that predicts mentions")
            retriever = IterativeRetriever(corpus, predict, found)
        else:
            retriever = TextRetriever(corpus, found)
        if self.rerank:
            from moreie.retrieval.rerank import CrossEncoder, Reranked, SentenceSimilarity

            scorer = CrossEncoder if self.cross_encoder else SentenceSimilarity
            retriever = Reranked(retriever, scorer.from_pretrained(self.rerank), wanted)
        return retriever if self.keep_copies else Filtered(retriever, self.k)
