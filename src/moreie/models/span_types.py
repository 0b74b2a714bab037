"""Types for spans that are given: what an NER expert holds most probable, from its CRF marginals of the whole post."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from moreie.models.ner import NerExpert
from moreie.models.tagset import TagSet
from moreie.models.windows import cut_windows
from moreie.schema import Mention, Post


def type_log_probabilities(tagset: TagSet, log_marginals: Tensor, first: int, last: int) -> Tensor:
    """log p(type | span) [K] over `tagset.types` of the span `first..last` (inclusive) under log-marginals [T, L].

    p(type | span) ∝ Π_t p(y_t = the tag that a mention of this type over the span has at t | x).
    """
    tags = torch.tensor([tagset.span_tags(type, last - first + 1) for type in tagset.types])
    return torch.log_softmax(log_marginals[first : last + 1].gather(1, tags.T).sum(0), dim=0)


def with_types(expert: NerExpert, posts: Sequence[Post], limit: int) -> list[Post]:
    """The posts, each mention without a type given its most probable one; the expert reads no evidence.

    Posts are read in windows of at most `limit` sub-tokens. A mention that straddles two of them stays without a type.
    """
    # MNRE repeats a post for every pair of its mentions; the expert reads it once.
    texts = {_words(post): post for post in posts if any(m.type is None for m in post.mentions or ())}
    windows = cut_windows(expert.encoder, list(texts.values()), limit)
    inputs = expert.assemble([w.post for w in windows], [()] * len(windows))
    read: dict[tuple[str, ...], list[tuple[int, Tensor]]] = {words: [] for words in texts}
    keys = list(texts)
    for window, log_marginals in zip(windows, expert.log_probabilities(inputs), strict=True):
        read[keys[window.origin]].append((window.offset, log_marginals))
    return [
        post
        if post.mentions is None
        else replace(post, mentions=tuple(_typed(expert.tagset, m, read.get(_words(post), ())) for m in post.mentions))
        for post in posts
    ]


def _words(post: Post) -> tuple[str, ...]:
    return tuple(word.text for word in post.words)


def _typed(tagset: TagSet, mention: Mention, windows: Sequence[tuple[int, Tensor]]) -> Mention:
    if mention.type is not None:
        return mention
    for offset, log_marginals in windows:
        first, last = mention.first - offset, mention.last - offset
        if first >= 0 and last < len(log_marginals):
            best = int(type_log_probabilities(tagset, log_marginals, first, last).argmax())
            return replace(mention, type=tagset.types[best])
    return mention
