"""Text encoders: a transformer and its tokenizer, with the project's marker tokens and optional adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from moreie.encoders import packing
from moreie.encoders.adapters import AdaptedLinear, AdapterConfig, adapted_layers, fill, put_adapter, put_empty_adapter
from moreie.encoders.bert import BertModel, reach, read_config, what_is_read
from moreie.encoders.fingerprints import record_fingerprint, recorded_fingerprint
from moreie.encoders.last_layer import at, has_known_layers, last_layer_at, up_to_the_last
from moreie.encoders.packed_rows import packed_rows
from moreie.encoders.ready_bert import ReadyBert, ready_for
from moreie.encoders.subtokens import RememberedSubtokens
from moreie.encoders.tokenizer import FolderTokenizer
from moreie.errors import EncoderError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from moreie.encoders.merging import Folded

SEPARATOR = "[X]"
HEAD_START, HEAD_END, TAIL_START, TAIL_END = "[E1]", "[/E1]", "[E2]", "[/E2]"
MARKERS = (SEPARATOR, HEAD_START, HEAD_END, TAIL_START, TAIL_END)
ADAPTER_FILE = "adapter.safetensors"
REMEMBERED = 1 << 19
"""Sub-tokens of words, and as many of longer texts, that an encoder remembers: 20 MB each."""


class TextEncoder(nn.Module):
    """A transformer whose last hidden states [B, S, H] the task models read.

    The same weights can carry several named adapters; the frozen trunk is then held once, however many experts
    share it. Markers missing from the vocabulary are added with embeddings drawn around the mean of the others,
    the same ones every time.
    """

    def __init__(
        self, model: PreTrainedModel | BertModel, tokenizer: PreTrainedTokenizerFast | FolderTokenizer, name: str
    ):
        super().__init__()
        self.model: Any = model
        self.tokenizer: Any = tokenizer
        self.name = name
        self._adapted: dict[str, AdaptedLinear] | None = None
        self.folded: dict[tuple[str | None, torch.dtype], Folded] = {}
        """Weights with an adapter folded in, or bare: see `encoders.merging.folded`."""
        self.blocks = 0
        """Of `encoders.merging` that are open."""
        self._words, self._texts = RememberedSubtokens(REMEMBERED), RememberedSubtokens(REMEMBERED)
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # "[E1]" in a post is text, not our marker
        self._add_markers()

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> TextEncoder:
        """Load from a hub id, a local folder in Hugging Face form, or a packed folder (`encoders.packing`).

        Raises:
            EncoderError: nothing loadable there, or the tokenizer has no fast (offset-aware) form.
        """
        name = str(name_or_path)
        try:
            model, tokenizer = _saved(Path(name)) or _published(name)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
            raise EncoderError(
                f"no text encoder at {name!r}: {str(problem).splitlines()[0]} Give a folder in Hugging Face form, "
                "or a hub id on a machine that reaches the hub."
            ) from problem
        if not tokenizer.is_fast:
            raise EncoderError(f"{name}: its tokenizer has no fast form, which word alignment needs")
        encoder = cls(model, tokenizer, name).eval()
        if known := recorded_fingerprint(Path(name)):
            encoder.fingerprint = known
        return encoder

    def _add_markers(self) -> None:
        if any(self.tokenizer.backend_tokenizer.token_to_id(marker) is None for marker in MARKERS):
            self.tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
        rows, new = self._embedding().shape[0], len(self.tokenizer)
        if new > rows:
            self.model.resize_token_embeddings(new, mean_resizing=False)
            weight = self._embedding()
            with torch.no_grad():
                known = weight[:rows].float()
                noise = torch.randn(new - rows, weight.shape[1], generator=torch.Generator().manual_seed(0))
                weight[rows:] = known.mean(0) + noise * known.std(0)

    def _embedding(self) -> Tensor:
        weight: Any = self.model.get_input_embeddings().weight
        return weight  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> TextEncoder:
        """As of every module; weights that are to change are not kept with an adapter folded in."""
        if mode:
            self.folded.clear()
        super().train(mode)
        return self

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.model.config.hidden_size)

    @property
    def embedding_size(self) -> int:
        """Of a sub-token that has been looked up; some encoders widen it to H behind."""
        return int(self._embedding().shape[1])

    @cached_property
    def max_length(self) -> int:
        """Sub-tokens the encoder can read at once, special tokens included."""
        positions = getattr(self.model.config, "max_position_embeddings", 0) or 512
        return int(min(positions - self._first_position, 512))

    @property
    def _first_position(self) -> int:
        """Where the model starts counting positions: RoBERTa-like ones do behind the padding index."""
        if self.model.config.model_type not in ("roberta", "xlm-roberta"):
            return 0
        return (getattr(self.model.config, "pad_token_id", None) or 0) + 1

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @cached_property
    def fingerprint(self) -> str:
        """Hash of architecture, vocabulary and weights: two encoders with the same one give the same states."""
        digest = hashlib.sha256()
        shape = {k: v for k, v in self.model.config.to_dict().items() if not k.startswith(("_", "transformers_"))}
        digest.update(json.dumps(shape, sort_keys=True, default=str).encode())
        vocabulary = self.tokenizer.get_vocab()
        digest.update(json.dumps([(token, vocabulary[token]) for token in sorted(vocabulary)]).encode())
        for name, tensor in sorted(self.trunk_state().items()):
            digest.update(name.encode())
            # Half precision: the hash survives a save and load in float32, bfloat16 noise aside.
            digest.update(tensor.detach().cpu().half().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def trunk_state(self) -> dict[str, Tensor]:
        """The encoder's own weights, without adapters, under their published names."""
        return {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in self.model.state_dict().items()
            if "lora_" not in name
        }

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None) -> Tensor:
        """States [B, S, H] of sub-token ids [B, S]; `attention_mask` [B, S] is 1 on real tokens.

        With `positions` [B, S], the places in the text that the tokens take (`takes_positions`), it may also be 2 or
        more, on tokens that only those of the same number read (`reach`).
        """
        if ready := ready_for(self.model):
            return self._by(ready, input_ids, attention_mask, positions)
        placed = self._placed(attention_mask, positions)
        states: Tensor = self.model(input_ids=input_ids, **placed).last_hidden_state
        return states

    def _by(
        self,
        ready: ReadyBert,
        input_ids: Tensor,
        attention_mask: Tensor,
        positions: Tensor | None,
        anchors: Tensor | None = None,
        anchor_counts: Tensor | None = None,
    ) -> Tensor:
        """`forward`, or `states_at`, by layers that have been made ready; without padding where they can."""
        embed, placed = self.model.get_input_embeddings(), self._placed(attention_mask, positions)
        rows = packed_rows(attention_mask) if len(input_ids) > 1 and ready.packs(input_ids.shape[1]) else None
        if rows is None:
            reads = what_is_read(placed["attention_mask"])
            return ready.states(embed(input_ids), reads, placed.get("position_ids"), anchors)
        reads = None if positions is None else placed["attention_mask"]
        at_places = rows.columns + self._first_position if positions is None else rows.pack(placed["position_ids"])
        return ready.packed_states(embed(rows.pack(input_ids)), rows, reads, at_places, anchors, anchor_counts)

    def _placed(self, attention_mask: Tensor, positions: Tensor | None) -> dict[str, Tensor]:
        if positions is None:
            return {"attention_mask": attention_mask}
        return {"attention_mask": reach(attention_mask), "position_ids": positions + self._first_position}

    def states_at(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        anchors: Tensor,
        positions: Tensor | None = None,
        anchor_counts: Tensor | None = None,
    ) -> Tensor:
        """What `forward` gives at the tokens `anchors` [B, A] of each row: [B, A, H], at less cost where it may be. At
        anchors behind the first `anchor_counts` [B] of a row it may give anything."""
        if ready := ready_for(self.model):
            return self._by(ready, input_ids, attention_mask, positions, anchors, anchor_counts)
        placed = self._placed(attention_mask, positions)
        if self._without_last is None:
            return at(self.model(input_ids=input_ids, **placed).last_hidden_state, anchors)
        hidden = self._without_last(input_ids=input_ids, **placed).last_hidden_state
        reads = placed["attention_mask"]
        if reads.ndim == 2:
            reads = reads[:, None, None, :] > 0
        else:
            reads = reads.gather(2, anchors[:, None, :, None].expand(-1, -1, -1, reads.shape[3]))
        return last_layer_at(self.model, hidden, reads, anchors)

    @cached_property
    def _without_last(self) -> Any:
        """The model up to its last layer; None where `encoders.last_layer` does not know it."""
        return up_to_the_last(self.model) if has_known_layers(self.model) else None

    @cached_property
    @torch.no_grad()
    def takes_positions(self) -> bool:
        """Whether a token's states follow from its position and what it may read alone, wherever it stands in the row.

        Models with relative positions (MPNet, DeBERTa) go by the row. Found out by trying.
        """
        ids = torch.tensor(self.framed(self.subtokens(["one two three"])[0]), device=self.device)
        order = torch.arange(len(ids), device=self.device).flip(0)
        training = self.training
        try:
            self.eval()
            mask = torch.ones_like(ids)[None]
            usual = self(ids[None], mask)
            turned = self(ids[order][None], mask, order[None])
        except (RuntimeError, TypeError, ValueError):
            return False
        finally:
            self.train(training)
        return torch.allclose(usual[:, order], turned, atol=1e-3)

    def subtokens(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """Sub-token ids of whole texts, no special tokens, at most one tokenizer call."""
        return self._texts(texts, self._tokenized)

    def word_subtokens(self, posts: Sequence[Sequence[str]]) -> list[list[Sequence[int]]]:
        """Sub-token ids of each word of each post, at most one tokenizer call; a word unknown to the tokenizer is
        [UNK]."""
        unknown = [self.tokenizer.unk_token_id]
        # Words go in one flat list: as "pre-tokenised input" some tokenizers merge or lose odd words.
        prefix = " " if self._marks_word_starts else ""
        pieces = iter(self._words([prefix + word for post in posts for word in post], self._tokenized))
        return [[next(pieces) or unknown for _ in post] for post in posts]

    def forget(self) -> None:
        """Forget the sub-tokens of all texts read so far."""
        self._words.forget()
        self._texts.forget()

    def _tokenized(self, texts: list[str]) -> list[list[int]]:
        encodings = self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [e.ids for e in encodings]

    @cached_property
    def _marks_word_starts(self) -> bool:
        """Byte-level vocabularies (RoBERTa, GPT) tell 'word' from ' word'; WordPiece and SentencePiece do not."""
        backend = self.tokenizer.backend_tokenizer
        parts = [part.__getstate__() for part in (backend.normalizer, backend.pre_tokenizer) if part is not None]
        return any(b"ByteLevel" in part for part in parts) and any(t.startswith("Ġ") for t in backend.get_vocab())

    def marker_ids(self, *markers: str) -> list[int]:
        """Vocabulary indices of markers."""
        return [self._markers[marker] for marker in markers]

    @cached_property
    def _markers(self) -> dict[str, int]:
        indices: Any = self.tokenizer.convert_tokens_to_ids(list(MARKERS))
        return dict(zip(MARKERS, map(int, indices), strict=True))

    def framed(self, ids: Sequence[int]) -> list[int]:
        """Sub-token ids between the encoder's first and last special tokens."""
        first, last = self.frame
        return [*first, *ids, *last]

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and behind what the encoder reads: one or none each."""
        names = self.tokenizer
        first = names.cls_token_id if names.cls_token_id is not None else names.bos_token_id
        last = names.sep_token_id if names.sep_token_id is not None else names.eos_token_id
        return [first] if first is not None else [], [last] if last is not None else []

    # --- adapters -----------------------------------------------------------------------------------------------

    def add_adapter(self, name: str, config: AdapterConfig) -> None:
        """Freeze the trunk and put a fresh adapter on every linear layer; it becomes the active one."""
        self._adapted = put_adapter(self.model, name, config)
        self.use_adapter(name)

    def add_empty_adapter(self, name: str, config: AdapterConfig) -> None:
        """`add_adapter` without drawing its weights, for `load_adapter_state` to fill."""
        self._adapted = put_empty_adapter(self.model, name, config, self._adapted)
        self.use_adapter(name)

    def use_adapter(self, name: str | None) -> None:
        """Make one adapter active, or none (the bare trunk)."""
        for layer in self.adapted_layers().values():
            layer.use(name)

    def adapted_layers(self) -> dict[str, AdaptedLinear]:
        """By name the layers that carry adapters."""
        if self._adapted is None:
            self._adapted = adapted_layers(self.model)
        return self._adapted

    def adapter_state(self, name: str) -> dict[str, Tensor]:
        """The weights of one adapter, without its name in the keys, the very tensors."""
        found = {}
        for path, layer in self.adapted_layers().items():
            if name in layer.scaling:
                found[f"{path}.lora_A.weight"], found[f"{path}.lora_B.weight"] = layer.weights(name)
        return {path: weight.detach() for path, weight in found.items()}

    def load_adapter_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Fill an adapter added by `add_adapter`. Raises `EncoderError` when the weights do not fit the trunk."""
        if odd := fill(self.adapter_state(name), state):
            raise EncoderError(f"adapter {name!r} was made for another encoder ({len(odd)} tensors differ, {odd[0]})")

    def save_adapter(self, name: str, folder: Path) -> None:
        """Write one adapter in half precision."""
        state = {k: v.detach().cpu().half().contiguous() for k, v in self.adapter_state(name).items()}
        save_file(state, folder / ADAPTER_FILE, metadata={"format": "pt"})

    # --- saving -------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write trunk and tokenizer in Hugging Face form (safetensors and JSON)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.config.save_pretrained(folder)
        state = {k: v.detach().cpu().contiguous() for k, v in self.trunk_state().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        self.tokenizer.save_pretrained(folder)

    def save_packed(self, folder: Path, *, matrix_bits: int, embedding_bits: int) -> None:
        """Write trunk and tokenizer in a packed form (`encoders.packing`)."""

        def bits(name: str) -> int:
            return embedding_bits if "embedding" in name else matrix_bits

        folder.mkdir(parents=True, exist_ok=True)
        packing.save_packed(self.trunk_state(), folder, bits)
        self.model.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        record_fingerprint(folder, TextEncoder.from_pretrained(folder).fingerprint)


def _saved(folder: Path) -> tuple[BertModel, FolderTokenizer] | None:
    """A BERT and its tokenizer that know the project's markers, as `TextEncoder.save` writes them; None for others."""
    config = read_config(folder)
    tokenizer = FolderTokenizer.from_folder(folder) if config else None
    if config is None or tokenizer is None or len(tokenizer) > config.vocab_size:
        return None
    if any(tokenizer.backend_tokenizer.token_to_id(marker) is None for marker in MARKERS):
        return None
    model = BertModel.from_folder(folder, config)
    return (model, tokenizer) if model else None


def _published(name: str) -> tuple[Any, Any]:
    """An encoder and its tokenizer by `transformers`.

    Raises:
        OSError, ValueError, KeyError, RuntimeError: nothing loadable there.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(name, use_fast=True)
    packed = (Path(name) / packing.FILE).is_file()
    model = packing.load_model(Path(name)) if packed else AutoModel.from_pretrained(name, dtype=torch.float32)
    return model, tokenizer


def batch_tensors(rows: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Rows of ids padded to one [B, S] tensor, and its attention mask [B, S]."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    real = np.arange(lengths.max(initial=0)) < lengths[:, None]
    ids = np.full(real.shape, padding, np.int64)
    ids[real] = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    return torch.from_numpy(ids), torch.from_numpy(real.astype(np.int64))


def describe(encoder: TextEncoder) -> dict[str, Any]:
    """What a checkpoint or a result row records of an encoder."""
    return {"name": encoder.name, "fingerprint": encoder.fingerprint}
