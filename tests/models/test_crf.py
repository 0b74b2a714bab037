"""The CRF against enumeration of all paths, and against an independent implementation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moreie.models import crf, crf_kernels
from moreie.models.crf import (
    IMPOSSIBLE,
    LinearChainCRF,
    log_likelihood,
    log_marginals,
    log_partition,
    log_score,
    viterbi,
)
from moreie.models.tagset import TagSet

shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 4), st.integers(0, 10_000))


@pytest.fixture
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the functions under test use the kernels, as installed or else compiled for the tests."""
    if not request.param:
        monkeypatch.setattr(crf_kernels, "take", lambda *_: False)
    elif not crf_kernels.load():
        found = crf_kernels.load(request.getfixturevalue("kernels_folder"))
        monkeypatch.setattr(crf_kernels, "load", lambda: found)
    return bool(request.param)


with_kernels = pytest.mark.parametrize("kernels", [True], ids=["kernels"], indirect=True)
both_ways = pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "plain"], indirect=True)
# Hypothesis runs all examples within one use of the fixture, which is what is wanted.
examples = partial(settings, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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


@both_ways
@examples(max_examples=40)
@given(shape=shapes)
def test_partition_marginals_and_viterbi_equal_enumeration(kernels: bool, shape: tuple[int, int, int, int]) -> None:
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


@both_ways
@examples(max_examples=25)
@given(shape=shapes)
def test_equals_pytorch_crf(kernels: bool, shape: tuple[int, int, int, int]) -> None:
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
    ours = log_likelihood(emissions, tags, lengths, transitions, start, end)
    assert torch.allclose(ours, theirs, atol=1e-9)
    _, scores = viterbi(emissions, lengths, transitions, start, end)
    for n, path in enumerate(peer.decode(emissions, mask=mask)):
        again = torch.tensor([path + [0] * (emissions.shape[1] - len(path))])
        their_score = log_score(emissions[n : n + 1], again, lengths[n : n + 1], transitions, start, end)
        assert abs(their_score[0] - scores[n]) <= 1e-9
        assert len(path) == lengths[n]


@both_ways
def test_marginals_are_the_gradient_of_the_partition_function(kernels: bool) -> None:
    emissions, lengths, transitions, start, end = random_case((3, 5, 4, 7))
    emissions.requires_grad_()
    log_partition(emissions, lengths, transitions, start, end).sum().backward()
    marginals = log_marginals(emissions, lengths, transitions, start, end).exp()
    real = (torch.arange(5)[None] < lengths[:, None])[..., None]
    assert torch.allclose(emissions.grad, torch.where(real, marginals, 0.0), atol=1e-9)


@both_ways
@pytest.mark.parametrize("garbage", [1e3, -1e30, float("nan"), float("inf")])
def test_padding_changes_nothing(kernels: bool, garbage: float) -> None:
    emissions, _, transitions, start, end = random_case((3, 5, 3, 3))
    lengths = torch.tensor([5, 2, 1])
    padding = (torch.arange(5)[None] >= lengths[:, None])[..., None]
    filled = torch.where(padding, garbage, emissions)
    tags = torch.where(padding[..., 0], -100, 1)
    functions: list[Callable[..., torch.Tensor]] = [
        log_partition,
        log_marginals,
        lambda e, n, *scores: log_likelihood(e, tags, n, *scores),
        lambda e, n, *scores: viterbi(e, n, *scores)[0],
    ]
    for function in functions:
        a, b = (e.clone().requires_grad_() for e in (emissions, filled))
        scores = [s.clone().requires_grad_() for s in (transitions, start, end)]
        left, right = (function(e, lengths, *scores) for e in (a, b))
        behind = padding[..., 0] if left.ndim == 2 else padding
        real = ~behind if left.ndim > 1 else torch.ones_like(left, dtype=torch.bool)
        assert torch.equal(torch.where(real, left, 0), torch.where(real, right, 0))
        if left.requires_grad:
            torch.where(real, left, 0).sum().backward()
            torch.where(real, right, 0).sum().backward()
            assert torch.equal(a.grad, b.grad)
            assert (b.grad[padding.expand_as(b)] == 0).all()
            assert all(torch.isfinite(s.grad).all() for s in scores)
    alone = log_partition(emissions[1:2, :2], torch.tensor([2]), transitions, start, end)
    assert torch.allclose(alone, log_partition(filled, lengths, transitions, start, end)[1:2])


def gradients(
    function: Callable[..., torch.Tensor], case: tuple[torch.Tensor, ...], weights: torch.Tensor
) -> list[torch.Tensor]:
    """The function's value, and the gradients of Σ weights · value, for emissions and scores."""
    emissions, lengths, *scores = case
    leaves = [x.detach().clone().requires_grad_() for x in (emissions, *scores)]
    value = function(leaves[0], lengths, *leaves[1:])
    real = (torch.arange(emissions.shape[1])[None] < lengths[:, None])[..., None]
    seen = torch.where(real, value, 0) if value.ndim == 3 else value
    # Marginals as the losses read them: what is impossible does not count.
    (weights[tuple(slice(n) for n in seen.shape)] * seen.clamp_min(-30 if value.ndim == 3 else -1e9)).sum().backward()
    return [seen.detach(), *(torch.zeros_like(x) if x.grad is None else x.grad for x in leaves)]


def agree(case: tuple[torch.Tensor, ...], relative: float, absolute: float) -> None:
    """Kernels and plain functions give the same values and gradients; the plain ones are run in double precision."""
    emissions, lengths, *_ = case
    g = torch.Generator().manual_seed(1)
    weights = torch.randn(emissions.shape, generator=g, dtype=torch.float64)
    tags = torch.randint(emissions.shape[2], emissions.shape[:2], generator=g)
    exact = tuple(x.double() if x.is_floating_point() else x for x in case)
    for name in ("log_partition", "log_likelihood", "log_marginals"):
        fast, plain = getattr(crf, name), getattr(crf, f"plain_{name}")
        if name == "log_likelihood":
            fast, plain = (lambda e, *rest, f=f: f(e, tags, *rest) for f in (fast, plain))
        flat = weights if name == "log_marginals" else weights[:, 0, 0]
        ours, expected = gradients(fast, case, flat.to(emissions.dtype)), gradients(plain, exact, flat)
        for a, b in zip(ours, expected, strict=True):
            assert a.dtype == emissions.dtype
            assert torch.isfinite(a).all(), name
            scale = b.abs().max().clamp_min(1)
            assert torch.allclose(a.double(), b, rtol=relative, atol=absolute * scale), (name, (a - b).abs().max())
    path, score = viterbi(*case)
    _, best = crf.plain_viterbi(*exact)
    assert torch.allclose(score.double(), best, rtol=relative, atol=absolute)
    again = log_score(exact[0], path, lengths, *exact[2:])
    assert torch.allclose(again, best, rtol=relative, atol=absolute)


@with_kernels
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 17), (5, 1, 4), (7, 33, 9), (3, 20, 2), (2, 30, 37), (2, 9, 64)])
def test_kernels_equal_plain_functions(
    kernels: bool, shape: tuple[int, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    case = random_case((*shape, 5))
    agree(tuple(x.to(dtype) if x.is_floating_point() else x for x in case), tolerance, tolerance)


@with_kernels
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_tensors_on_a_gpu_are_answered_there(kernels: bool) -> None:
    emissions, lengths, *scores = random_case((4, 12, 5, 3))
    tags = torch.zeros(4, 12, dtype=torch.long)
    found = []
    for device in ("cpu", "cuda"):
        given = [x.to(device).requires_grad_() for x in (emissions, *scores)]
        own, *learnt = given
        real = lengths.to(device)
        likelihood = log_likelihood(own, tags.to(device), real, *learnt)
        marginals, (path, best) = log_marginals(own, real, *learnt), viterbi(own, real, *learnt)
        gradients = torch.autograd.grad(likelihood.sum() + log_partition(own, real, *learnt).sum(), given)
        found.append((likelihood, marginals, path, best, *gradients))
    for here, there in zip(*found, strict=True):
        assert there.is_cuda
        assert torch.allclose(here, there.cpu())


@with_kernels
def test_kernels_equal_plain_functions_with_impossible_transitions(kernels: bool) -> None:
    tagset = TagSet(("PER", "LOC", "ORG", "MISC"))
    emissions, lengths, transitions, start, end = (
        x.float() if x.is_floating_point() else x for x in random_case((6, 25, len(tagset), 11))
    )
    lengths[1] = 1
    transitions = transitions.masked_fill(~tagset.transitions_allowed, IMPOSSIBLE)
    start = start.masked_fill(~tagset.start_allowed, IMPOSSIBLE)
    end = end.masked_fill(~tagset.end_allowed, IMPOSSIBLE)
    # Illegal gold paths have a score near -1e4 a step, whose float32 is 1e-3 apart.
    agree((emissions, lengths, transitions, start, end), 2e-6, 2e-6)
    ours, plain = (
        f(emissions.double(), lengths, transitions.double(), start.double(), end.double())
        for f in (log_marginals, crf.plain_log_marginals)
    )
    assert torch.isfinite(ours).all()
    assert torch.allclose(ours, plain, rtol=1e-9)
    assert torch.allclose(ours[:, 0, ~tagset.start_allowed].exp(), torch.zeros(()).double())


@with_kernels
@pytest.mark.parametrize("spread", [50.0, 1000.0])
def test_long_posts_with_extreme_scores(kernels: bool, spread: float) -> None:
    g = torch.Generator().manual_seed(2)
    emissions = (torch.rand(3, 512, 9, generator=g) * 2 - 1) * spread
    emissions[2] *= 1e-3  # one post that the kernels can hold in any case
    transitions, start, end = ((torch.rand(*s, generator=g) * 2 - 1) * 50 for s in ((9, 9), (9,), (9,)))
    lengths = torch.tensor([512, 300, 512])
    left_out = crf_kernels.log_likelihood(emissions, None, lengths, transitions, start, end)[1]
    assert (left_out is None) == (spread == 50)
    agree((emissions, lengths, transitions, start, end), 2e-5, 2e-5)


@with_kernels
@pytest.mark.parametrize("level", [50.0, -50.0])
def test_long_posts_whose_scores_are_all_large_or_small(kernels: bool, level: float) -> None:
    emissions, lengths = torch.full((1, 512, 3), level), torch.tensor([512])
    scores = [torch.full(s, level) for s in ((3, 3), (3,), (3,))]
    assert crf_kernels.log_likelihood(emissions, None, lengths, *scores)[1] is None
    agree((emissions, lengths, *scores), 2e-6, 2e-6)


@both_ways
def test_gradients_are_those_of_finite_differences(kernels: bool) -> None:
    emissions, lengths, *scores = random_case((3, 4, 3, 9))
    tags = torch.randint(3, (3, 4), generator=torch.Generator().manual_seed(0))
    inputs = [x.requires_grad_() for x in (emissions, *scores)]
    real = (torch.arange(4)[None] < lengths[:, None])[..., None]
    assert torch.autograd.gradcheck(lambda e, *s: log_likelihood(e, tags, lengths, *s), inputs)
    assert torch.autograd.gradcheck(lambda e, *s: log_partition(e, lengths, *s), inputs)
    assert torch.autograd.gradcheck(lambda e, *s: torch.where(real, log_marginals(e, lengths, *s), 0), inputs)
    # What is behind the last word repeats it, in both ways.
    assert torch.autograd.gradcheck(lambda e, *s: log_marginals(e, lengths, *s), inputs)


@with_kernels
def test_gradients_are_not_differentiated_again(kernels: bool) -> None:
    emissions, lengths, *scores = random_case((3, 4, 3, 9))
    tags = torch.randint(3, (3, 4), generator=torch.Generator().manual_seed(0))
    inputs = [x.requires_grad_() for x in (emissions, *scores)]
    for value in (log_likelihood(emissions, tags, lengths, *scores), log_marginals(emissions, lengths, *scores)):
        plain = torch.autograd.grad(value.square().sum(), inputs, retain_graph=True)
        recorded = torch.autograd.grad(value.square().sum(), inputs, create_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
        with pytest.raises(RuntimeError, match="once_differentiable"):
            recorded[0].sum().backward()


@with_kernels
def test_what_kernels_read_is_checked(kernels: bool) -> None:
    emissions, lengths, *scores = random_case((2, 4, 3, 9))
    tags = torch.zeros(2, 4, dtype=torch.long)
    for wrong in (torch.tensor([0, 4]), torch.tensor([5, 4])):
        for function in (log_partition, log_marginals, viterbi):
            with pytest.raises(ValueError, match="between 1 and 4"):
                function(emissions, wrong, *scores)
    with pytest.raises(IndexError, match="between 0 and 2"):
        log_likelihood(emissions, tags + 3, lengths, *scores)
    with pytest.raises(ValueError, match="shapes"):
        log_partition(emissions, lengths[:1], *scores)
    with pytest.raises(ValueError, match="do not go with"):
        log_likelihood(emissions, tags[:, :2], lengths, *scores)
    strided = emissions.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(log_marginals(strided, lengths.int(), *scores), log_marginals(emissions, lengths, *scores))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tags", [2, 9, 17, 30, 45, 70])
def test_a_post_has_the_same_best_path_alone_and_beside_others(
    variant: str, tags: int, dtype: torch.dtype, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = crf_kernels.load(kernels_folder, variant)
    monkeypatch.setattr(crf_kernels, "load", lambda: kernels)
    emissions, lengths, *scores = random_case((21, 12, tags, tags))
    # Whole numbers: many paths are as good as the best one, and sums are exact.
    emissions, *scores = ((x / 2).round().to(dtype) for x in (emissions, *scores))
    together, best = viterbi(emissions, lengths, *scores)
    for b in range(len(lengths)):
        alone, score = viterbi(emissions[b : b + 1], lengths[b : b + 1], *scores)
        assert torch.equal(alone[0], together[b])
        assert score[0] == best[b]
    _, expected = crf.plain_viterbi(emissions, lengths, *scores)
    assert torch.equal(best, expected)
    assert torch.equal(crf.log_score(emissions, together, lengths, *scores), best)


@pytest.mark.parametrize("together", [1, 20])
def test_a_best_path_of_what_is_no_number_has_tags_that_are_there(
    variant: str, together: int, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = crf_kernels.load(kernels_folder, variant)
    monkeypatch.setattr(crf_kernels, "load", lambda: kernels)
    emissions, _, *scores = random_case((together, 6, 17, 0))
    emissions[:, 2] = torch.nan
    path, _ = viterbi(emissions, torch.full((together,), 6), *scores)
    assert ((path >= 0) & (path < 17)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_variant_gives_the_same(
    variant: str, dtype: torch.dtype, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = crf_kernels.load(kernels_folder, variant)
    assert kernels is not None
    assert kernels.width == (8 if variant == "AVX512" else 4)
    monkeypatch.setattr(crf_kernels, "load", lambda: kernels)
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype is torch.float32 else {"atol": 1e-9, "rtol": 1e-9}
    sizes = itertools.product((1, 3, 4, 7, 9, 17, 33), (1, 2, 13), (1, 2, 3, 5, 8, 9, 16, 17, 21))
    for seed, (batch, words, tags) in enumerate(sizes):
        emissions, lengths, *scores = (
            x.to(dtype) if x.is_floating_point() else x for x in random_case((batch, words, tags, seed))
        )
        path = torch.randint(tags, (batch, words), generator=torch.Generator().manual_seed(seed))
        inputs = [x.clone().requires_grad_() for x in (emissions, *scores)]
        plain = [x.detach().double().requires_grad_() for x in inputs]
        found = log_likelihood(inputs[0], path, lengths, *inputs[1:])
        expected = crf.plain_log_likelihood(plain[0], path, lengths, *plain[1:])
        assert torch.allclose(found, expected.to(dtype), **tolerance), (batch, words, tags)
        for own, other in zip(
            torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(expected.sum(), plain), strict=True
        ):
            assert torch.allclose(own, other.to(dtype), atol=1e-3 if dtype is torch.float32 else 1e-8)
        real = torch.arange(words) < lengths[:, None]
        wanted = crf.plain_log_marginals(*(x.detach() for x in (plain[0], lengths, *plain[1:])))[real].to(dtype)
        with torch.no_grad():
            alone = log_marginals(emissions, lengths, *scores)[real]
        learnt = log_marginals(inputs[0], lengths, *inputs[1:])[real]
        assert torch.allclose(alone, wanted, atol=5e-4, rtol=1e-4), (batch, words, tags)
        assert torch.allclose(learnt.detach(), wanted, atol=5e-4, rtol=1e-4), (batch, words, tags)
        tags_found, best = viterbi(emissions, lengths, *scores)
        _, expected_best = crf.plain_viterbi(emissions, lengths, *scores)
        assert torch.allclose(best, expected_best, **tolerance)
        again = crf.log_score(emissions, tags_found, lengths, *scores)
        assert torch.allclose(again, best, **tolerance), "the path has the score that is said"


@both_ways
def test_module_gives_illegal_paths_no_probability_and_learns(kernels: bool) -> None:
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
