"""The articles that mentions refer to, over the corpus that is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.linking.linker import Linker
from moreie.schema import Extraction


def unlinkable(corpus: KnowledgeCorpus | None) -> str | None:
    """Why nothing can be linked to a corpus as it is now, and what to do; None where it can. Reads the corpus."""
    if corpus is None:
        return "the service has no knowledge corpus, so there is nothing to link to"
    if corpus.latest().named_keys([]) is None:
        return (
            "the corpus keeps no names of articles, which links need: `moreie corpus compact` adds them, and the "
            "service may go on meanwhile"
        )
    return None


class Links:
    """Links the mentions of extractions, in one thread at a time. The linker is made when it is first needed, and takes
    over each change of the corpus: where no anchors are kept with that state, they are counted then.

    `on_stage` hears the seconds that linking took.
    """

    def __init__(self, corpus: Callable[[], KnowledgeCorpus | None], on_stage: Callable[[str, float], None]):
        self._corpus, self._on_stage = corpus, on_stage
        self._linker: Linker | None = None

    def __call__(self, extractions: Sequence[Extraction]) -> list[Extraction]:
        """The same with `Mention.linked`. Raises `KnowledgeCorpusError` where the corpus cannot be read or linked."""
        start = time.perf_counter()
        if self._linker is None:
            corpus = self._corpus()
            if corpus is None:
                raise KnowledgeCorpusError("there is no knowledge corpus to link to")
            self._linker = Linker.for_corpus(corpus.latest())
        linked = self._linker.link_batch(extractions)
        self._on_stage("linking", time.perf_counter() - start)
        return linked
