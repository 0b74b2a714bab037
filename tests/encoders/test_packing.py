from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.encoders.packing import FILE, dequantise4, load_packed, pack, quantise4, quantise8, save_packed, unpack
from moreie.errors import CheckpointError


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_quantisation_error_is_bounded(rows: int, groups: int, size: float, seed: int) -> None:
    weight = size * torch.randn(rows, 32 * groups, generator=torch.Generator().manual_seed(seed))
    values, scale = quantise8(weight)
    # Half a step, and what float16 rounds off the scale over at most 127 steps.
    bound = scale.float()[:, None] * (0.5 + 127 * 2**-10)
    assert ((values.float() * scale.float()[:, None] - weight).abs() <= bound).all()
    packed, scale4 = quantise4(weight)
    assert packed.shape == (rows, 16 * groups)
    # No worse, in any group, than the step that holds the largest value exactly (but for float16's rounding of it).
    columns = weight.reshape(rows, groups, 32)
    step = columns.gather(2, columns.abs().argmax(2, keepdim=True)) / -8
    plain = ((columns / step).round().clamp(-8, 7) * step - columns).norm(dim=2)
    error = (dequantise4(packed, scale4).reshape(columns.shape) - columns).norm(dim=2)
    assert (error <= plain + 2**-10 * columns.norm(dim=2)).all()


def test_four_bits_keep_most_of_a_matrix() -> None:
    """A group by itself may fare worse than the whole."""
    for seed in range(50):
        weight = torch.randn(32, 128, generator=torch.Generator().manual_seed(seed))
        assert (dequantise4(*quantise4(weight)) - weight).norm() / weight.norm() < 0.12


def test_pack_unpack_keeps_names_shapes_and_everything_else(tmp_path: Path) -> None:
    state = {
        "layer.weight": torch.randn(6, 64),
        "odd.weight": torch.randn(6, 40),
        "norm.bias": torch.randn(6),
        "patch.weight": torch.randn(2, 3, 4, 4),
        "positions": torch.arange(5),
        "layer_scale": torch.randn(3),
    }
    save_packed(state, tmp_path, lambda name: 4)
    again = load_packed(tmp_path)
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in state.items()}
    assert torch.equal(again["positions"], state["positions"])
    assert torch.allclose(again["norm.bias"], state["norm.bias"], atol=1e-2)
    packed = pack(state, lambda name: 4)
    assert packed["layer.weight.q4"].dtype == torch.uint8
    assert packed["odd.weight.q8"].dtype == torch.int8, "40 columns are no whole groups: 8 bits instead"
    unpacked = unpack(packed)
    assert all(torch.equal(unpacked[name], tensor) for name, tensor in again.items())


def test_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model\.packed\.safetensors"):
        load_packed(tmp_path)
    save_packed({"w": torch.randn(4, 32)}, tmp_path, lambda name: 8)
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged weights"):
        load_packed(tmp_path)
