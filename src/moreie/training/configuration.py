"""What a result, and what an expert depends on: two of one configuration differ in nothing but chance."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from moreie.digests import file_digest, folder_digest
from moreie.errors import RecipeError
from moreie.models.expert import weights_fingerprint
from moreie.retrieval.cache import read_header
from moreie.training.mention_types import typing_expert
from moreie.training.recipe import ExpertRecipe, Recipe
from moreie.whole_files import replace_file

FILE = "configuration.json"
# Settings that are younger than experts that may be there, and what they are when off: then they are left out, so that
# such an expert is still known as what it is.
YOUNGER: dict[str, Any] = {
    "adversarial": 0.0,
    "mention_types": None,
    "image_encoder": None,
    "joint": None,
    "gates": {},
    "swapped_none": False,
    "spans": None,
    "words": "written",
}


def configuration(recipe: Recipe, split: str = "validation") -> dict[str, Any]:
    """All that scores on a split depend on: the recipe, without its seeds and where files lie, and the headers of its
    evidence files. The test split counts only for scores on it.

    Raises:
        DataFormatError: an evidence file is missing or damaged.
        CheckpointError: the model that gives mentions their types is not there or incomplete.
    """
    left_out: dict[str, Any] = {"output": True, "seeds": True, "retrieval": True}
    if split != "test":
        left_out["data"] = {"test"}
    said: dict[str, Any] = _named(recipe.model_dump(exclude=left_out))
    said["encoder"] = encoder_name(recipe)
    for gate in (said["gate"], *said.get("gates", {}).values()):
        if gate.get("image_encoder"):
            gate["image_encoder"] = _encoder_name(gate["image_encoder"])
    said["evidence"] = {
        f"{name}, {retriever}": read_header(path).model_dump(mode="json")
        for name, files in recipe.splits.items()
        if name in ("train", "validation", split)
        for retriever, path in sorted(files.evidence.items())
    }
    if recipe.data.mention_types:
        said["data"]["mention_types"] = _typing_model(recipe.data.mention_types)
    return said


def expert_configuration(recipe: Recipe, expert: ExpertRecipe) -> dict[str, Any]:
    """All that an expert depends on: its own settings and evidence, the posts, the encoder, its teacher, who gives its
    markers their types, and the expert that it starts from. What files hold is known by digests, not names.

    Raises:
        DataFormatError: an evidence file is missing or damaged.
        CheckpointError: the model that gives mentions their types is not there or incomplete.
    """
    kept = {"task", "encoder", "adapter", "teacher", "swapped_none"}
    said: dict[str, Any] = _named(recipe.model_dump(include=kept))
    said["encoder"] = encoder_name(recipe)
    said["encoder_digest"] = _folder_digest(Path(recipe.encoder).resolve())
    if recipe.teacher:
        said["teacher"]["digest"] = _folder_digest(recipe.teacher.expert.resolve())
        said["teacher"]["extra_digests"] = [file_digest(path) for path in recipe.teacher.extra_posts]
    said["labels"] = recipe.data.labels.name if recipe.data.labels else None
    said["held_out"] = recipe.gate.held_out
    said["expert"] = _named(expert.model_dump(exclude={"start_from"}))
    said["expert"]["training"] = _named((expert.training or recipe.training).model_dump())
    retriever = expert.view.retriever
    for split in ("train", "validation"):
        files = recipe.splits[split]
        said[split] = {
            "posts": files.posts.name,
            "digest": file_digest(files.posts),
            "evidence": read_header(files.evidence[retriever]).model_dump(mode="json") if retriever else None,
        }
    if recipe.data.mention_types and expert.view.markers == "typed":
        said["mention_types"] = _typing_model(recipe.data.mention_types)
    parents = {e.name: e for e in recipe.experts}
    said["start_from"] = expert_configuration(recipe, parents[expert.start_from]) if expert.start_from else None
    return said


def joint_configuration(recipe: Recipe) -> dict[str, Any]:
    """All that experts trained together depend on: what they did alone, the gate over them, and how they went on.

    Raises:
        DataFormatError: an evidence file is missing or damaged.
    """
    members = {e.name: expert_configuration(recipe, e) for e in recipe.experts if e.name in recipe.members}
    return {"experts": members, "gate": _named(recipe.gate.model_dump())}


def claim(folder: Path, current: dict[str, Any]) -> None:
    """Note in the folder of an expert what it depends on, before it is trained.

    Raises:
        RecipeError: what is there already depends on something else, or on nobody knows what.
    """
    before = read(folder)
    if before == current:
        return
    if before is not None:
        raise RecipeError(
            f"{folder} holds an expert of another configuration ({', '.join(differences(before, current))} changed); "
            "move it away, or give the recipe another output"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise RecipeError(f"{folder} holds an expert of unknown configuration; move it away")
    write(folder, current)


def check(folder: Path, current: dict[str, Any]) -> None:
    """See that what was trained in a folder is what the recipe says now.

    Raises:
        RecipeError: it is of another configuration, or of nobody knows which.
    """
    before = read(folder)
    if before != current:
        changed = f"({', '.join(differences(before, current))} changed)" if before else "that is not noted"
        raise RecipeError(f"{folder}: trained with another configuration {changed}; run `moreie train` again")


def read(folder: Path) -> dict[str, Any] | None:
    """What a folder's contents depend on, None where that is not noted."""
    path = folder / FILE
    if not path.is_file():
        return None
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return said


def write(folder: Path, current: dict[str, Any]) -> None:
    """Note what a folder's contents depend on, in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / FILE, (json.dumps(current, indent=2) + "\n").encode())


def differences(before: Any, current: Any, place: str = "") -> list[str]:
    """Where two configurations differ, as dotted names."""
    if not isinstance(before, dict) or not isinstance(current, dict):
        return [] if before == current else [place]
    keys = sorted({*before, *current})
    found = (differences(before.get(key), current.get(key), f"{place}.{key}" if place else key) for key in keys)
    return [name for names in found for name in names]


def digest(configuration: dict[str, Any]) -> str:
    """A short name of a configuration."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:12]


@cache
def _folder_digest(folder: Path) -> str | None:
    """Read once: an encoder is large, and every expert of a run asks. None for an encoder of the hub."""
    return folder_digest(folder)


def encoder_name(recipe: Recipe) -> str:
    """The hub id, or the name of the folder."""
    return _encoder_name(recipe.encoder)


def _encoder_name(name: str) -> str:
    return Path(name).name if Path(name).is_dir() else name


def _typing_model(folder: Path) -> dict[str, str]:
    """The expert that gives the types; its place does not matter, its weights do."""
    expert = typing_expert(folder)
    return {"name": expert.name, "weights": weights_fingerprint(expert)}


def _named(node: Any) -> Any:
    """The same with file names in place of paths, with lists in place of tuples, as JSON gives it back, and without
    `YOUNGER` settings that are off."""
    if isinstance(node, dict):
        return {k: _named(v) for k, v in node.items() if k not in YOUNGER or v != YOUNGER[k]}
    if isinstance(node, (list, tuple)):
        return [_named(value) for value in node]
    return node.name if isinstance(node, Path) else node
