"""Models from the hub's cache, and folders that are whole. No hub is asked: uploads are not tested."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from moreie import Extractor
from moreie.errors import CheckpointError, HubError
from moreie.hub import model_folder, write_with_card
from moreie.shipped import SHIPPED

TEXT = "Barack Obama meets Angela Merkel in Berlin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def published(extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "model"
    write_with_card(extractor, folder, "org/name", licence="apache-2.0", scores={"F1, own posts": 81.25})
    return folder


def test_a_saved_model_is_whole_and_loads_wherever_it_is_moved(
    extractor: Extractor, published: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(published, tmp_path / "a" / "b" / "c" / "moved")
    named = {
        str(file.relative_to(moved)): (file.parent / said[key]).resolve()
        for file in moved.rglob("*.json")
        for said in [json.loads(file.read_text())]
        for key in ("encoder", "image_encoder")
        if file.name in ("extractor.json", "expert.json", "gate.json") and said.get(key)
    }
    assert len(named) == 7, "six experts' and the one for pictures"
    assert {place.relative_to(moved.resolve()).as_posix() for place in named.values()} == {
        "encoders/minilm",
        "encoders/dinov2-small",
    }
    assert str(SHIPPED) not in "".join(f.read_text() for f in moved.rglob("*.json"))
    assert Extractor.from_pretrained(moved).extract(TEXT) == extractor.extract(TEXT)


def test_the_card_says_what_the_model_is(published: Path, extractor: Extractor) -> None:
    card = (published / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "moreie"
    for said in ("org/name", "LOC, MISC, ORG, PER", "`/per/org/member_of`", "81.25", "minilm, adapter of rank 16"):
        assert said in card
    assert "`None`" not in card


def test_a_model_of_the_hubs_cache_is_loaded_by_its_id(
    published: Path, extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the client lays its cache out: contents once under blobs, links to them in the snapshot of a commit.
    repo = tmp_path / "cache" / "models--org--name"
    for number, file in enumerate(sorted(f for f in published.rglob("*") if f.is_file())):
        blob, link = repo / "blobs" / str(number), repo / "snapshots" / COMMIT / file.relative_to(published)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    loaded = Extractor.from_pretrained("org/name")
    assert loaded.extract(TEXT) == extractor.extract(TEXT)
    assert model_folder("org/name", "main") == repo / "snapshots" / COMMIT
    loaded.save_pretrained(tmp_path / "again")
    assert not [f for f in (tmp_path / "again").rglob("*") if f.is_symlink()]
    with pytest.raises(CheckpointError, match="no model of that id came from the hub"):
        Extractor.from_pretrained("org/another")
    with pytest.raises(HubError, match="offline"):
        extractor.push_to_hub("org/name")


def test_neither_a_folder_nor_a_hub_that_answers_is_said_at_once(tmp_path: Path) -> None:
    code = (
        "from moreie.errors import MoreieError\n"
        "from moreie.hub import model_folder\n"
        "try:\n    model_folder('runs/seed-1')\nexcept MoreieError as problem:\n    print(problem)\n"
    )
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path)}
    begun = time.process_time()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert time.process_time() - begun < 5
    assert done.returncode == 0, done.stderr
    assert "runs/seed-1: there is no such folder, and no model of that id came from the hub" in done.stdout
    assert "Connection refused" in done.stdout


def test_what_is_neither_a_folder_nor_an_id_is_not_sought_on_the_hub(tmp_path: Path, extractor: Extractor) -> None:
    for place in ("nowhere", "/no/where", "a/b/c", "https://org/name"):
        with pytest.raises(CheckpointError, match="no such folder"):
            model_folder(place)
    with pytest.raises(CheckpointError, match="no revisions"):
        model_folder(tmp_path, "main")
    assert model_folder(tmp_path) == tmp_path
    with pytest.raises(HubError, match="org/name"):
        extractor.push_to_hub("just-a-name")
