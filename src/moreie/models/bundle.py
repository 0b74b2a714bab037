"""A model folder read and written whole, and made self-contained: the encoders that it names elsewhere on this machine
are brought into it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moreie.encoders.fingerprints import record_fingerprint, recorded_fingerprint
from moreie.encoders.places import located, relative_name
from moreie.encoders.precision import default_device
from moreie.models.expert import CONFIG_FILE, EncoderPool
from moreie.models.folder import EXTRACTOR_FILE, ExtractorSpec, read_extractor_spec
from moreie.models.gate import SPEC_FILE
from moreie.models.mixture import Mixture, load_mixture
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.starting import collecting_later
from moreie.whole_files import replace_file

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder

ENCODERS = "encoders"
# Which key of which file names an encoder.
_NAMED_IN = {EXTRACTOR_FILE: "image_encoder", CONFIG_FILE: "encoder", SPEC_FILE: "image_encoder"}
# Weights of other libraries that hub folders hold as well: nothing here reads them.
_FOREIGN = frozenset({".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".gguf"})


@dataclass(frozen=True)
class Model:
    """What a model folder holds; no relations are found without a mixture for them, no pictures searched without an
    image encoder."""

    spec: ExtractorSpec
    ner: Mixture[NerExpert]
    relations: Mixture[RelationExpert] | None
    image_encoder: ImageEncoder | None


def read_model(folder: Path, *, pictures: bool = True) -> Model:
    """Load a model folder, without `pictures` no image encoder but one that a gate reads.

    Raises:
        CheckpointError: it is incomplete or damaged.
    """
    spec, pool = read_extractor_spec(folder), EncoderPool(default_device())
    encoder = spec.image_encoder if pictures else None
    with collecting_later():
        return Model(
            spec,
            load_mixture(spec.place("ner", folder), pool),
            load_mixture(spec.place("re", folder), pool) if spec.relations else None,
            pool.image_encoder(located(encoder, folder)) if encoder else None,
        )


def write_model(
    folder: Path, spec: ExtractorSpec, ner: Mixture[NerExpert], relations: Mixture[RelationExpert] | None
) -> None:
    """Write mixtures, where `spec` says that they lie, and `extractor.json`; encoders are brought into the folder."""
    mixtures: list[tuple[str | None, Mixture[Any] | None]] = [(spec.ner, ner), (spec.relations, relations)]
    for place, mixture in mixtures:
        if place is not None and mixture is not None:
            for expert in mixture.experts:
                expert.save(folder / place / expert.spec.name)
            mixture.save_spec(folder / place, mixture.names, {})
    (folder / EXTRACTOR_FILE).write_text(spec.model_dump_json(indent=2) + "\n")
    bring_encoders(folder)


def bring_encoders(folder: Path) -> list[Path]:
    """Copy every encoder folder that the model in `folder` names outside of it to `folder/encoders`, name the copies
    instead, and return them. A hub id stays what it is.
    """
    brought: dict[Path, Path] = {}
    for file in sorted(p for name in _NAMED_IN for p in folder.rglob(name)):
        key = _NAMED_IN[file.name]
        said = json.loads(file.read_bytes())
        if said.get(key) is None:
            continue
        source = Path(located(said[key], file.parent))
        if not source.is_dir() or source.is_relative_to(folder.resolve()):
            continue
        if source not in brought:
            brought[source] = _free(folder / ENCODERS, source.name, set(brought.values()))
            _copy(source, brought[source])
        said[key] = relative_name(str(brought[source]), file.parent)
        replace_file(file, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())
    return list(brought.values())


def _free(folder: Path, name: str, taken: set[Path]) -> Path:
    """A place no other encoder of this model has; what an earlier save left there is written over."""
    place, number = folder / name, 2
    while place in taken:
        place, number = folder / f"{name}-{number}", number + 1
    return place


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.startswith(".") and file.suffix not in _FOREIGN:
            shutil.copyfile(file, target / file.name)
    if known := recorded_fingerprint(source):
        record_fingerprint(target, known)
