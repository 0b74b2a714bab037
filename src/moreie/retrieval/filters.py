"""What should not be evidence: copies of the post itself, and passages that say the same again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moreie.knowledge.names import normal_name
from moreie.retrieval.retrieved import Retrieved, Retriever, ranked
from moreie.schema import Evidence, Post

SHINGLE = 4  # words
# Share of a post's shingles in a passage from which on the passage quotes the post.
COPY = 0.5
# A shorter post shares its few shingles with anything.
SHORTEST_POST = 8
# Share of the shorter passage's shingles in the longer one from which on they say the same.
SAME = 0.8


@dataclass(frozen=True, slots=True)
class Filtered:
    """Another retriever's evidence without near-copies of the post (a leak of what is to be extracted, when a model is
    trained or tested) and without passages that repeat a better one.

    What is left out is said in the warnings. Give the retriever a larger k than this one.
    """

    retriever: Retriever
    k: int = 10

    @property
    def name(self) -> str:
        return self.retriever.name

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        return [self._filtered(p, r) for p, r in zip(posts, self.retriever.retrieve(posts), strict=True)]

    def _filtered(self, post: Post, found: Retrieved) -> Retrieved:
        kept = without_copies(post, found.evidence)
        copies = len(found.evidence) - len(kept)
        distinct = without_repetitions(kept)
        warnings = (
            *found.warnings,
            *([f"{copies} near-copies of the post left out of its evidence"] if copies else []),
        )
        best = [(e.passage, e.score) for e in distinct[: self.k]]
        return Retrieved(ranked(best, self.name), warnings)


def without_copies(post: Post, evidence: Sequence[Evidence], share: float = COPY) -> list[Evidence]:
    """Evidence less passages that hold at least this share of the post's runs of `SHINGLE` words."""
    own = shingles(post.text)
    if len(own) < SHORTEST_POST - SHINGLE + 1:
        return list(evidence)
    return [e for e in evidence if len(own & shingles(e.passage.text)) < share * len(own)]


def without_repetitions(evidence: Sequence[Evidence], share: float = SAME) -> list[Evidence]:
    """Evidence less passages of which at least this share of the runs of words stands in a better-ranked one, or that
    say a better-ranked one over again."""
    kept: list[Evidence] = []
    seen: list[frozenset[str]] = []
    for e in evidence:
        own = shingles(e.passage.text)
        if any(len(own & other) >= share * max(1, min(len(own), len(other))) for other in seen):
            continue
        kept.append(e)
        seen.append(own)
    return kept


def shingles(text: str) -> frozenset[str]:
    """Runs of `SHINGLE` words in normal form; of a shorter text the whole."""
    words = normal_name(text).split()
    if len(words) <= SHINGLE:
        return frozenset([" ".join(words)])
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))
