"""The pairs of mentions that a relation mixture is asked about, and the relations chosen from its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from moreie.models.mixture import Mixture
from moreie.models.relation import RelationExpert, admissible, against_the_text
from moreie.models.temperature import scaled
from moreie.models.windows import Window
from moreie.schema import NO_RELATION, Mention, Post, Relation

# Pairs of mentions asked about per post, nearest first: a long text holds thousands.
PAIR_LIMIT = 256


@dataclass(frozen=True)
class AskedPairs:
    """P pairs: as the experts read them, (post, head, tail) as indices of posts and mentions, and their windows.

    `notes`: what is to be said of a post.
    """

    triples: tuple[tuple[Post, Mention, Mention], ...]
    places: tuple[tuple[int, int, int], ...]
    windows: tuple[int, ...]
    notes: tuple[tuple[int, str], ...]


def asked_pairs(
    windows: Sequence[Window], mentions: Sequence[Sequence[Mention]], labels: tuple[str, ...]
) -> AskedPairs:
    """Ordered pairs of each post's `mentions` in one window that some relation may join, the nearest of them."""
    pairs: list[list[tuple[int, int, int]]] = [[] for _ in mentions]
    for w, window in enumerate(windows):
        pairs[window.origin] += [(w, *pair) for pair in _joinable(window, mentions[window.origin], labels)]
    triples, places, own_windows, notes = [], [], [], []
    for origin, (found, own) in enumerate(zip(pairs, mentions, strict=True)):
        found.sort(key=lambda pair, own=own: abs(own[pair[1]].first - own[pair[2]].first))  # type: ignore[misc]
        if len(found) > PAIR_LIMIT:
            notes.append((origin, f"{len(found)} mention pairs: relations sought in the {PAIR_LIMIT} nearest"))
        for w, head, tail in found[:PAIR_LIMIT]:
            triples.append((windows[w].post, windows[w].inside(own[head]), windows[w].inside(own[tail])))
            places.append((origin, head, tail))
            own_windows.append(w)
    return AskedPairs(tuple(triples), tuple(places), tuple(own_windows), tuple(notes))


def chosen_relations(
    mixture: Mixture[RelationExpert], asked: AskedPairs, log_probabilities: Sequence[Tensor], posts: int
) -> list[list[Relation]]:
    """The relations of each post: of a pair's two directions the likelier one, where it is a relation."""
    if not asked.triples:
        return [[] for _ in range(posts)]
    labels = mixture.labels
    pairs = [(head, tail) for _, head, tail in asked.triples]
    said = against_the_text(torch.stack(list(log_probabilities)), labels, pairs, mixture.reversed_none)
    allowed = torch.tensor([admissible(labels, head.type, tail.type) for head, tail in pairs])
    choices = said.masked_fill(~allowed, -torch.inf).argmax(1)
    # The direction is chosen before scaling, which may order two distributions anew.
    sure, confidences = (
        rows.gather(1, choices[:, None])[:, 0].tolist() for rows in (said, scaled(said, mixture.temperature).exp())
    )
    best: dict[tuple[int, int, int], tuple[float, Relation]] = {}
    for p, ((origin, head, tail), choice) in enumerate(zip(asked.places, choices.tolist(), strict=True)):
        key = (origin, min(head, tail), max(head, tail))
        if labels[choice] != NO_RELATION and (key not in best or sure[p] > best[key][0]):
            best[key] = sure[p], Relation(head, tail, labels[choice], confidences[p])
    relations: list[list[Relation]] = [[] for _ in range(posts)]
    for (origin, _, _), (_, relation) in sorted(best.items()):
        relations[origin].append(relation)
    return relations


def _joinable(window: Window, mentions: Sequence[Mention], labels: tuple[str, ...]) -> list[tuple[int, int]]:
    inside = [i for i, m in enumerate(mentions) if window.holds(m)]
    return [
        (a, b) for a in inside for b in inside if a != b and _may_be_related(labels, mentions[a].type, mentions[b].type)
    ]


@lru_cache(maxsize=4096)
def _may_be_related(labels: tuple[str, ...], head: str | None, tail: str | None) -> bool:
    return any(
        fits and label != NO_RELATION for label, fits in zip(labels, admissible(labels, head, tail), strict=True)
    )
