"""What each expert of a mixture would answer alone, decoded as the mixture's own answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from moreie.models.decoding import decode, span_confidences
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert
from moreie.models.outputs import ExpertOutputs
from moreie.models.relation import RelationExpert
from moreie.models.temperature import scaled
from moreie.models.windows import Window
from moreie.pairs import AskedPairs, chosen_relations
from moreie.schema import Mention, Post, Relation


def found_mentions(
    mixture: Mixture[NerExpert], posts: Sequence[Post], windows: Sequence[Window], log_marginals: Sequence[Tensor]
) -> list[list[Mention]]:
    """The mentions of each post that log-marginals [T, L] of its windows give, in the order of the text."""
    mentions: list[list[Mention]] = [[] for _ in posts]
    if not log_marginals:
        return mentions
    tagset = mixture.experts[0].tagset
    spans = decode(tagset, log_marginals, mixture.threshold)
    rows = scaled(torch.cat(list(log_marginals)), mixture.temperature)
    confidences = span_confidences(tagset, rows, [len(p) for p in log_marginals], spans)
    for window, found, sure in zip(windows, spans, confidences, strict=True):
        post = posts[window.origin]
        mentions[window.origin] += [
            post.mention(type, first + window.offset, last + window.offset, confidence)
            for (type, first, last), confidence in zip(found, sure, strict=True)
        ]
    return mentions


def mentions_of_experts(
    mixture: Mixture[NerExpert], posts: Sequence[Post], windows: Sequence[Window], outputs: ExpertOutputs
) -> list[dict[str, tuple[Mention, ...]]]:
    """For each post, by expert: its own mentions. An expert that spoke of no window of a post is left out."""
    answers: list[dict[str, tuple[Mention, ...]]] = [{} for _ in posts]
    for name, column in zip(outputs.names, outputs.log_probabilities, strict=True):
        said = [(window, log_p) for window, log_p in zip(windows, column, strict=True) if log_p is not None]
        own_windows = [window for window, _ in said]
        mentions = found_mentions(mixture, posts, own_windows, [log_p for _, log_p in said])
        for origin in sorted({window.origin for window in own_windows}):
            answers[origin][name] = tuple(mentions[origin])
    return answers


def relations_of_experts(
    mixture: Mixture[RelationExpert], asked: AskedPairs, outputs: ExpertOutputs, posts: int
) -> list[dict[str, tuple[Relation, ...]]]:
    """For each post, by expert: its own choice among the pairs asked about. One that spoke of none is left out."""
    answers: list[dict[str, tuple[Relation, ...]]] = [{} for _ in range(posts)]
    for name, column in zip(outputs.names, outputs.log_probabilities, strict=True):
        said = [p for p, log_p in enumerate(column) if log_p is not None]
        own = replace(
            asked,
            triples=tuple(asked.triples[p] for p in said),
            places=tuple(asked.places[p] for p in said),
            windows=tuple(asked.windows[p] for p in said),
        )
        relations = chosen_relations(mixture, own, [log_p for log_p in column if log_p is not None], posts)
        for origin in sorted({origin for origin, _, _ in own.places}):
            answers[origin][name] = tuple(relations[origin])
    return answers
