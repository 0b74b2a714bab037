"""The CRF against enumeration of all paths, and against an independent implementation."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.models.crf import IMPOSSIBLE, LinearChainCRF, log_marginals, log_partition, log_score, viterbi
from moreie.models.tagset import TagSet

shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 4), st.integers(0, 10_000))


def random_case(shape: tuple[int, int, int, int]) -> tuple[torch.Tensor, ...]:
    batch, words, tags, seed = shape
    g = torch.Generator().manual_seed(seed)
    emissions = 3 * torch.randn(batch, words, tags, generator=g, dtype=torch.float64)
    lengths = torch.randint(1, words + 1, (batch,), generator=g)
    lengths[0] = words
    transitions, start, end = (
        2 * torch.randn(*s, generator=g, dtype=torch.float64) for s in ((tags, tags), (tags,), (tags,))
    )
    return emissions, lengths, transitions, start, end


def all_paths(
    emissions: torch.Tensor, length: int, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> dict[tuple[int, ...], torch.Tensor]:
    """Score of every path of one post, written without any of the code under test."""
    scores = {}
    for path in itertools.product(range(emissions.shape[1]), repeat=length):
        score = start[path[0]] + end[path[-1]] + sum(emissions[t, y] for t, y in enumerate(path))
        scores[path] = score + sum(transitions[a, b] for a, b in itertools.pairwise(path))
    return scores


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_partition_marginals_and_viterbi_equal_enumeration(shape: tuple[int, int, int, int]) -> None:
    emissions, lengths, transitions, start, end = random_case(shape)
    log_z = log_partition(emissions, lengths, transitions, start, end)
    marginals = log_marginals(emissions, lengths, transitions, start, end).exp()
    best, best_score = viterbi(emissions, lengths, transitions, start, end)
    for n, length in enumerate(lengths.tolist()):
        scores = all_paths(emissions[n], length, transitions, start, end)
        expected = torch.logsumexp(torch.stack(list(scores.values())), 0)
        assert abs(log_z[n] - expected) <= 1e-5
        for t in range(length):
            for tag in range(emissions.shape[2]):
                share = sum((s - expected).exp() for path, s in scores.items() if path[t] == tag)
                assert abs(marginals[n, t, tag] - share) <= 1e-5
        assert abs(best_score[n] - max(scores.values())) <= 1e-5
        assert abs(scores[tuple(best[n, :length].tolist())] - best_score[n]) <= 1e-5
        assert (best[n, length:] == 0).all()
        path = torch.tensor([next(iter(scores))])
        padded = torch.cat([path, torch.zeros(1, emissions.shape[1] - length, dtype=torch.long)], 1)
        one = log_score(emissions[n : n + 1], padded, lengths[n : n + 1], transitions, start, end)
        assert abs(one[0] - scores[tuple(path[0].tolist())]) <= 1e-5


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_equals_pytorch_crf(shape: tuple[int, int, int, int]) -> None:
    torchcrf = pytest.importorskip("torchcrf", reason="pytorch-crf, the independent implementation, is not installed")
    emissions, lengths, transitions, start, end = random_case(shape)
    peer = torchcrf.CRF(emissions.shape[2], batch_first=True).double()
    with torch.no_grad():
        peer.transitions.copy_(transitions)
        peer.start_transitions.copy_(start)
        peer.end_transitions.copy_(end)
    mask = torch.arange(emissions.shape[1])[None] < lengths[:, None]
    tags = torch.randint(0, emissions.shape[2], mask.shape, generator=torch.Generator().manual_seed(shape[3]))
    theirs = peer(emissions, tags, mask=mask, reduction="none")
    ours = log_score(emissions, tags, lengths, transitions, start, end) - log_partition(
        emissions, lengths, transitions, start, end
    )
    assert torch.allclose(ours, theirs, atol=1e-9)
    _, scores = viterbi(emissions, lengths, transitions, start, end)
    for n, path in enumerate(peer.decode(emissions, mask=mask)):
        again = torch.tensor([path + [0] * (emissions.shape[1] - len(path))])
        their_score = log_score(emissions[n : n + 1], again, lengths[n : n + 1], transitions, start, end)
        assert abs(their_score[0] - scores[n]) <= 1e-9
        assert len(path) == lengths[n]


def test_marginals_are_the_gradient_of_the_partition_function() -> None:
    emissions, lengths, transitions, start, end = random_case((3, 5, 4, 7))
    emissions.requires_grad_()
    log_partition(emissions, lengths, transitions, start, end).sum().backward()
    marginals = log_marginals(emissions, lengths, transitions, start, end).exp()
    real = (torch.arange(5)[None] < lengths[:, None])[..., None]
    assert torch.allclose(emissions.grad, torch.where(real, marginals, 0.0), atol=1e-9)


def test_padding_changes_nothing() -> None:
    emissions, _, transitions, start, end = random_case((2, 5, 3, 3))
    lengths = torch.tensor([5, 2])
    padded = emissions.clone()
    padded[1, 2:] = 1e3
    for function in (log_partition, log_marginals):
        a, b = (function(e, lengths, transitions, start, end)[1] for e in (emissions, padded))
        assert torch.equal(a[:2] if a.ndim else a, b[:2] if b.ndim else b)
    alone = log_partition(emissions[1:, :2], torch.tensor([2]), transitions, start, end)
    assert torch.allclose(alone, log_partition(padded, lengths, transitions, start, end)[1:])


def test_module_gives_illegal_paths_no_probability_and_learns() -> None:
    tagset = TagSet(("PER", "LOC"))
    crf = LinearChainCRF(tagset.start_allowed, tagset.transitions_allowed, tagset.end_allowed)
    emissions = torch.randn(4, 6, len(tagset), generator=torch.Generator().manual_seed(0)) * 4
    lengths = torch.tensor([6, 1, 3, 6])
    marginals = crf.log_marginals(emissions, lengths).exp()
    assert torch.allclose(marginals.sum(2), torch.ones(4, 6), atol=1e-4)
    assert marginals[:, 0][:, ~tagset.start_allowed].max() < 1e-6
    for path, length in zip(crf.decode(emissions, lengths), lengths.tolist(), strict=True):
        tags = path[:length].tolist()
        assert tagset.start_allowed[tags[0]]
        assert tagset.end_allowed[tags[-1]]
        assert all(tagset.transitions_allowed[a, b] for a, b in itertools.pairwise(tags))
    gold = torch.tensor([[1, 2, 3, 0, 0, 4]])
    own = emissions[:1].clone()
    optimiser = torch.optim.SGD(crf.parameters(), lr=0.5)
    before = crf.log_likelihood(own, gold, lengths[:1])
    for _ in range(20):
        optimiser.zero_grad()
        (-crf.log_likelihood(own, gold, lengths[:1]).sum()).backward()
        optimiser.step()
    assert crf.log_likelihood(own, gold, lengths[:1]) > before
    assert all(torch.isfinite(p.grad).all() for p in crf.parameters())
    assert crf.scores()[1].min() == IMPOSSIBLE
