"""The tokenizer of an encoder's folder by `tokenizers` alone, under the names that a fast tokenizer of `transformers`
has for the same things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from moreie.encoders.settings import read_settings, write_settings
from moreie.errors import CheckpointError

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"


class FolderTokenizer:
    """Splits texts into sub-tokens, and knows the special ones by their roles."""

    is_fast = True

    def __init__(self, backend: tokenizers.Tokenizer, settings: Mapping[str, Any]):
        self.backend_tokenizer = backend
        self._settings = settings
        self.unk_token_id = self._id("unk_token")
        self.pad_token_id = self._id("pad_token")
        self.cls_token_id = self._id("cls_token")
        self.sep_token_id = self._id("sep_token")
        self.mask_token_id = self._id("mask_token")
        self.bos_token_id = self._id("bos_token")
        self.eos_token_id = self._id("eos_token")

    @classmethod
    def from_folder(cls, folder: Path) -> FolderTokenizer | None:
        """What a tokenizer of `transformers` has written there; None where there is nothing of the kind.

        Raises:
            CheckpointError: it is damaged.
        """
        settings, path = read_settings(folder / SETTINGS, {}, ()), folder / FILE
        if settings is None or not path.is_file():
            return None
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)), settings)
        except Exception as problem:  # the library raises nothing narrower
            raise CheckpointError(f"{path}: damaged tokenizer ({problem}); fetch the file again") from problem

    def _id(self, role: str) -> int | None:
        token = self._settings.get(role)
        content = token.get("content") if isinstance(token, dict) else token
        return None if content is None else self.backend_tokenizer.token_to_id(content)

    @cached_property
    def all_special_ids(self) -> list[int]:
        """Of the special tokens, in the vocabulary's order."""
        return sorted(id for id, token in self.backend_tokenizer.get_added_tokens_decoder().items() if token.special)

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    def get_vocab(self) -> dict[str, int]:
        """Every token's id."""
        return self.backend_tokenizer.get_vocab()

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int | None]:
        """Ids of tokens; of unknown ones that of the unknown token."""
        found = map(self.backend_tokenizer.token_to_id, tokens)
        return [self.unk_token_id if id is None else id for id in found]

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`."""
        self.backend_tokenizer.save(str(Path(folder) / FILE))
        write_settings(Path(folder) / SETTINGS, self._settings)
