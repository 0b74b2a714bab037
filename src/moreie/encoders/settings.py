"""The JSON files of settings in an encoder's folder, as `transformers` names and writes them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

CONFIG = "config.json"
FOREIGN = frozenset({"quantization_config", "auto_map", "torch_dtype"})
"""What no encoder has that is read without `transformers`."""


def read_settings(path: Path, known: Mapping[str, Any], needed: Collection[str]) -> dict[str, Any] | None:
    """Settings; None where there are none, or where they lack what is `needed` or differ from what is `known`."""
    try:
        written = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(written, dict) or FOREIGN & written.keys() or not written.keys() >= {*needed}:
        return None
    return written if all(written.get(key, usual) == usual for key, usual in known.items()) else None


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write settings as `transformers` does."""
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
