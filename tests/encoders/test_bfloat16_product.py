"""Products in bfloat16 are what products are, but for the rounding of numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from moreie.encoders import bfloat16_product
from moreie.encoders.batches import computing_with
from moreie.encoders.bert import BertModel
from moreie.encoders.bfloat16_product import PAIRS, TILES, Bfloat16Product
from moreie.encoders.merging import weights_of
from moreie.encoders.products import Product, fast_product
from moreie.encoders.ready_bert import ReadyBert
from moreie.encoders.text import TextEncoder
from moreie.kernels import library
from moreie.shipped import TEXT_ENCODER


@pytest.fixture(params=[PAIRS, TILES], ids=["pairs", "tiles"])
def method(request: pytest.FixtureRequest, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A way of multiplying that the processor has, by the kernel as installed or else compiled for the tests."""
    way: int = request.param
    if way == TILES and not torch.cpu._init_amx():
        pytest.skip("this processor multiplies no tiles (AMX), or the system gives none")
    if way == PAIRS and not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor has no dot products of pairs in bfloat16 (AVX512-BF16)")
    found = library.load(kernels_folder)
    kernel = bfloat16_product.declared(found) if found else None
    assert kernel is not None, "the processor multiplies in bfloat16, and no kernel does"
    assert way <= kernel.method
    monkeypatch.setattr(bfloat16_product, "kernel", lambda: replace(kernel, method=way))
    return way


def case(rows: int, inputs: int, outputs: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return states.bfloat16(), weight.bfloat16(), torch.randn(outputs, generator=generator)


@given(
    st.integers(1, 150),
    st.sampled_from([32, 64, 384, 1536]),
    st.sampled_from([32, 96, 384]),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_they_are_exact_but_for_the_last_rounding(
    method: int, rows: int, inputs: int, outputs: int, gelu: bool, seed: int
) -> None:
    states, weight, bias = case(rows, inputs, outputs, seed)
    exact = functional.linear(states.double(), weight.double(), bias.double())
    exact = functional.gelu(exact) if gelu else exact
    found = Bfloat16Product([weight], [bias], gelu=gelu)(states)
    assert found.dtype is torch.bfloat16
    # A number in bfloat16 has eight digits; GELU is approximated to 5e-5 of what it is multiplied by.
    assert ((found.double() - exact).abs() <= exact.abs() / 2**8 + 4e-4).all()


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 31, 32, 33, 48, 49, 63, 65, 200])
def test_a_row_does_not_depend_on_those_beside_it(rows: int) -> None:
    states, weight, bias = case(rows, 96, 64, rows)
    product = Bfloat16Product([weight], [bias], gelu=True)
    together = product(states)
    assert torch.equal(together, torch.cat([product(state[None]) for state in states]))
    with computing_with(2):
        assert torch.equal(product(states), together)
    states[rows // 2] = torch.nan
    beside = torch.arange(rows) != rows // 2
    again = product(states)
    assert torch.equal(again[beside], together[beside])
    assert again[rows // 2].isnan().all()


@pytest.mark.usefixtures("method")
def test_of_several_layers_outputs_lie_behind_each_other() -> None:
    states, weight, bias = case(20, 64, 96, 1)
    whole = Bfloat16Product([weight], [bias])(states)
    parts = Bfloat16Product(weight.split([32, 64]), bias.split([32, 64]))
    assert torch.equal(parts(states.view(4, 5, 64)), whole.view(4, 5, 96))
    wide = torch.randn(20, 128).bfloat16()
    wide[:, ::2] = states
    assert torch.equal(parts(wide[:, ::2]), whole), "states that lie apart"
    assert parts(states[:0]).shape == (0, 96)


@pytest.mark.usefixtures("method")
def test_it_is_taken_for_what_it_can_read() -> None:
    plain = torch.zeros(64, 96).bfloat16()
    zeros = torch.zeros(64)
    assert isinstance(fast_product([plain], [zeros]), Bfloat16Product)
    assert isinstance(fast_product([plain[:16], plain[:16]], [zeros[:16], zeros[:16]]), Bfloat16Product)
    for other in (plain.float(), plain[:63], plain[:, :63]):
        assert isinstance(fast_product([other], [zeros[: len(other)]]), Product)


def test_without_it_torch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfloat16_product, "kernel", lambda: None)
    weight = torch.eye(64).bfloat16()
    assert isinstance(fast_product([weight], [torch.zeros(64)]), Product)
    with pytest.raises(RuntimeError, match="no kernel for products"):
        Bfloat16Product([weight], [torch.zeros(64)])


@torch.no_grad()
def test_an_encoder_reads_with_it_as_with_torchs(method: int) -> None:
    encoder = TextEncoder.from_pretrained(TEXT_ENCODER)
    assert isinstance(encoder.model, BertModel)
    ids = torch.randint(1000, 20_000, (3, 30), generator=torch.Generator().manual_seed(0))
    embedded = encoder.model.get_input_embeddings()(ids)
    exact = ReadyBert(encoder.model, weights_of(encoder, None, torch.float32), torch.float32)
    halves = weights_of(encoder, None, torch.bfloat16)
    found, by_torch, own = (
        ready.states(embedded, None, None, None)
        for ready in (
            exact,
            ReadyBert(encoder.model, halves, torch.bfloat16, Product),
            ReadyBert(encoder.model, halves, torch.bfloat16),
        )
    )
    errors = [float((states - found).norm() / found.norm()) for states in (by_torch, own)]
    assert 0 < errors[1] < 1.1 * errors[0] < 0.02
