"""The folder of a whole model: what `extractor.json` says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from moreie.encoders.places import located
from moreie.errors import CheckpointError
from moreie.models.mixture import MIXTURE_FILE
from moreie.retrieval.settings import Mode

EXTRACTOR_FILE = "extractor.json"


class ExtractorSpec(BaseModel):
    """`extractor.json`: which mixtures make up the model and how their evidence is retrieved.

    `ner` and `relations` are folders relative to it, `image_encoder` one, too, or a hub id; `shipped:…` is what ships
    with the package (`encoders.places`). `image_floor` is the least cosine similarity at which an article picture
    counts as evidence. `text_mode`: how text evidence is found (`retrieval.settings`); experts read best what they were
    trained with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ner: str
    relations: str | None = None
    image_encoder: str | None = None
    k: int = 10
    image_floor: float = 0.0
    text_mode: Mode = "sentences"
    format: int = 1

    def place(self, task: Literal["ner", "re"], folder: Path) -> Path:
        """The folder of a task's mixture, where `folder` is the model's.

        Raises:
            CheckpointError: the model has no mixture of that task.
        """
        name = self.ner if task == "ner" else self.relations
        if name is None:
            raise CheckpointError(f"{folder}: finds no relations")
        return folder / located(name, folder)


def read_extractor_spec(folder: Path) -> ExtractorSpec:
    """What a model folder says of itself; a run of `moreie train` for NER is one, too.

    Raises:
        CheckpointError: it is none, or says something else than this version reads.
    """
    path = folder / EXTRACTOR_FILE
    if not path.is_file():
        if (folder / MIXTURE_FILE).is_file():
            return ExtractorSpec(name=folder.name, ner=".")
        raise CheckpointError(f"{folder}: no {EXTRACTOR_FILE}, so this is no model folder")
    try:
        return ExtractorSpec.model_validate_json(path.read_bytes())
    except ValidationError as problem:
        error = problem.errors()[0]
        raise CheckpointError(f"{path}: {'.'.join(map(str, error['loc']))}: {error['msg']}") from problem
