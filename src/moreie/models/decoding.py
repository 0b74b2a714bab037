"""From mixed marginals of tags to mentions: by path, by position, or by span.

Notation: log-marginals [T, L] of a post are log p(y_t | x) over BIOES tags.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, islice

import torch
from torch import Tensor

from moreie.models.crf import IMPOSSIBLE, viterbi
from moreie.models.tagset import Span, TagSet


def decode(tagset: TagSet, log_marginals: Sequence[Tensor], threshold: float | None) -> list[list[Span]]:
    """The mentions of each post: by span where there is a threshold (of a mixture), along the best legal path else."""
    if threshold is not None:
        return decode_spans(tagset, log_marginals, threshold)
    return [tagset.spans(path) for path in decode_tags(tagset, log_marginals)]


def decode_tags(tagset: TagSet, log_marginals: Sequence[Tensor]) -> list[list[int]]:
    """Best legal BIOES path of each post under mixed log-marginals [T, L]: Viterbi with legality as transitions."""
    if not log_marginals:
        return []
    transitions = torch.zeros(len(tagset), len(tagset)).masked_fill(~tagset.transitions_allowed, IMPOSSIBLE)
    start = torch.zeros(len(tagset)).masked_fill(~tagset.start_allowed, IMPOSSIBLE)
    end = torch.zeros(len(tagset)).masked_fill(~tagset.end_allowed, IMPOSSIBLE)
    lengths = torch.tensor([len(p) for p in log_marginals])
    padded = torch.nn.utils.rnn.pad_sequence(list(log_marginals), batch_first=True).clamp_min(IMPOSSIBLE / 10)
    paths, _ = viterbi(padded, lengths, transitions, start, end)
    return [path[: len(p)] for path, p in zip(paths.tolist(), log_marginals, strict=True)]


def decode_tags_per_position(log_marginals: Sequence[Tensor]) -> list[list[int]]:
    """The paper's decoding: the arg-max at each position, legal or not."""
    return [p.argmax(1).tolist() for p in log_marginals]


def decode_spans(tagset: TagSet, log_marginals: Sequence[Tensor], threshold: float) -> list[list[Span]]:
    """The mentions of each post that expected F1 asks for: spans that do not overlap, with the largest sum of p − θ.

    F1 is expected to be highest where everything is answered that is more probable than half of the F1 itself (Lipton
    et al., *Optimal Thresholding of Classifiers to Maximize F1 Measure*, 2014): θ = `threshold`, see `f1_threshold`.
    p of a span is the least of its tags' marginals, which it cannot exceed.
    """
    found: list[list[tuple[float, Span]]] = [[] for _ in log_marginals]
    if not log_marginals:
        return []
    lengths = torch.tensor([len(p) for p in log_marginals])
    post = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    past = lengths.cumsum(0)[post]  # the row behind the post's last word
    offset = past - lengths[post]
    probabilities = torch.cat(list(log_marginals)).exp()
    begin, inside, end, single = (probabilities[:, 1 + part :: 4] for part in range(4))

    def keep(row: Tensor, type: Tensor, words: int, p: Tensor) -> None:
        places = (post[row], type, row - offset[row], p)
        for n, c, first, probability in zip(*(x.tolist() for x in places), strict=True):
            found[n].append((probability - threshold, (tagset.types[c], first, first + words - 1)))

    row, type = torch.nonzero(single > threshold, as_tuple=True)
    keep(row, type, 1, single[row, type])
    row, type = torch.nonzero(begin > threshold, as_tuple=True)
    open, words = begin[row, type], 1
    while len(row):
        goes_on = row + words < past[row]
        row, type, open = row[goes_on], type[goes_on], open[goes_on]
        closed = torch.minimum(open, end[row + words, type])
        keep(row[closed > threshold], type[closed > threshold], words + 1, closed[closed > threshold])
        open = torch.minimum(open, inside[row + words, type])
        row, type, open = row[open > threshold], type[open > threshold], open[open > threshold]
        words += 1
    return [_best_apart(own) for own in found]


def _best_apart(gains: list[tuple[float, Span]]) -> list[Span]:
    """The spans with the largest sum of gains of which no two overlap, in the order of the text."""
    by_end = sorted(gains, key=lambda found: (found[1][2], found[1][1]))
    ends = [span[2] for _, span in by_end]
    before = [bisect_right(ends, span[1] - 1) for _, span in by_end]
    best = [0.0]  # of the first n spans
    for (gain, _), n in zip(by_end, before, strict=True):
        best.append(max(best[-1], best[n] + gain))
    chosen, n = [], len(by_end)
    while n:
        if best[n] > best[n - 1]:
            chosen.append(by_end[n - 1][1])
            n = before[n - 1]
        else:
            n -= 1
    return chosen[::-1]


def f1_threshold(tagset: TagSet, log_marginals: Sequence[Tensor], gold: Sequence[Sequence[Span]]) -> float:
    """Half of the F1 (of 1) that the best legal paths have: what spans are to exceed on posts like these."""
    answers = decode(tagset, log_marginals, None)
    right = sum(len(set(said) & set(own)) for said, own in zip(answers, gold, strict=True))
    total = sum(map(len, answers)) + sum(map(len, gold))
    return right / total if total else 0.0


def span_confidences(
    tagset: TagSet, log_marginals: Tensor, lengths: Sequence[int], spans: Sequence[Sequence[Span]]
) -> list[list[float]]:
    """Geometric means of the marginals of spans' tags: between 0 and 1, whatever a span's length.

    `log_marginals` [R, L]: those of all posts, one post after the other, of `lengths` words each.
    """
    rows: list[int] = []
    tags: list[int] = []
    for start, own in zip(accumulate(lengths, initial=0), spans, strict=False):
        for type, first, last in own:
            rows += range(start + first, start + last + 1)
            tags += tagset.span_tags(type, last - first + 1)
    said = iter(log_marginals[rows, tags].tolist())
    return [
        [math.exp(sum(islice(said, last + 1 - first)) / (last + 1 - first)) for _, first, last in own] for own in spans
    ]
