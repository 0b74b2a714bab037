"""The semi-Markov CRF against the sum over all segmentations, and the experts whose head scores spans."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.datasets import post_from_text
from moreie.encoders.text import TextEncoder
from moreie.models.assembly import View
from moreie.models.expert import EncoderPool, ExpertSpec, load_expert
from moreie.models.ner import NerExpert
from moreie.models.segments import SegmentCRF
from moreie.models.span_scores import SpanHead, SpanScores
from moreie.models.tagset import TagSet

Segments = tuple[tuple[int, int], ...]
"""(words, type) of each piece, type −1 for a word outside."""


def segmentations(words: int, longest: int, types: int) -> Iterator[Segments]:
    if words == 0:
        yield ()
        return
    pieces = [(1, -1), *itertools.product(range(1, min(longest, words) + 1), range(types))]
    for piece in pieces:
        for rest in segmentations(words - piece[0], longest, types):
            yield (piece, *rest)


def tags_of(segments: Segments, tagset: TagSet) -> list[int]:
    return [t for words, c in segments for t in ([0] if c < 0 else tagset.span_tags(tagset.types[c], words))]


def score_of(segments: Segments, scores: torch.Tensor, types: int) -> torch.Tensor:
    total, end = scores.new_zeros(()), -1
    for words, c in segments:
        end += words
        total = total + scores[end, 0 if c < 0 else 1 + (words - 1) * types + c]
    return total


@st.composite
def problems(draw: st.DrawFn) -> tuple[SegmentCRF, torch.Tensor, torch.Tensor]:
    """A CRF, scores of a batch in double precision, and lengths, the longest being all words."""
    types, longest = draw(st.integers(1, 2)), draw(st.integers(1, 4))
    lengths = torch.tensor(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    torch.manual_seed(draw(st.integers(0, 10_000)))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    scores = scale * torch.randn(len(lengths), int(lengths.max()), 1 + longest * types, dtype=torch.float64)
    return SegmentCRF(types, longest), scores, lengths


@settings(max_examples=30, deadline=None)
@given(problems())
def test_the_sums_and_the_best_are_those_of_all_segmentations(
    problem: tuple[SegmentCRF, torch.Tensor, torch.Tensor],
) -> None:
    crf, scores, lengths = problem
    tagset = TagSet(tuple("AB"[: crf.types]))
    marginals, best = crf.log_marginals(scores, lengths), crf.decode(scores, lengths)
    for row, length in enumerate(lengths.tolist()):
        ways = list(segmentations(length, crf.longest, crf.types))
        each = torch.stack([score_of(way, scores[row], crf.types) for way in ways])
        log_p = each - torch.logsumexp(each, 0)
        paths = torch.tensor([tags_of(way, tagset) for way in ways])
        expected = torch.zeros(length, len(tagset), dtype=torch.float64)
        for t in range(length):
            expected[t].index_add_(0, paths[:, t], log_p.exp())
        assert torch.allclose(marginals[row, :length].exp(), expected, atol=1e-9)
        assert best[row, :length].tolist() == paths[int(each.argmax())].tolist()
        assert not best[row, length:].any()
        for index in (0, len(ways) // 2, len(ways) - 1):
            own = torch.zeros(1, scores.shape[1], dtype=torch.long)
            own[0, :length] = paths[index]
            assert torch.allclose(
                crf.log_likelihood(scores[row : row + 1], own, lengths[row : row + 1])[0], log_p[index], atol=1e-9
            )


@settings(max_examples=10, deadline=None)
@given(problems())
def test_what_stands_behind_a_post_changes_nothing_and_has_no_gradient(
    problem: tuple[SegmentCRF, torch.Tensor, torch.Tensor],
) -> None:
    crf, scores, lengths = problem
    behind = torch.arange(scores.shape[1])[None, :] >= lengths[:, None]
    other = torch.where(behind[..., None], 1e3, scores).requires_grad_()
    tags = torch.zeros(scores.shape[:2], dtype=torch.long)
    loss = crf.log_likelihood(other, tags, lengths)
    assert torch.allclose(loss, crf.log_likelihood(scores, tags, lengths))
    loss.sum().backward()
    assert other.grad is not None
    assert torch.isfinite(other.grad).all()
    assert not other.grad[behind].any()


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    crf, lengths = SegmentCRF(2, 3), torch.tensor([4, 2])
    tags = torch.tensor([[1, 3, 0, 8], [0, 4, 0, 0]])
    scores = torch.randn(2, 4, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: crf.log_likelihood(s, tags, lengths), scores)
    assert torch.autograd.gradcheck(lambda s: crf.log_marginals(s, lengths)[0], scores)


def test_a_mention_that_is_too_long_is_impossible() -> None:
    crf = SegmentCRF(1, 2)
    scores = torch.zeros(1, 3, 3)
    assert crf.log_likelihood(scores, torch.tensor([[1, 2, 3]]), torch.tensor([3]))[0] < -1e3


@pytest.mark.parametrize("scorer", ["endpoints", "biaffine"])
def test_a_span_is_scored_by_its_ends_alone(scorer: str) -> None:
    torch.manual_seed(0)
    head = SpanHead(scorer=scorer, longest=3, hidden=8)  # type: ignore[arg-type]
    module = SpanScores(6, 2, head, dropout=0.5).eval()
    states = torch.randn(1, 5, 6)
    scores = module(states)
    moved = states.clone()
    moved[0, 2] += 1
    changed = (module(moved) != scores)[0]
    assert scores.shape == (1, 5, 7)
    # Word 2 is the first of the two-word span that ends at 3 and of the three-word span that ends at 4 …
    assert changed[3, 3:5].all()
    assert changed[4, 5:7].all()
    # … the last of those that end at 2, and in the middle of none that is changed.
    assert changed[2].all()
    assert not changed[3, 5:7].any()
    assert not changed[4, 3:5].any()


@pytest.mark.parametrize("scorer", ["endpoints", "biaffine"])
def test_an_expert_with_span_scores_is_saved_and_says_the_same(
    scorer: str, tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    head = SpanHead(scorer=scorer, longest=4)  # type: ignore[arg-type]
    spec = ExpertSpec(
        task="ner",
        name="spans",
        labels=("PER", "LOC"),
        view=View(retriever=None),
        encoder=str(tiny_encoder_folder),
        spans=head,
    )
    expert = NerExpert(spec, TextEncoder.from_pretrained(tiny_encoder_folder)).eval()
    expert.save(tmp_path / "spans")
    again = load_expert(NerExpert, tmp_path / "spans", EncoderPool())
    posts = [post_from_text("Barack Obama meets Angela Merkel in Berlin", id="a"), post_from_text("Paris", id="b")]
    said = [e.log_probabilities(e.assemble(posts, [()] * 2)) for e in (expert, again)]
    for own, read in zip(*said, strict=True):
        assert torch.equal(own, read)
        assert torch.allclose(own.exp().sum(1), torch.ones(len(own)), atol=1e-5)
