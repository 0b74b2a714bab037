"""Temperature scaling: the order of answers stays, the likelihood does not fall, a known temperature is found again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moreie.models.crf import IMPOSSIBLE
from moreie.models.temperature import fit_on_cases, fit_temperature, negative_log_likelihood, scaled

TEMPERATURES = st.floats(0.1, 10)


@st.composite
def distributions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Log-distributions [R, L], some answers impossible, and a gold index for each."""
    rows, labels = draw(st.integers(1, 30)), draw(st.integers(2, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    logits = draw(st.floats(0.1, 8)) * torch.randn(rows, labels, generator=generator)
    impossible = torch.rand(rows, labels, generator=generator) < 0.2
    impossible[:, 0] = False
    log_p = torch.log_softmax(logits.masked_fill(impossible, draw(st.sampled_from([IMPOSSIBLE, -torch.inf]))), dim=1)
    return log_p, torch.randint(labels, (rows,), generator=generator)


@given(distributions(), TEMPERATURES)
def test_answers_stay_and_each_row_is_a_distribution(made: tuple[Tensor, Tensor], temperature: float) -> None:
    log_p, _ = made
    softened = scaled(log_p, temperature)
    assert torch.equal(softened.argmax(1), log_p.argmax(1))
    assert torch.allclose(softened.exp().sum(1), torch.ones(len(log_p)), atol=1e-5)
    order = log_p.argsort(dim=1, stable=True)
    assert (softened.gather(1, order).diff(dim=1).nan_to_num(0) >= 0).all(), "not only the best answer: all of them"


@given(distributions())
def test_temperature_one_changes_nothing_and_more_is_less_sure(made: tuple[Tensor, Tensor]) -> None:
    log_p, _ = made
    assert torch.equal(scaled(log_p, 1.0), log_p)
    cold, warm = (scaled(log_p, t).exp().amax(1) for t in (0.5, 2.0))
    assert (warm <= cold + 1e-6).all()


@settings(deadline=None)
@given(distributions())
def test_the_fitted_temperature_is_at_least_as_likely_as_any_other(made: tuple[Tensor, Tensor]) -> None:
    log_p, gold = made
    best = negative_log_likelihood(log_p, gold, fit_temperature(log_p, gold))
    for other in (1.0, 0.2, 0.5, 0.9, 1.1, 2.0, 5.0):
        assert best <= negative_log_likelihood(log_p, gold, other) + 1e-4


@pytest.mark.parametrize("known", [0.5, 1.0, 1.7, 4.0])
def test_a_known_temperature_is_found_again(known: float) -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.log_softmax(2 * torch.randn(20_000, 6, generator=generator), dim=1)
    gold = torch.multinomial(truth.exp(), 1, generator=generator)[:, 0]
    said = torch.log_softmax(truth * known, dim=1)  # over-confident by `known`
    assert fit_temperature(said, gold) == pytest.approx(known, rel=0.03)


def test_cases_are_taken_word_by_word() -> None:
    generator = torch.Generator().manual_seed(4)
    log_p = torch.log_softmax(3 * torch.randn(60, 5, generator=generator), dim=1)
    gold = torch.randint(5, (60,), generator=generator)
    whole = fit_temperature(log_p, gold)
    assert fit_on_cases(log_p.split([10, 20, 30]), gold.split([10, 20, 30])) == whole
    assert fit_on_cases(list(log_p), list(gold[:, None])) == whole, "pairs have one distribution each"
    assert fit_on_cases([], []) == 1.0
    assert whole > 1.5, "answers that are surer than right"
