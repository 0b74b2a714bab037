"""BIOES tags over a set of entity types, and which of their sequences are legal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from moreie.errors import MoreieError
from moreie.schema import Mention

OUTSIDE = 0
Span = tuple[str, int, int]
"""(type, first word, last word)"""


@dataclass(frozen=True)
class TagSet:
    """Tags `O, B-x, I-x, E-x, S-x, …` in the order of `types`; L = 1 + 4 · len(types)."""

    types: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.types or len(set(self.types)) != len(self.types):
            raise MoreieError(f"entity types must be distinct and at least one; got {list(self.types)}")

    @cached_property
    def tags(self) -> tuple[str, ...]:
        return ("O", *(f"{part}-{type}" for type in self.types for part in "BIES"))

    def __len__(self) -> int:
        return len(self.tags)

    def encode(self, mentions: Iterable[Mention], words: int) -> list[int]:
        """Tag index of each of `words` words. Raises `MoreieError` on an unknown type or overlapping mentions."""
        path = [OUTSIDE] * words
        for mention in mentions:
            if mention.type not in self.types:
                raise MoreieError(f"entity type {mention.type!r} is unknown; the model knows {', '.join(self.types)}")
            if any(path[mention.first : mention.last + 1]):
                raise MoreieError(f"mentions overlap at word {mention.first}: a flat tag sequence cannot hold both")
            path[mention.first : mention.last + 1] = self.span_tags(mention.type, mention.last - mention.first + 1)
        return path

    def span_tags(self, type: str, words: int) -> list[int]:
        """Tag index of each word of a mention that is `words` long: S, or B, I …, E."""
        base = 1 + 4 * self.types.index(type)
        return [base + 3] if words == 1 else [base, *[base + 1] * (words - 2), base + 2]

    def spans(self, path: Sequence[int]) -> list[Span]:
        """Each complete mention in a path; stray I or E tags are left out."""
        found: list[Span] = []
        opened: tuple[int, int] | None = None
        for position, tag in enumerate(path):
            type, part = divmod(tag - 1, 4)
            if tag == OUTSIDE:
                opened = None
            elif part == 3:
                found.append((self.types[type], position, position))
                opened = None
            elif part == 0:
                opened = (type, position)
            elif opened is None or opened[0] != type:
                opened = None
            elif part == 2:
                found.append((self.types[type], opened[1], position))
                opened = None
        return found

    @cached_property
    def start_allowed(self) -> Tensor:
        """[L] bool: may a sequence begin with the tag?"""
        return torch.tensor([tag[0] in "OBS" for tag in self.tags])

    @cached_property
    def end_allowed(self) -> Tensor:
        """[L] bool: may a sequence end with the tag?"""
        return torch.tensor([tag[0] in "OES" for tag in self.tags])

    @cached_property
    def transitions_allowed(self) -> Tensor:
        """[L, L] bool: may the second tag follow the first?"""

        def legal(a: str, b: str) -> bool:
            if a[0] in "BI":
                return b[0] in "IE" and a[2:] == b[2:]
            return b[0] in "OBS"

        return torch.tensor([[legal(a, b) for b in self.tags] for a in self.tags])
