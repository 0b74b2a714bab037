"""Parts worked on by a real Ray cluster of several worker processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreie.encoders.images import ImageEncoder
from moreie.errors import DataFormatError, KnowledgeCorpusError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.update import embed
from moreie.knowledge.verify import verify
from moreie.knowledge.workers import LocalWorkers, RayWorkers, workers_of
from moreie.shipped import IMAGE_ENCODER


def test_workers_by_name() -> None:
    assert workers_of("3") == LocalWorkers(3)
    assert workers_of("ray") == RayWorkers()
    assert workers_of("ray://head:10001") == RayWorkers("ray://head:10001")
    assert isinstance(workers_of(None), LocalWorkers)
    for wrong in ("0", "-1", "many", "http://x"):
        with pytest.raises(KnowledgeCorpusError, match="expected a number"):
            workers_of(wrong)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayWorkers]:
    ray = pytest.importorskip("ray", reason="ray is not installed (it has no build for this platform)")
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield RayWorkers()
    ray.shutdown()


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "articles.jsonl"
    with path.open("w") as out:
        for i in range(100_000):
            row = {"id": str(i), "title": f"Title {i}", "paragraphs": [f"Lead of {i}. It is short.", "A body." * 20]}
            out.write(json.dumps(row) + "\n")
    return path


@pytest.mark.slow
def test_a_corpus_built_on_ray_is_the_one_built_here(cluster: RayWorkers, articles: Path, tmp_path: Path) -> None:
    here = build_corpus(tmp_path / "here", Sources(articles=(articles,)), workers=LocalWorkers(1))
    there = build_corpus(tmp_path / "there", Sources(articles=(articles,)), workers=cluster)
    assert there.manifest.digest == here.manifest.digest
    assert verify(tmp_path / "there") == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_ray_worker_killed_half_way_costs_nothing(cluster: RayWorkers, articles: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        while not any((tmp_path / "corpus.partial").glob("parts/[0-9]*")):
            time.sleep(0.002)
        for pid in working():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return

    killer = threading.Thread(target=kill)
    killer.start()
    report = build_corpus(tmp_path / "corpus", Sources(articles=(articles,)), workers=cluster)
    killer.join()
    assert killed
    assert report.manifest.articles == 100_000
    assert verify(tmp_path / "corpus") == []


def working() -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cmdline").read_bytes().startswith(b"ray::read_part"):
                found.append(int(place.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_pictures_are_embedded_on_ray_as_here(cluster: RayWorkers, tmp_path: Path, data: Path) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(json.dumps({"file": f"{i}.png", "title": "London"}) + "\n")
    (tmp_path / "images.jsonl").write_text("".join(lines))
    sources = Sources(articles=(data / "articles.jsonl",), images=((tmp_path / "images.jsonl", tmp_path),))
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    reports = [
        build_corpus(tmp_path / name, sources, image_encoder=encoder, workers=workers)
        for name, workers in (("here", LocalWorkers(1)), ("there", cluster))
    ]
    assert reports[0].manifest.digest == reports[1].manifest.digest
    assert reports[1].manifest.images == 3
    assert verify(tmp_path / "there") == []


@pytest.mark.slow
def test_introductions_are_embedded_on_ray_as_here(
    cluster: RayWorkers, small_corpus: Path, clip: ImageEncoder, tmp_path: Path
) -> None:
    found = []
    for name, workers in (("here", LocalWorkers(1)), ("there", cluster)):
        corpus = Path(shutil.copytree(small_corpus, tmp_path / name))
        assert embed(corpus, clip, workers=workers).introductions > 5
        assert verify(corpus) == []
        query = clip.encode_texts(["London"])
        rows = KnowledgeCorpus.open(corpus).search_introductions(query, 5, encoder_fingerprint=clip.fingerprint)
        found.append([(passage.id, score) for passage, score in rows[0]])
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_bad_source_is_the_same_error_on_ray(cluster: RayWorkers, tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    path.write_text('{"id": "1", "title": "A", "paragraphs": ["Text."]}\nnot json\n')
    with pytest.raises(DataFormatError, match=r"articles\.jsonl:2"):
        build_corpus(tmp_path / "corpus", Sources(articles=(path,)), workers=cluster)
