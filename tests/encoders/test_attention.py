"""Attention by the project's kernel is what torch's is, of every variant of it."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from moreie.encoders import attention
from moreie.encoders.attention import attended, attended_packed, by_torch

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(params=["vectors", "tiles"])
def own(
    request: pytest.FixtureRequest, variant: str, variant_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The variant, which is used under test, without the tiles that its processor may have, and with them."""
    declared = attention.declared(variant_library)
    if request.param == "vectors":
        declared = replace(declared, in_tiles={})
    monkeypatch.setattr(attention, "kernels", lambda: declared)
    monkeypatch.setattr(attention, "FEW_THREADS", 1_000)
    monkeypatch.setattr(attention, "SHORT", dict.fromkeys(attention.SHORT, 70 * 64))
    monkeypatch.setattr(attention, "in_vectors", lambda: False)
    return variant


def states(shape: tuple[int, int, int], dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value as parts of one product's output, so that their rows lie apart."""
    generator = torch.Generator().manual_seed(seed)
    posts, tokens, width = shape
    return tuple(torch.randn(posts, tokens, 3 * width, generator=generator).to(dtype).chunk(3, -1))  # type: ignore[return-value]


def far(found: Tensor, parts: tuple[Tensor, Tensor, Tensor], heads: int, reads: Tensor | None) -> float:
    """The largest difference from what it is in double precision, in units of the last place of its kind."""
    exact = by_torch(*(part.double() for part in parts), heads, reads)
    return float((found.double() - exact).abs().max() / torch.finfo(found.dtype).eps)


@given(
    st.integers(1, 4),
    st.integers(1, 70),
    st.sampled_from([(1, 32), (3, 32), (2, 64)]),
    st.sampled_from(DTYPES),
    st.sampled_from(["all", "some", "each its own"]),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_what_it_is_in_double_precision(
    own: str, posts: int, tokens: int, heads: tuple[int, int], dtype: torch.dtype, reading: str, seed: int
) -> None:
    count, width = heads
    parts = states((posts, tokens, count * width), dtype, seed)
    assert attention._short(*parts, count, None) is not None
    generator = torch.Generator().manual_seed(seed)
    reads = None
    if reading != "all":
        reads = torch.rand(posts, 1, tokens if reading == "each its own" else 1, tokens, generator=generator) < 0.6
        reads[..., seed % tokens] = True
    found = attended(*parts, count, reads)
    assert found.dtype is dtype
    assert far(found, parts, count, reads) < 20


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 70)), min_size=1, max_size=5),
    st.sampled_from([(1, 32), (3, 32), (2, 64)]),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_posts_behind_each_other_are_as_each_by_itself(
    own: str, sizes: list[tuple[int, int]], heads: tuple[int, int], dtype: torch.dtype, some: bool, seed: int
) -> None:
    count, width = heads
    queries, keys = [q for q, _ in sizes], [k for _, k in sizes]
    query, key, value = (part[0] for part in states((1, sum(queries) + sum(keys), count * width), dtype, seed))
    query, key, value = query[: sum(queries)], key[: sum(keys)], value[-sum(keys) :]
    reads = None
    if some:
        reads = torch.rand(len(sizes), 1, max(queries), max(keys), generator=torch.Generator().manual_seed(seed)) < 0.6
        reads[..., 0] = True
    found = attended_packed(query, key, value, count, queries, keys, reads).split(queries)
    for n, (own_query, own_key, own_value) in enumerate(
        zip(query.split(queries), key.split(keys), value.split(keys), strict=True)
    ):
        mask = None if reads is None else reads[n : n + 1, :, : queries[n], : keys[n]]
        assert torch.equal(found[n], attended(own_query[None], own_key[None], own_value[None], count, mask)[0])


def test_without_a_kernel_posts_are_not_read_behind_each_other(own: str) -> None:
    rows = torch.zeros(4, 48)
    with pytest.raises(ValueError, match="no kernel for 3 keys of 4 heads"):
        attended_packed(rows, rows, rows, 4, [1, 3], [1, 3])


@pytest.mark.parametrize("dtype", DTYPES)
def test_queries_may_be_fewer_than_keys(own: str, dtype: torch.dtype) -> None:
    query, key, value = states((3, 40, 64), dtype, 0)
    few = query[:, :7]
    reads = torch.ones(3, 1, 7, 40, dtype=torch.bool).tril(20)
    assert torch.equal(attended(few, key, value, 2), attended(query, key, value, 2)[:, :7])
    assert far(attended(few, key, value, 2, reads), (few, key, value), 2, reads) < 20


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_read_changes_nothing(own: str, dtype: torch.dtype) -> None:
    """Not even where it is no number; nor does what else is in the batch."""
    query, key, value = (part.clone() for part in states((2, 30, 64), dtype, 1))
    reads = torch.ones(2, 1, 1, 30, dtype=torch.bool)
    reads[1, ..., 12:] = False
    before = attended(query, key, value, 2, reads)
    key[1, 12:], value[1, 12:] = torch.nan, torch.inf
    assert torch.equal(attended(query, key, value, 2, reads), before)
    alone = attended(query[1:, :12].contiguous(), key[1:, :12], value[1:, :12], 2)
    assert torch.equal(alone, before[1:, :12])


def test_who_reads_nothing_attends_to_nothing(own: str) -> None:
    parts = states((2, 20, 32), torch.float32, 2)
    reads = torch.ones(2, 1, 20, 20, dtype=torch.bool)
    reads[0, 0, 3] = False
    found = attended(*parts, 1, reads)
    assert (found[0, 3] == 0).all()
    assert (attended(*parts, 1, torch.zeros(2, 1, 1, 20, dtype=torch.bool)) == 0).all()
    assert (found[0, 4] != 0).all()


def test_what_is_no_number_is_handed_on(own: str) -> None:
    query, key, value = (part.clone() for part in states((1, 20, 32), torch.float32, 3))
    key[0, 5, 0] = torch.nan
    assert attended(query, key, value, 1).isnan().all()
    scores = 1e4 * torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(0))
    assert far(attended(scores, scores, value, 1), (scores, scores, value), 1, None) < 1_000


def test_others_are_left_to_torch(own: str) -> None:
    parts = states((2, 20, 64), torch.float32, 4)
    assert attention._short(*parts, 2, None) is not None
    learnt = tuple(part.clone().requires_grad_() for part in parts)
    assert attention._short(*learnt, 2, None) is None
    with torch.no_grad():
        assert attention._short(*learnt, 2, None) is not None
    attended(*learnt, 2).sum().backward()
    assert all(part.grad is not None for part in learnt)
    assert attention._short(*parts, 16, None) is None, "heads of 4"
    assert attention._short(*(part.double() for part in parts), 2, None) is None
    long = states((1, attention.SHORT_IN_TILES // 32 + 1, 64), torch.float32, 5)
    assert attention._short(*long, 2, None) is None
    assert attention._short(*(part.bfloat16() for part in long), 2, None) is None
    assert attention._short(*parts, 2, torch.zeros(2, 2, 20, 20)) is None, "what is added to scores"


def test_where_torch_is_slower_it_is_taken_for_longer_rows(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = replace(attention.kernels(), in_tiles={})
    monkeypatch.setattr(attention, "kernels", lambda: declared)
    long = states((1, 400, 64), torch.bfloat16, 7)
    assert attention._short(*long, 2, None) is None
    monkeypatch.setattr(attention, "in_vectors", lambda: True)
    assert attention._short(*long, 2, None) is not None
    assert far(attended(*long, 2), long, 2, None) < 20
    assert attention._short(*(part.float() for part in long), 2, None) is None
    longer = states((1, attention.SHORT_IN_VECTORS // 32 + 1, 64), torch.bfloat16, 8)
    assert attention._short(*longer, 2, None) is None


def test_where_torch_has_many_threads_it_is_faster(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = states((2, 20, 64), torch.float32, 6)
    monkeypatch.setattr(attention, "FEW_THREADS", 0)
    assert attention._short(*parts, 2, None) is None
