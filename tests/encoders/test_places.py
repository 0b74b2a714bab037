"""How saved models name encoders, and where those are."""

from __future__ import annotations

from pathlib import Path

import pytest

from moreie.encoders.places import located, relative_name
from moreie.errors import CheckpointError
from moreie.models.folder import ExtractorSpec
from moreie.shipped import MODEL, TEXT_ENCODER


def test_what_ships_is_named_wherever_the_package_is(tmp_path: Path) -> None:
    name = relative_name(str(TEXT_ENCODER), tmp_path)
    assert name == "shipped:encoders/minilm"
    assert Path(located(name, tmp_path / "elsewhere")) == TEXT_ENCODER.resolve()


def test_another_folder_is_named_by_the_way_to_it(tmp_path: Path) -> None:
    encoder, model = tmp_path / "encoder", tmp_path / "runs" / "model"
    encoder.mkdir()
    model.mkdir(parents=True)
    name = relative_name(str(encoder), model)
    assert name == "../../encoder"
    assert Path(located(name, model)) == encoder.resolve()


def test_a_hub_id_stays(tmp_path: Path) -> None:
    assert relative_name("org/encoder", tmp_path) == located("org/encoder", tmp_path) == "org/encoder"


def test_a_model_may_have_the_shipped_entities(tmp_path: Path) -> None:
    spec = ExtractorSpec(name="mine", ner="shipped:models/default/ner", relations="../runs/re")
    assert spec.place("ner", tmp_path) == (MODEL / "ner").resolve()
    assert spec.place("re", tmp_path) == tmp_path / "../runs/re", "trained later"
    with pytest.raises(CheckpointError, match="no relations"):
        ExtractorSpec(name="mine", ner="ner").place("re", tmp_path)
