"""The pairs of mentions that a relation mixture is asked about, and the relations chosen from its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def asked_pairs(windows: Sequence[Window], mentions: Sequence[Sequence[Mention]], labels: Sequence[str]) -> AskedPairs:
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
    labels = mixture.labels
    best: dict[tuple[int, int, int], tuple[float, Relation]] = {}
    for (origin, head, tail), (_, a, b), log_p in zip(asked.places, asked.triples, log_probabilities, strict=True):
        own = against_the_text(log_p, labels, a, b, mixture.reversed_none)
        choice = int(own.masked_fill(~admissible(labels, a.type, b.type), -torch.inf).argmax())
        if labels[choice] == NO_RELATION:
            continue
        key = (origin, min(head, tail), max(head, tail))
        # The direction is chosen before scaling, which may order two distributions anew.
        if key not in best or float(own[choice]) > best[key][0]:
            confidence = float(scaled(own, mixture.temperature)[choice].exp())
            best[key] = float(own[choice]), Relation(head, tail, labels[choice], confidence)
    relations: list[list[Relation]] = [[] for _ in range(posts)]
    for (origin, _, _), (_, relation) in sorted(best.items()):
        relations[origin].append(relation)
    return relations


def _joinable(window: Window, mentions: Sequence[Mention], labels: Sequence[str]) -> list[tuple[int, int]]:
    inside = [i for i, m in enumerate(mentions) if window.holds(m)]
    types = {(mentions[a].type, mentions[b].type) for a in inside for b in inside if a != b}
    none = [label == NO_RELATION for label in labels]
    possible = {pair for pair in types if (admissible(labels, *pair) & ~torch.tensor(none)).any()}
    return [(a, b) for a in inside for b in inside if a != b and (mentions[a].type, mentions[b].type) in possible]
