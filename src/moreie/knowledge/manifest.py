"""`manifest.json`: what a corpus is, and the commit point of every change to it.

A change writes new versions of the store's tables and then replaces the manifest, which names those versions, in
one atomic rename: a reader sees all of a change or nothing of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.stores import in_cluster
from moreie.whole_files import replace_file

FILE = "manifest.json"


class SourceRecord(BaseModel):
    """A file that went into the corpus."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["articles", "dump", "images"]
    name: str
    bytes: int
    items: int
    skipped: int = 0


class ImageEncoderRecord(BaseModel):
    """The encoder whose embeddings the corpus keeps; searching with another is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    fingerprint: str
    dimension: int


class Manifest(BaseModel):
    """Counts, sources, encoder, and the table versions that make up this state (`revision`) of the corpus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    revision: int = 1
    created: str
    digest: str
    articles: int
    passages: int
    sentences: int
    images: int
    introductions: int = 0
    """Introductions that are embedded."""
    sources: tuple[SourceRecord, ...]
    image_encoder: ImageEncoderRecord | None = None
    tables: dict[str, int]
    next_key: int | None = None
    """First passage key never used; None where none was ever removed, so that it is `passages`."""

    @property
    def version(self) -> str:
        """Name of this state of the corpus, as results and caches record it."""
        return f"{self.digest}.{self.revision}"

    def other_encoder(self, location: Path | str, fingerprint: str) -> str | None:
        """What is wrong with an encoder of this fingerprint, in words, unless the embeddings are its own."""
        record = self.image_encoder
        if record is None or record.fingerprint == fingerprint:
            return None
        held = " and ".join(name for name in ("images", "introductions") if name in self.tables)
        return (
            f"{location}: its {held} were embedded by {record.name} ({record.fingerprint}), not by the encoder at hand "
            f"({fingerprint}); use that encoder, or build the corpus again"
        )


def read_manifest(folder: Path) -> Manifest:
    """Raises `KnowledgeCorpusError` when the folder holds no finished corpus that this version reads."""
    path = folder / FILE
    if in_cluster(folder):
        raise KnowledgeCorpusError(f"{folder}: a corpus in Milvus; this command reads corpus folders")
    if not folder.is_dir():
        hint = ""
        if folder.with_name(folder.name + ".partial").is_dir():
            hint = " A build of it was cut off: run the same `moreie corpus build` again."
        raise KnowledgeCorpusError(f"{folder}: no knowledge corpus there.{hint}")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise KnowledgeCorpusError(
            f"{folder}: no {FILE}, so its build never finished (or this is no corpus). Build it again."
        ) from None
    except ValidationError as problem:
        error = problem.errors()[0]
        raise KnowledgeCorpusError(
            f"{path}: damaged, or of another version ({'.'.join(map(str, error['loc']))}: {error['msg']})"
        ) from problem


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest in one step that survives a crash."""
    replace_file(folder / FILE, (manifest.model_dump_json(indent=2) + "\n").encode())
