"""The Linker: extractions in; the same with the article that each mention refers to out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.linking.anchors import AnchorStatistics
from moreie.linking.candidates import Candidates, MentionsInText, gather
from moreie.linking.counting import anchors_of
from moreie.linking.features import article_features, nil_features
from moreie.linking.model import LinkingWeights
from moreie.schema import Extraction, LinkedArticle


class Linker:
    """Says which article of a corpus a mention refers to, or that it is none of them (NIL).

    A corpus folder that somebody changes is seen in its new state from the next batch on.

    Example:
        >>> linker = Linker.for_corpus("wiki")                                    # doctest: +SKIP
        >>> extraction = linker.link(extractor.extract("Kawhi Leonard wins"))     # doctest: +SKIP
        >>> extraction.mentions[0].linked.title                                   # doctest: +SKIP
        'Kawhi Leonard'
    """

    def __init__(self, corpus: KnowledgeCorpus, anchors: AnchorStatistics, weights: LinkingWeights):
        self.corpus, self.anchors, self.weights = corpus, anchors, weights

    @classmethod
    def for_corpus(cls, corpus: KnowledgeCorpus | str | Path, weights: LinkingWeights | None = None) -> Linker:
        """A linker over a corpus with the anchors kept beside it, else counted now; weights: those shipped.

        Raises:
            KnowledgeCorpusError: no corpus there, or it keeps no names of articles.
        """
        opened = corpus if isinstance(corpus, KnowledgeCorpus) else KnowledgeCorpus.open(corpus)
        if opened.named_keys([]) is None:
            raise KnowledgeCorpusError(
                f"{opened.location}: keeps no names of articles, which linking needs; `moreie corpus compact` adds them"
            )
        return cls(opened, anchors_of(opened), weights or LinkingWeights.read())

    def link(self, extraction: Extraction) -> Extraction:
        """The extraction with what each of its mentions refers to (`Mention.linked`)."""
        return self.link_batch([extraction])[0]

    def link_batch(self, extractions: Sequence[Extraction]) -> list[Extraction]:
        """As `link`, for many; the corpus is asked for all of them at once."""
        self._renew()
        answers = self.answers([MentionsInText(e.text, e.mentions, e.evidence) for e in extractions])
        return [
            replace(e, mentions=tuple(replace(m, linked=a) for m, a in zip(e.mentions, own, strict=True)))
            for e, own in zip(extractions, answers, strict=True)
        ]

    def stream(self, extractions: Iterable[Extraction], batch_size: int = 64) -> Iterator[Extraction]:
        """Extractions linked as their batches are done."""
        rest = iter(extractions)
        while batch := list(islice(rest, batch_size)):
            yield from self.link_batch(batch)

    def answers(self, texts: Sequence[MentionsInText]) -> list[list[LinkedArticle]]:
        """What each mention of each text refers to."""
        return [
            [self.answer(text.text, found) for found in row]
            for text, row in zip(texts, gather(self.corpus, self.anchors, texts), strict=True)
        ]

    def answer(self, text: str, found: Candidates) -> LinkedArticle:
        """The likeliest of a mention's candidates, or none where that is not likely enough."""
        sure = self.weights.probabilities(article_features(text, found, self.anchors), nil_features(found))
        best = int(np.argmax(sure[:-1])) if found.articles else -1
        if best < 0 or sure[best] < self.weights.threshold:
            return LinkedArticle(None, None, None, float(sure[-1]))
        passage = found.articles[best].passage
        return LinkedArticle(passage.article_id, passage.title, passage.url, float(sure[best]))

    def _renew(self) -> None:
        """Go over to the corpus' latest state, and its anchors."""
        if (latest := self.corpus.latest()) is not self.corpus:
            self.corpus, self.anchors = latest, anchors_of(latest)
