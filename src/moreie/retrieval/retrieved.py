"""What a retriever gives back for one post."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moreie.schema import Evidence, Passage, Post


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Evidence, best first, and why it may be less than asked for."""

    evidence: tuple[Evidence, ...]
    warnings: tuple[str, ...] = ()


class Retriever(Protocol):
    """Anything that finds evidence for posts; `name` is what expert views and results call it."""

    @property
    def name(self) -> str: ...

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]: ...


def ranked(found: Sequence[tuple[Passage, float]], retriever: str) -> tuple[Evidence, ...]:
    """Evidence of hits in their order."""
    return tuple(Evidence(passage, retriever, rank, score) for rank, (passage, score) in enumerate(found, 1))
