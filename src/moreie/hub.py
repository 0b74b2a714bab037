"""Models on a Hugging Face hub: found by their id, and published with a card that says what they are."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from moreie.errors import CheckpointError, HubError

if TYPE_CHECKING:
    from moreie.extractor import Extractor

CARD_FILE = "README.md"
_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# Seconds that the hub may take to answer at all; downloads may then take as long as they need.
PATIENCE = 5.0


def model_folder(place: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: `place` itself where there is such a folder, else the hub's model of that id (`org/name`),
    downloaded unless it is in the local cache. `revision`: a branch, tag or commit of the hub's.

    Raises:
        CheckpointError: there is neither.
    """
    folder = Path(place)
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"{place}: a folder on this machine has no revisions ({revision!r} was asked for)")
        return folder
    id = folder.as_posix()
    if not _ID.fullmatch(id):
        raise CheckpointError(f"{place}: no such folder; give a model folder, or a model's id on the hub, org/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(id, revision=revision, etag_timeout=PATIENCE))
    except _failures() as problem:
        raise CheckpointError(
            f"{place}: there is no such folder, and no model of that id came from the hub "
            f"({_first_line(problem)}). Is the path right? Or, if it is a hub id: is it spelt so, does this machine "
            "reach the hub, and may you read the model (`hf auth login`)?"
        ) from problem


def _failures() -> tuple[type[Exception], ...]:
    """What the hub's client raises where it is refused or reaches nobody: its own errors are OSErrors or, of names,
    ValueErrors; it lets those of its HTTP library through, and the RuntimeErrors of the one that moves large files."""
    from httpx import HTTPError

    return OSError, ValueError, RuntimeError, HTTPError


def publish(
    extractor: Extractor,
    repo_id: str,
    *,
    private: bool,
    revision: str | None,
    licence: str | None,
    scores: Mapping[str, float] | None,
    message: str,
) -> str:
    """What `Extractor.push_to_hub` does; the address of the commit.

    Raises:
        HubError: `repo_id` is no id, or the hub is not reached or refuses.
    """
    if not _ID.fullmatch(repo_id):
        raise HubError(f"{repo_id!r} is no id of a model on the hub; they are written org/name")
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as made:
        write_with_card(extractor, Path(made), repo_id, licence=licence, scores=scores)
        api = HfApi()
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repo_id, folder_path=made, revision=revision, commit_message=message)
        except _failures() as problem:
            raise HubError(
                f"{repo_id}: not published ({_first_line(problem)}). Does this machine reach the hub, and may you "
                "write there (`hf auth login`)?"
            ) from problem
    return str(done.commit_url)


def write_with_card(
    extractor: Extractor,
    folder: Path,
    repo_id: str,
    *,
    licence: str | None = None,
    scores: Mapping[str, float] | None = None,
) -> None:
    """Write what is published: the self-contained model folder and its card."""
    from moreie.rendering.model_card import model_card

    extractor.save_pretrained(folder)
    (folder / CARD_FILE).write_text(model_card(extractor, repo_id, licence=licence, scores=scores), encoding="utf-8")


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [""])[0] or type(problem).__name__
