"""Sums and their layer norms by the project's kernel are what torch's are, of every variant of it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from moreie.encoders import norms

Function = Callable[[nn.LayerNorm, Tensor, Tensor], tuple[Tensor, Tensor]]


@pytest.fixture
def own(variant: str, variant_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> str:
    """The variant, which is used under test."""
    declared = norms.declared(variant_library)
    monkeypatch.setattr(norms, "kernels", lambda: declared)
    return variant


def case(rows: int, width: int, seed: int, kind: torch.dtype = torch.bfloat16) -> tuple[nn.LayerNorm, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    norm = nn.LayerNorm(width, eps=1e-12)
    for weight in (norm.weight, norm.bias):
        weight.data.normal_(generator=generator)
    added = torch.randn(rows, width, generator=generator).to(kind)
    return norm.requires_grad_(False), added, 3 * torch.randn(rows, width, generator=generator) + 1


@pytest.mark.parametrize("function", [norms.norm_of_sum, norms.sum_and_norm])
@given(st.integers(1, 9), st.sampled_from([32, 64, 384, 1_024]), st.integers(0, 2**31), st.sampled_from(norms.KINDS))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_they_are_what_they_are_by_torch(
    own: str, function: Function, rows: int, width: int, seed: int, kind: torch.dtype
) -> None:
    norm, added, states = case(rows, width, seed, kind)
    assert norms._fits(norms.kernels().unit, added, states)
    total = added.double() + states.double()
    alone = function(norm, added[:1].clone(), states[:1].clone())
    found, halves = function(norm, added, states)
    expected = norm.double()(total)
    first = expected if function is norms.norm_of_sum else total
    assert torch.allclose(found.double(), first, atol=2e-5, rtol=1e-5)
    assert halves.dtype is kind
    assert torch.allclose(halves.double(), expected, atol=2e-5, rtol=2**-8 if kind is torch.bfloat16 else 1e-5)
    if function is norms.norm_of_sum:
        assert torch.equal(halves, found.to(kind)), "rounded as torch does"
    assert torch.equal(alone[0], found[:1]), "a row by itself is the same"


def test_others_are_left_to_torch(own: str) -> None:
    _, added, states = case(4, 64, 0)
    for wrong in ((added[:, :40], states[:, :40]), (added.T, states.T), (added[:1], states), (added, states.double())):
        assert not norms._fits(norms.kernels().unit, *wrong)
    narrow = nn.LayerNorm(40)
    found, halves = norms.norm_of_sum(narrow, added[:, :40], states[:, :40])
    assert torch.allclose(found, narrow(added[:, :40] + states[:, :40]))
    assert torch.equal(halves, found.to(torch.bfloat16))
