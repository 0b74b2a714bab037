"""BERT (Devlin et al., NAACL 2019) in plain torch: its module names, numbers and random draws are those of
`transformers`, which takes longer to import than an extraction to answer.

It reads the folders that `TextEncoder.save` and `save_packed` write; every other encoder is loaded by `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from moreie.encoders import packing
from moreie.encoders.attention import attended
from moreie.encoders.settings import CONFIG, read_settings, write_settings
from moreie.encoders.undrawn import Embedding, Linear

WEIGHTS = "model.safetensors"
UNWRITTEN: Mapping[str, Any] = {
    "output_hidden_states": False,
    "return_dict": True,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "problem_type": None,
    "output_attentions": False,
}
"""What a configuration of `transformers` holds and does not write where it is as usual; fingerprints go over it."""
SIMPLE: Mapping[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "dtype": "float32",
    "is_decoder": False,
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
}
"""What a configuration says of an encoder that is known here, where it says anything of it."""


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT, and all else that its `config.json` says."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    pad_token_id: int
    written: Mapping[str, Any] = field(repr=False)
    model_type: str = "bert"
    is_decoder: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As a configuration of `transformers` gives it."""
        return {**UNWRITTEN, **self.written}

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json`."""
        write_settings(folder / CONFIG, self.written)


SIZES = tuple(name for name in BertConfig.__dataclass_fields__ if name not in ("written", "model_type", "is_decoder"))


def read_config(folder: Path) -> BertConfig | None:
    """The configuration in a folder; None where there is none, or one of an encoder that is not known here."""
    written = read_settings(folder / CONFIG, SIMPLE, ("model_type", *SIZES))
    if written is None or any(not isinstance(written[name], int | float) for name in SIZES):
        return None
    return BertConfig(written=written, **{name: written[name] for name in SIZES})


@dataclass(frozen=True, slots=True)
class Output:
    """What a forward pass gives."""

    last_hidden_state: Tensor
    """[B, S, H]."""


class BertModel(nn.Module):
    """The encoder; its pooler is kept, not computed."""

    def __init__(self, config: BertConfig, *, pooler: bool):
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Layers(config)
        self.pooler = _Pooler(config) if pooler else None

    @classmethod
    def from_folder(cls, folder: Path, config: BertConfig) -> BertModel | None:
        """Load what `TextEncoder.save` or `save_packed` wrote; None where weights have other names, or another file.

        Raises:
            CheckpointError: packed weights are damaged.
            SafetensorError, RuntimeError: damaged weights, or weights that do not fit.
        """
        if (folder / packing.FILE).is_file():
            state = packing.load_packed(folder)
        elif (folder / WEIGHTS).is_file():
            state = {name: weight.float() for name, weight in load_file(folder / WEIGHTS).items()}
        else:
            return None
        model = cls(config, pooler="pooler.dense.weight" in state)
        if model.state_dict().keys() != state.keys():
            return None
        model.load_state_dict(state, assign=True)
        return model

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Output:
        """States of sub-token ids [B, S], or of sub-tokens that have been looked up [B, S, H]. `attention_mask`: 1 on
        what is read [B, S], or [B, 1, S, S] what each reads."""
        if inputs_embeds is None:
            inputs_embeds = self.embeddings.word_embeddings(input_ids)
        states = self.embeddings(inputs_embeds, position_ids)
        return Output(self.encoder(states, None if attention_mask is None else what_is_read(attention_mask)))


def reach(attention_mask: Tensor) -> Tensor:
    """Which tokens each one reads [B, 1, S, S] bool: the real ones (1), and those of its own number above 1."""
    read, reads = attention_mask[:, None, None, :], attention_mask[:, None, :, None]
    return (read == 1) | ((read > 1) & (read == reads))


def what_is_read(attention_mask: Tensor) -> Tensor | None:
    """What is read [B, 1, 1 or S, S] bool; None where that is everything, which attention has a faster way for."""
    reads = attention_mask > 0
    if reads.ndim > 2:
        return reads
    if bool(reads.all()):
        return None
    return reads[:, None, None, :]


class _Embeddings(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inputs_embeds: Tensor, position_ids: Tensor | None) -> Tensor:
        if position_ids is None:
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None]
        states = inputs_embeds + self.token_type_embeddings.weight[0] + self.position_embeddings(position_ids)
        found: Tensor = self.dropout(self.LayerNorm(states))
        return found


class _Layers(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, states: Tensor, reads: Tensor | None) -> Tensor:
        for layer in self.layer:
            states = layer(states, reads)
        return states


class Layer(nn.Module):
    """Attention, then an inner layer; each half is added to what it read, and normed."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Intermediate(config)
        self.output = _Output(config.intermediate_size, config)

    def forward(self, states: Tensor, reads: Tensor | None) -> Tensor:
        mixed = self.attention(states, reads)
        found: Tensor = self.output(self.intermediate(mixed), mixed)
        return found


class _Attention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Output(config.hidden_size, config)

    def forward(self, states: Tensor, reads: Tensor | None) -> Tensor:
        found: Tensor = self.output(self.self(states, reads), states)
        return found


class _SelfAttention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        width = config.hidden_size
        self.num_attention_heads = config.num_attention_heads
        self.query, self.key, self.value = Linear(width, width), Linear(width, width), Linear(width, width)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, states: Tensor, reads: Tensor | None) -> Tensor:
        parts = self.query(states), self.key(states), self.value(states)
        return attended(*parts, self.num_attention_heads, reads, self.dropout.p if self.training else 0.0)


class _Intermediate(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)

    def forward(self, states: Tensor) -> Tensor:
        return functional.gelu(self.dense(states))


class _Output(nn.Module):
    """The end of either half of a layer: projected back, added to what the half read, normed."""

    def __init__(self, width: int, config: BertConfig):
        super().__init__()
        self.dense = Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, states: Tensor, read: Tensor) -> Tensor:
        found: Tensor = self.LayerNorm(self.dropout(self.dense(states)) + read)
        return found


class _Pooler(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
