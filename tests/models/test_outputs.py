"""Outputs of experts: kept in a file, and several sets side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moreie.models.outputs import ExpertOutputs, joined, load_outputs, save_outputs


def outputs(*shapes: tuple[int, ...] | None) -> ExpertOutputs:
    """Two experts; the first speaks on every case, the second where a shape is given."""
    said = tuple(None if shape is None else torch.randn(*shape).log_softmax(-1) for shape in shapes)
    first = tuple(torch.randn(*(shape or shapes[0] or ())).log_softmax(-1) for shape in shapes)
    available = torch.tensor([[True, shape is not None] for shape in shapes])
    return ExpertOutputs(("a", "b"), (first, said), available, torch.rand(len(shapes), 2), ((0,) * len(shapes),) * 2)


@pytest.mark.parametrize("shapes", [((3, 9), None, (1, 9)), ((5,), None, (5,)), ((1, 4), None, None)])
def test_saved_outputs_load_the_same(tmp_path: Path, shapes: tuple[tuple[int, ...] | None, ...]) -> None:
    before = outputs(*shapes)
    save_outputs(before, tmp_path / "fold" / "outputs.safetensors")
    assert [p.name for p in (tmp_path / "fold").iterdir()] == ["outputs.safetensors"]
    _same(load_outputs(tmp_path / "fold" / "outputs.safetensors"), before)


def test_joined_outputs_are_one_after_the_other() -> None:
    one, two = outputs((3, 9), None), outputs((2, 9))
    both = joined([one, two])
    assert [len(p) for p in both.log_probabilities[0] if p is not None] == [3, 3, 2]
    assert both.available.tolist() == [[True, True], [True, False], [True, True]]
    for m in range(2):
        assert both.log_probabilities[m] == (*one.log_probabilities[m], *two.log_probabilities[m])
    assert torch.equal(both.entropies, torch.cat([one.entropies, two.entropies]))
    assert both.dropped == ((0, 0, 0), (0, 0, 0))


def _same(a: ExpertOutputs, b: ExpertOutputs) -> None:
    assert (a.names, a.dropped) == (b.names, b.dropped)
    assert torch.equal(a.available, b.available)
    assert torch.equal(a.entropies, b.entropies)
    for ours, theirs in zip(a.log_probabilities, b.log_probabilities, strict=True):
        for p, q in zip(ours, theirs, strict=True):
            assert (p is None and q is None) or (p.shape == q.shape and torch.equal(p, q))
