"""The output of an encoder's word embeddings, recorded or moved during a forward pass; its weights are not touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from moreie.encoders.text import TextEncoder


@contextmanager
def recorded_embeddings(encoder: TextEncoder) -> Iterator[list[Tensor]]:
    """The word embeddings [B, S, H] of every forward pass inside, with a gradient even where their table is frozen."""
    recorded: list[Tensor] = []

    def record(module: Any, inputs: Any, output: Tensor) -> Tensor:
        words = output if output.requires_grad else output.detach().requires_grad_()
        recorded.append(words)
        return words

    handle = encoder.model.get_input_embeddings().register_forward_hook(record)
    try:
        yield recorded
    finally:
        handle.remove()


@contextmanager
def moved_embeddings(encoder: TextEncoder, perturbation: Tensor) -> Iterator[None]:
    """Forward passes inside read their word embeddings plus `perturbation` [B, S, H]."""

    def move(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return output + perturbation

    handle = encoder.model.get_input_embeddings().register_forward_hook(move)
    try:
        yield
    finally:
        handle.remove()
