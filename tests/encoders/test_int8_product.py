"""Products in 8 bits are what products are, but for the rounding, of every variant of the kernel."""

from __future__ import annotations

import ctypes

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from moreie.encoders import int8_product
from moreie.encoders.int8_product import STATES, Int8Product
from moreie.errors import EncoderError


@pytest.fixture
def methods(variant: str, variant_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """All ways of multiplying that the variant has on this processor."""
    declared = int8_product.declared(variant_library)
    monkeypatch.setattr(int8_product, "kernels", lambda: declared)
    return list(range(declared.method + 1))


def case(rows: int, inputs: int, outputs: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, inputs, generator=generator)
    return states, torch.randn(outputs, inputs, generator=generator), torch.randn(outputs, generator=generator)


def by_definition(states: Tensor, weight: Tensor, bias: Tensor, of_weights: Tensor) -> Tensor:
    """With both sides rounded as the kernel is said to, weights by steps [out, 1], then in double precision."""
    largest = states.float().abs().amax(-1, keepdim=True)
    rounded = (
        (states.double() * torch.full_like(largest, 127).div(largest).double()).round(),
        (weight / of_weights).round().double(),
    )
    return rounded[0] @ rounded[1].T * (largest / 127).double() * of_weights.double().T + bias.double()


def steps_of(product: Int8Product, outputs: int, kind: torch.dtype) -> Tensor:
    """What the weights' steps are worth [out, 1]."""
    kernels = int8_product.kernels()
    assert kernels is not None
    held = product._parts[3]
    steps = torch.empty_like(held)
    steps[int8_product._order(len(held), kernels.unit, kind, 1)] = held
    return steps[:outputs, None]


def short_sums() -> bool:
    kernels = int8_product.kernels()
    return kernels is not None and kernels.short_sums


@given(
    st.integers(1, 150),
    st.sampled_from([7, 64, 96, 384]),
    st.sampled_from([3, 32, 100, 192]),
    st.sampled_from(STATES),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_they_are_those_of_rounded_numbers(
    variant: str, methods: list[int], rows: int, inputs: int, outputs: int, kind: torch.dtype, gelu: bool, seed: int
) -> None:
    states, weight, bias = case(rows, inputs, outputs, seed)
    states = states.to(kind)
    for method in methods:
        product = Int8Product([weight], [bias], kind, gelu=gelu, method=method)
        steps = steps_of(product, outputs, kind)
        if method or not short_sums():
            assert torch.allclose(steps[:, 0], weight.abs().amax(1) / 127)
        expected = by_definition(states, weight, bias, steps)
        found = product(states)
        assert found.dtype is kind
        assert found.shape == (rows, outputs)
        if gelu:
            expected = functional.gelu(expected)
        away, last = (found.double() - expected).abs(), 4 * torch.finfo(kind).eps
        if variant:
            assert bool((away < (5e-5 if gelu else 1e-5) + last * expected.abs()).all())
        # Without products and sums in one, a number nearly halfway between two steps may be rounded the other way.
        step = 2.5 / 127 * float(states.abs().max()) * float(weight.abs().max())
        assert float(away.max()) < step + last * float(expected.abs().max())
        exact = functional.linear(states.double(), weight.double(), bias.double())
        exact = functional.gelu(exact) if gelu else exact
        sizes = states.double().norm(dim=1, keepdim=True) * weight.double().norm(dim=1)
        assert bool(((found.double() - exact).abs() < 0.06 * sizes + last * exact.abs() + 5e-5).all())
        assert torch.equal(product(states[-1:]), found[-1:]), "a row by itself is the same"


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("alone", [False, True])
def test_the_largest_sums_do_not_overflow(methods: list[int], kind: torch.dtype, sign: int, alone: bool) -> None:
    """All numbers as large as may be, or of each four weights one alone."""
    states, weight = torch.full((3, 128), 2.0), torch.full((64, 128), 0.5)
    if alone:
        weight[:, torch.arange(128) % 64 != 5] = 0
    exact = functional.linear(states, weight)
    for method in methods:
        found = Int8Product([sign * weight], [torch.zeros(64)], kind, method=method)(states.to(kind))
        assert torch.allclose(found.float(), sign * exact, rtol=0.02)


@pytest.mark.parametrize("kind", STATES)
def test_ways_to_multiply_agree(methods: list[int], kind: torch.dtype) -> None:
    states, weight, bias = case(37, 128, 64, 0)
    kernels = int8_product.kernels()
    assert kernels is not None
    alike = [method for method in methods if method or not kernels.short_sums]
    found = [Int8Product([weight], [bias], kind, method=method)(states.to(kind)) for method in alike]
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("kind", STATES)
def test_several_layers_that_read_the_same_are_one(methods: list[int], kind: torch.dtype) -> None:
    states, weight, bias = case(9, 64, 96, 1)
    parts = [32, 64]
    together = Int8Product(weight.split(parts), bias.split(parts), kind)(states.to(kind).view(3, 3, 64))
    assert torch.equal(together.view(9, 96), Int8Product([weight], [bias], kind)(states.to(kind)))


@pytest.mark.parametrize("kind", STATES)
def test_divided_channels_count_as_before_and_lose_less(methods: list[int], kind: torch.dtype) -> None:
    states, weight, bias = case(40, 128, 64, 2)
    states[:, 5] *= 100
    states = states.to(kind)
    divisors = torch.ones(128)
    divisors[5] = 30
    exact = functional.linear(states.double(), weight.double(), bias.double())
    lost = [
        float((Int8Product([weight], [bias], kind, own)(states).double() - exact).norm()) for own in (None, divisors)
    ]
    assert lost[1] < 0.5 * lost[0]


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_row_that_is_no_number_stays_so(methods: list[int], kind: torch.dtype, wrong: float) -> None:
    states, weight, bias = case(5, 64, 32, 3)
    states[2, 40] = wrong
    for method in methods:
        found = Int8Product([weight], [bias], kind, method=method)(states.to(kind))
        assert not found[2].isfinite().any()
        assert found[[0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("kind", STATES)
def test_nothing_times_weights_is_the_bias(methods: list[int], kind: torch.dtype) -> None:
    _, weight, bias = case(5, 64, 32, 4)
    found = Int8Product([weight], [bias], kind)(torch.zeros(2, 64, dtype=kind))
    assert torch.equal(found, bias.to(kind).expand(2, -1))


def test_weights_take_a_quarter(methods: list[int]) -> None:
    _, weight, bias = case(1, 384, 1_536, 6)
    assert Int8Product([weight], [bias], torch.float32).size < 0.27 * weight.nbytes


def test_without_kernels_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_product, "kernels", lambda: None)
    with pytest.raises(EncoderError, match=r"python -m moreie\.kernels\.build"):
        Int8Product([torch.ones(32, 64)], [torch.zeros(32)], torch.float32)


def test_more_than_the_processor_can_do_is_not_tried(methods: list[int]) -> None:
    states, weight, bias = case(5, 64, 32, 5)
    best = Int8Product([weight], [bias], torch.float32)
    product = Int8Product([weight], [bias], torch.float32, method=9)
    assert torch.equal(product(states), best(states))
