"""What a result depends on, with a name: two runs of one name differ in nothing but chance."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from moreie.retrieval.cache import read_header
from moreie.training.recipe import Recipe


def configuration(recipe: Recipe, split: str = "validation") -> dict[str, Any]:
    """All that scores on a split depend on: the recipe, without its seeds and where files lie, and the headers of its
    evidence files. The test split counts only for scores on it.

    Raises:
        DataFormatError: an evidence file is missing or damaged.
    """
    left_out: dict[str, Any] = {"output": True, "seeds": True, "retrieval": True}
    if split != "test":
        left_out["data"] = {"test"}
    said: dict[str, Any] = _named(recipe.model_dump(exclude=left_out))
    said["encoder"] = encoder_name(recipe)
    said["evidence"] = {
        f"{name}, {retriever}": read_header(path).model_dump(mode="json")
        for name, files in recipe.splits.items()
        if name in ("train", "validation", split)
        for retriever, path in sorted(files.evidence.items())
    }
    return said


def digest(configuration: dict[str, Any]) -> str:
    """A short name of a configuration."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:12]


def encoder_name(recipe: Recipe) -> str:
    """The hub id, or the name of the folder."""
    return Path(recipe.encoder).name if Path(recipe.encoder).is_dir() else recipe.encoder


def _named(node: Any) -> Any:
    """The same with file names in place of paths, and with lists in place of tuples, as JSON gives it back."""
    if isinstance(node, dict):
        return {key: _named(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_named(value) for value in node]
    return node.name if isinstance(node, Path) else node
