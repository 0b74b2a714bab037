"""Several retrievers' evidence as one ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moreie.retrieval.retrieved import Retrieved, Retriever, ranked
from moreie.schema import Evidence, Passage, Post

# Cormack et al. (SIGIR 2009): how little more a first rank counts than a second one.
RANK_CONSTANT = 60


def fuse(
    rows: Sequence[Sequence[Evidence]], k: int, *, weights: Sequence[float] | None = None, constant: int = RANK_CONSTANT
) -> list[tuple[Passage, float]]:
    """Reciprocal-rank fusion of rankings of one post's evidence: a passage scores Σ weight / (constant + rank).

    Raises:
        ValueError: as many weights as rankings are needed.
    """
    scores: dict[str, float] = {}
    passages: dict[str, Passage] = {}
    for row, weight in zip(rows, weights or [1.0] * len(rows), strict=True):
        for evidence in row:
            passage = evidence.passage
            passages.setdefault(passage.id, passage)
            scores[passage.id] = scores.get(passage.id, 0.0) + weight / (constant + evidence.rank)
    best = sorted(scores, key=lambda id: -scores[id])[:k]
    return [(passages[id], scores[id]) for id in best]


@dataclass(frozen=True)
class FusedRetriever:
    """Asks several retrievers and fuses what they find (`fuse`); `weights` as many as retrievers."""

    retrievers: tuple[Retriever, ...]
    k: int = 10
    weights: tuple[float, ...] | None = None
    name: str = "text"

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        found = [retriever.retrieve(posts) for retriever in self.retrievers]
        results = []
        for row in zip(*found, strict=True):
            fused = fuse([r.evidence for r in row], self.k, weights=self.weights)
            warnings = tuple(dict.fromkeys(w for r in row for w in r.warnings))
            results.append(Retrieved(ranked(fused, self.name), warnings))
        return results
