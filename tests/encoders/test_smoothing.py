"""Channels are divided by what is read of them, so that 8 bits lose less."""

from __future__ import annotations

from functools import cache

import torch

from moreie.encoders import int8, smoothing
from moreie.encoders.smoothing import divisors
from moreie.encoders.text import TextEncoder, batch_tensors
from moreie.shipped import TEXT_ENCODER


@cache
def shipped() -> TextEncoder:
    return TextEncoder.from_pretrained(TEXT_ENCODER).eval()


def test_there_are_some_for_each_product_and_the_same_each_time() -> None:
    encoder = shipped()
    found = divisors(encoder, None)
    layers = len(encoder.model.encoder.layer)
    assert len(found) == 4 * layers + 1, "in the last layer the query is a product of its own"
    width, inner = encoder.hidden_size, encoder.model.config.intermediate_size
    assert {len(each) for each in found} == {width, inner}
    assert all(bool(((each > 0) & (each <= 1)).all()) and float(each.max()) == 1 for each in found)
    assert all(torch.equal(one, other) for one, other in zip(found, divisors(encoder, None), strict=True))


def test_a_channel_that_is_nothing_divides_by_no_nothing() -> None:
    found = smoothing._divisors(torch.tensor([0.0, 1.0, 16.0]))
    assert found.isfinite().all()
    assert (found > 0).all()
    assert torch.allclose(found[1:], torch.tensor([0.5, 1.0]))
    assert smoothing._divisors(torch.zeros(3)).isfinite().all()


@torch.no_grad()
def test_the_shipped_encoder_loses_less() -> None:
    encoder = shipped()
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(1_000, 30_000, (n,), generator=generator).tolist() for n in range(5, 40)]
    ids, mask = batch_tensors(rows, 0)
    expected, lost = encoder(ids, mask)[mask > 0], []
    before = smoothing.DIVIDED
    try:
        for smoothing.DIVIDED in (0.0, before):
            found = int8.Int8TextEncoder(encoder, [])(ids, mask)[mask > 0]
            lost.append(float((found - expected).norm() / expected.norm()))
    finally:
        smoothing.DIVIDED = before
    assert lost[1] < 0.9 * lost[0] < 0.1
