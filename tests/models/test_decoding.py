import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moreie.models.decoding import (
    decode_spans,
    decode_tags,
    decode_tags_per_position,
    f1_threshold,
    span_confidences,
)
from moreie.models.tagset import Span, TagSet

TAGSET = TagSet(("PER", "LOC"))


def distributions(words: int, seed: int, sharpness: float = 1.0) -> Tensor:
    """Log-marginals [T, L] of nobody in particular."""
    scores = torch.randn(words, len(TAGSET), generator=torch.Generator().manual_seed(seed))
    return torch.log_softmax(sharpness * scores, dim=1)


def probability(log_p: Tensor, span: Span) -> float:
    """The least marginal of the span's tags."""
    type, first, last = span
    tags = TAGSET.span_tags(type, last - first + 1)
    return min(float(log_p[first + n, tag].exp()) for n, tag in enumerate(tags))


def test_constrained_decoding_finds_the_best_legal_path() -> None:
    log_p = distributions(3, 5)
    (path,) = decode_tags(TAGSET, [log_p])
    legal = [
        c
        for c in itertools.product(range(len(TAGSET)), repeat=3)
        if TAGSET.start_allowed[c[0]]
        and TAGSET.end_allowed[c[2]]
        and all(TAGSET.transitions_allowed[a, b] for a, b in itertools.pairwise(c))
    ]
    assert tuple(path) == max(legal, key=lambda c: sum(float(log_p[t, y]) for t, y in enumerate(c)))
    assert decode_tags_per_position([log_p]) == [log_p.argmax(1).tolist()]
    assert decode_tags(TAGSET, []) == []


def test_a_confidence_is_the_geometric_mean_of_the_marginals_of_a_mentions_tags() -> None:
    log_p = distributions(3, 5)
    spans = [[("LOC", 0, 2)], [("PER", 1, 1), ("LOC", 1, 2)]]
    (whole,), (middle, last) = span_confidences(TAGSET, torch.cat([log_p, log_p]), [3, 3], spans)
    assert whole == pytest.approx(float(log_p[[0, 1, 2], TAGSET.span_tags("LOC", 3)].mean().exp()))
    assert middle == pytest.approx(float(log_p[1, TAGSET.span_tags("PER", 1)[0]].exp()))
    assert last == pytest.approx(float(log_p[[1, 2], TAGSET.span_tags("LOC", 2)].mean().exp()))
    assert span_confidences(TAGSET, log_p, [3], [[]]) == [[]]


@given(
    lengths=st.lists(st.integers(1, 4), max_size=3),
    seed=st.integers(0, 1000),
    sharpness=st.sampled_from([0.5, 2.0, 5.0]),
    threshold=st.sampled_from([0.02, 0.1, 0.3, 0.45, 0.6]),
)
def test_spans_are_those_with_the_largest_sum_of_what_they_exceed_the_threshold_by(
    lengths: list[int], seed: int, sharpness: float, threshold: float
) -> None:
    posts = [distributions(words, seed + n, sharpness) for n, words in enumerate(lengths)]
    answers = decode_spans(TAGSET, posts, threshold)
    assert len(answers) == len(posts)
    for log_p, chosen in zip(posts, answers, strict=True):
        words = len(log_p)
        every = [(type, first, last) for type in TAGSET.types for first in range(words) for last in range(first, words)]
        gain = {span: probability(log_p, span) - threshold for span in every}

        def best(after: int, gain: dict[Span, float] = gain) -> float:
            """The largest sum of spans that begin at `after` or later."""
            return max(
                (g + best(span[2] + 1, gain) for span, g in gain.items() if span[1] >= after and g > 0), default=0
            )

        assert sum(gain[span] for span in chosen) == pytest.approx(best(0), abs=1e-5)
        assert all(gain[span] > 0 for span in chosen)
        assert all(a[2] < b[1] for a, b in itertools.pairwise(chosen)), "in the order of the text, none overlapping"


def test_where_probabilities_are_right_half_of_f1_is_the_threshold_to_take() -> None:
    """Words are mentions as often as is said of them."""
    g = torch.Generator().manual_seed(1)
    p = torch.rand(20_000, generator=g) ** 2
    gold = [[("PER", 0, 0)] if hit else [] for hit in (torch.rand(len(p), generator=g) < p).tolist()]
    rows = torch.full((len(p), len(TAGSET)), 1e-9)
    rows[:, TAGSET.span_tags("PER", 1)[0]], rows[:, 0] = p, 1 - p
    posts = list(rows.log()[:, None])

    def f1(threshold: float) -> float:
        answers = decode_spans(TAGSET, posts, threshold)
        right = sum(a == b for a, b in zip(answers, gold, strict=True) if a)
        return 2 * right / (sum(map(len, answers)) + sum(map(len, gold)))

    by_path = 2 * f1_threshold(TAGSET, posts, gold)
    assert by_path == pytest.approx(f1(0.5), abs=1e-6), "one word a post: the likeliest path is what exceeds one half"
    best = max(f1(step / 50) for step in range(50))
    assert best - 0.003 < f1(by_path / 2) > by_path + 0.01


def test_where_nothing_is_said_or_right_there_is_no_threshold() -> None:
    assert decode_spans(TAGSET, [], 0.4) == []
    assert f1_threshold(TAGSET, [], []) == 0
    assert f1_threshold(TAGSET, [distributions(2, 0)], [[]]) == 0
