"""Text encoders in 8 bits on a processor: a quarter of the memory, faster, and not quite the same states.

Each adapter is folded into the weights, which are then rounded, output by output; states are rounded row by row
(`int8_product`), their channels brought nearer to each other before (`smoothing`). Embeddings and norms stay as they
are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from moreie.encoders.adapters import PLAIN, AdaptedLinear
from moreie.encoders.int8_product import Int8Product
from moreie.encoders.last_layer import at
from moreie.encoders.merging import can_be_ready, merged_weights, weights_of
from moreie.encoders.precision import product_kind
from moreie.encoders.ready_bert import ReadyBert
from moreie.encoders.smoothing import divisors
from moreie.encoders.text import TextEncoder
from moreie.errors import EncoderError

# The adapter that each encoder (`id`) computes with in this context: batches of several are in work side by side.
_active: ContextVar[Mapping[int, str | None]] = ContextVar("active", default=MappingProxyType({}))


class Int8TextEncoder(TextEncoder):
    """A text encoder and some of its adapters in 8 bits; it reads, it neither trains nor is saved."""

    def __init__(self, encoder: TextEncoder, adapters: Iterable[str]):
        """In 8 bits what `encoder` computes: bare, and with each of `adapters`.

        Raises:
            EncoderError: the encoder is on a GPU, or there are no kernels.
        """
        if encoder.device.type != "cpu":
            raise EncoderError(f"8-bit extraction is for processors; the encoder is on {encoder.device}")
        nn.Module.__init__(self)
        # All that is asked of a model behind `forward`: its configuration, its embeddings, its device.
        self.model: Any = _Embedding(encoder.model.get_input_embeddings(), encoder.model.config)
        self.tokenizer, self.name = encoder.tokenizer, encoder.name
        self._words, self._texts = encoder._words, encoder._texts
        self.fingerprint = f"{encoder.fingerprint}-int8"
        self.takes_positions = encoder.takes_positions
        self._adapted, self.blocks = {}, 0
        in_8_bits = _made_ready if can_be_ready(encoder) else _with_layers
        self._ready = {adapter: in_8_bits(encoder, adapter) for adapter in (None, *adapters)}
        self.use_adapter(None)  # an encoder that is gone may have had this one's `id`

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None) -> Tensor:
        return self._states(input_ids, attention_mask, positions)

    def states_at(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        anchors: Tensor,
        positions: Tensor | None = None,
        anchor_counts: Tensor | None = None,
    ) -> Tensor:
        return self._states(input_ids, attention_mask, positions, anchors, anchor_counts)

    @torch.no_grad()
    def _states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        positions: Tensor | None,
        anchors: Tensor | None = None,
        anchor_counts: Tensor | None = None,
    ) -> Tensor:
        active = self._ready[_active.get().get(id(self))]
        if isinstance(active, ReadyBert):
            return self._by(active, input_ids, attention_mask, positions, anchors, anchor_counts)
        placed = self._placed(attention_mask, positions)
        states: Tensor = active(input_ids=input_ids, **placed).last_hidden_state
        return states if anchors is None else at(states, anchors)

    def use_adapter(self, name: str | None) -> None:
        if name not in self._ready:
            raise EncoderError(f"{self.name}: no adapter {name!r} in 8 bits")
        _active.set({**_active.get(), id(self): name})

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """Raises `EncoderError`."""
        raise EncoderError(
            f"{self.name}: an encoder in 8 bits is neither trained nor saved; train or save the one that it was made of"
        )

    trunk_state = adapter_state = save = save_adapter = save_packed = _refuse
    add_adapter = load_adapter_state = _refuse


class _Embedding(nn.Module):
    """What `TextEncoder` asks of a model, and its sub-tokens' embeddings."""

    def __init__(self, embeddings: nn.Module, config: Any):
        super().__init__()
        self.embeddings, self.config = embeddings, config

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings


def _made_ready(encoder: TextEncoder, adapter: str | None) -> ReadyBert:
    """Of an encoder that `can_be_ready` its layers in 8 bits."""
    kind, of_each = product_kind(encoder.device), iter(divisors(encoder, adapter))

    def product(weights: Sequence[Tensor], biases: Sequence[Tensor], *, gelu: bool) -> Int8Product:
        return Int8Product(weights, biases, kind, next(of_each), gelu=gelu)

    return ReadyBert(encoder.model, weights_of(encoder, adapter, torch.float32), kind, product)


def _with_layers(encoder: TextEncoder, adapter: str | None) -> Any:
    """Of an encoder of another kind the same model, its very parts but for linear layers, which are in 8 bits."""
    weights, kind = merged_weights(encoder, adapter), product_kind(encoder.device)

    def changed(module: nn.Module, name: str) -> nn.Module:
        layer = module.base_layer if isinstance(module, AdaptedLinear) else module
        if isinstance(layer, nn.Linear) and type(layer) in PLAIN:
            bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
            return _Int8Linear(Int8Product([weights.get(name, layer.weight)], [bias], kind))
        other = copy.copy(module)
        other._modules = {
            own: part and changed(part, f"{name}.{own}".strip(".")) for own, part in module._modules.items()
        }
        return other

    return changed(encoder.model, "")


class _Int8Linear(nn.Module):
    def __init__(self, product: Int8Product):
        super().__init__()
        self.product = product

    def forward(self, states: Tensor) -> Tensor:
        return self.product(states).to(states.dtype)
