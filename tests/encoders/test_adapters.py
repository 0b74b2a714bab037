from __future__ import annotations

import pytest
import torch
from torch import nn

from moreie.encoders.adapters import AdapterConfig, adapted_layers, fill, put_adapter, put_empty_adapter
from moreie.errors import EncoderError


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, 4)), nn.LayerNorm(4))


def test_a_layer_adds_the_active_adapters_products() -> None:
    made = model()
    weights = [made[0].weight.detach().clone(), made[0].bias.detach().clone()]
    put_adapter(made, "one", AdapterConfig(3, 12))
    put_adapter(made, "two", AdapterConfig(2, 2))
    layer = adapted_layers(made)["0"]
    down, up = layer.weights("one")
    up.data.normal_()
    states = torch.randn(7, 6)
    plain = states @ weights[0].T + weights[1]
    assert torch.allclose(layer(states), plain, atol=1e-6), "none is active"
    layer.use("one")
    assert torch.allclose(layer(states), plain + 4 * states @ down.T @ up.T, atol=1e-5)
    layer.use("two")
    assert torch.allclose(layer(states), plain, atol=1e-6), "a fresh adapter is the identity"


def test_only_the_active_adapter_is_trained() -> None:
    made = model()
    for name in ("one", "two"):
        put_adapter(made, name, AdapterConfig(3, 12))
    for active, trained in (("one", 4), ("two", 4), (None, 0)):
        for layer in adapted_layers(made).values():
            layer.use(active)
        learning = [name for name, weight in made.named_parameters() if weight.requires_grad]
        assert len(learning) == trained
        assert all(f".{active}." in name for name in learning)
    with pytest.raises(EncoderError, match=r"no adapter 'three': the encoder has one, two"):
        adapted_layers(made)["0"].use("three")


def test_dropout_is_the_adapters_alone_and_off_when_it_reads() -> None:
    made = model()
    put_adapter(made, "one", AdapterConfig(3, 3, dropout=0.5))
    layer = adapted_layers(made)["0"].train()
    layer.use("one")
    states = torch.randn(50, 6)
    assert torch.equal(layer(states), layer(states)), "of what adds nothing, nothing is dropped"
    layer.weights("one")[1].data.fill_(1)
    assert not torch.equal(layer(states), layer(states))
    layer.eval()
    assert torch.equal(layer(states), layer(states))


def test_an_adapter_to_be_filled_uses_up_no_random_numbers() -> None:
    made = model()
    put_adapter(made, "one", AdapterConfig(3, 12))
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    put_empty_adapter(made, "two", AdapterConfig(3, 12))
    assert torch.equal(torch.rand(3), expected)


def test_weights_are_filled_all_or_not_at_all() -> None:
    own = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    values = {"a": torch.ones(2, 3, dtype=torch.float16), "b": torch.ones(4)}
    assert fill(own, {"a": values["a"]}) == ["b"]
    assert fill(own, {**values, "c": torch.ones(1)}) == ["c"]
    assert fill(own, {**values, "b": torch.ones(1)}) == ["b"], "nothing is spread over a larger one"
    assert all(not weight.any() for weight in own.values())
    assert fill(own, values) == []
    assert all((weight == 1).all() for weight in own.values())
