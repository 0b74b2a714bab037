"""The tokenizer of an encoder's folder by `tokenizers` alone, under the names that a fast tokenizer of `transformers`
has for the same things."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
ROLES = ("unk", "pad", "cls", "sep", "mask", "bos", "eos")


class FolderTokenizer:
    """Splits texts into sub-tokens, and knows the special ones by their roles."""

    is_fast = True

    def __init__(self, backend: tokenizers.Tokenizer, settings: Mapping[str, Any]):
        self.backend_tokenizer = backend
        self._settings = settings
        self._ids = {role: self._id(settings.get(f"{role}_token")) for role in ROLES}

    @classmethod
    def from_folder(cls, folder: Path) -> FolderTokenizer | None:
        """What a tokenizer of `transformers` has written there; None where there is nothing of the kind."""
        try:
            settings = json.loads((folder / SETTINGS).read_bytes())
            written = (folder / FILE).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        try:
            backend = tokenizers.Tokenizer.from_str(written)
        except Exception:  # the library raises nothing narrower; `transformers`, asked next, says what is wrong
            return None
        return cls(backend, settings) if isinstance(settings, dict) else None

    def _id(self, token: Any) -> int | None:
        content = token.get("content") if isinstance(token, dict) else token
        return None if content is None else self.backend_tokenizer.token_to_id(content)

    @property
    def unk_token_id(self) -> int | None:
        return self._ids["unk"]

    @property
    def pad_token_id(self) -> int | None:
        return self._ids["pad"]

    @property
    def cls_token_id(self) -> int | None:
        return self._ids["cls"]

    @property
    def sep_token_id(self) -> int | None:
        return self._ids["sep"]

    @property
    def mask_token_id(self) -> int | None:
        return self._ids["mask"]

    @property
    def bos_token_id(self) -> int | None:
        return self._ids["bos"]

    @property
    def eos_token_id(self) -> int | None:
        return self._ids["eos"]

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
        settings = json.dumps(self._settings, indent=2, sort_keys=True, ensure_ascii=False)
        (Path(folder) / SETTINGS).write_text(settings + "\n", encoding="utf-8")
