"""Corpora built, described, cut off and damaged."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreie.encoders.images import ImageEncoder
from moreie.errors import DataFormatError, KnowledgeCorpusError, SourceError
from moreie.knowledge.build import build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.ingest import Sources
from moreie.knowledge.sources.images import read_image_manifest
from moreie.shipped import DEMO_CORPUS, IMAGE_ENCODER


def test_counts_and_versions(small_corpus: Path, data: Path, tmp_path: Path) -> None:
    manifest = KnowledgeCorpus.open(small_corpus).manifest
    rows = [json.loads(line) for line in (data / "articles.jsonl").read_text().splitlines()]
    assert manifest.articles == len(rows)
    assert manifest.passages == sum(len(row["paragraphs"]) for row in rows)
    assert manifest.sentences > manifest.passages
    again = build_corpus(tmp_path / "again", Sources(articles=(data / "articles.jsonl",)))
    assert again.manifest.digest == manifest.digest, "the same sources give the same version"
    half = tmp_path / "half.jsonl"
    half.write_text("".join(json.dumps(row) + "\n" for row in rows[:10]))
    other = build_corpus(tmp_path / "other", Sources(articles=(half,)))
    assert other.manifest.digest != manifest.digest


def test_an_existing_corpus_is_not_overwritten(small_corpus: Path, data: Path) -> None:
    with pytest.raises(KnowledgeCorpusError, match="already exists"):
        build_corpus(small_corpus, Sources(articles=(data / "articles.jsonl",)))


def test_sources_without_text_build_nothing(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    path.write_text('{"id": "1", "title": "T", "paragraphs": ["  "]}\n')
    with pytest.raises(KnowledgeCorpusError, match="nothing was built"):
        build_corpus(tmp_path / "corpus", Sources(articles=(path,)))
    assert not list(tmp_path.glob("*.partial")), "an error leaves nothing behind"
    with pytest.raises(SourceError, match="no such file"):
        build_corpus(tmp_path / "corpus2", Sources(articles=(tmp_path / "none.jsonl",)))


def test_malformed_articles_are_skipped_and_listed(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    path.write_text((data / "articles.jsonl").read_text() + "not json\n")
    with pytest.raises(DataFormatError, match=r"articles\.jsonl:29"):
        build_corpus(tmp_path / "strict", Sources(articles=(path,)))
    assert not (tmp_path / "strict").exists()
    report = build_corpus(tmp_path / "lenient", Sources(articles=(path,)), skip_bad=True)
    assert len(report.skipped) == 1
    assert "articles.jsonl:29" in report.skipped[0]
    assert report.manifest.sources[0].skipped == 1


def test_a_killed_build_leaves_no_corpus_and_can_be_run_again(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    with path.open("w") as out:
        for i in range(60_000):
            row = {"id": str(i), "title": f"Title {i}", "paragraphs": [f"Lead of {i}. It is short.", "A body."]}
            out.write(json.dumps(row) + "\n")
    corpus = tmp_path / "corpus"
    command = [sys.executable, "-m", "moreie", "corpus", "build", str(corpus), "--articles", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = corpus.with_name("corpus.partial")
    deadline = time.monotonic() + 120
    while not any(partial.glob("passages.lance/data/*")):
        assert process.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not corpus.exists()
    with pytest.raises(KnowledgeCorpusError, match="cut off: run the same"):
        KnowledgeCorpus.open(corpus)
    with pytest.raises(KnowledgeCorpusError, match="never finished"):
        KnowledgeCorpus.open(partial)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert KnowledgeCorpus.open(corpus).manifest.articles == 60_000
    assert not partial.exists()


def test_damage_is_a_clear_error(small_corpus: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small_corpus, broken)
    (broken / "manifest.json").write_text('{"format": 1, "articles": "many"}')
    with pytest.raises(KnowledgeCorpusError, match="damaged"):
        KnowledgeCorpus.open(broken)
    shutil.copy(small_corpus / "manifest.json", broken)
    shutil.rmtree(broken / "sentences.lance" / "_versions")
    with pytest.raises(KnowledgeCorpusError, match="sentences"):
        KnowledgeCorpus.open(broken)
    with pytest.raises(KnowledgeCorpusError, match="no knowledge corpus"):
        KnowledgeCorpus.open(tmp_path / "nowhere")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("bowie.jpg", "london.png"):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / name)
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("this is a text")
    good = (folder / "bowie.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    rows = [
        {"file": "bowie.jpg", "title": "David Bowie", "caption": "on stage"},
        {"file": "london.png", "title": "London"},
        {"file": "empty.jpg", "title": "London"},
        {"file": "text.jpg", "title": "London"},
        {"file": "cut.jpg", "title": "London"},
        {"file": "missing.jpg", "title": "London"},
        {"file": "../outside.jpg", "title": "London"},
        {"file": "/etc/passwd", "title": "London"},
        {"file": "bowie.jpg", "title": "Nobody at all"},
        {"title": "London"},
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_pictures_are_embedded_and_bad_ones_reported(data: Path, pictures: Path, tmp_path: Path) -> None:
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    sources = Sources(articles=(data / "articles.jsonl",), images=((pictures / "manifest.jsonl", pictures),))
    report = build_corpus(tmp_path / "corpus", sources, image_encoder=encoder)
    assert report.manifest.images == 2
    said = "\n".join(report.skipped)
    for part in ("0 bytes", "not a picture", "cut off", "missing.jpg", "outside the image folder", "Nobody at all"):
        assert part in said
    assert len(report.skipped) == 8
    corpus = KnowledgeCorpus.open(tmp_path / "corpus")
    vector = encoder.encode([Image.open(pictures / "bowie.jpg").convert("RGB")])
    best, score = corpus.search_images(vector, 2, encoder_fingerprint=encoder.fingerprint)[0][0]
    assert (best.title, best.introduction, best.image) == ("David Bowie", True, "bowie.jpg")
    assert score > 0.99
    assert corpus.thumbnails(["bowie.jpg", "no such file", "x' OR '1'='1"]).keys() == {"bowie.jpg"}
    with pytest.raises(KnowledgeCorpusError, match="use that encoder"):
        corpus.search_images(vector, 2, encoder_fingerprint="another")


def test_a_picture_link_that_leads_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "root" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text('{"file": "link.jpg", "title": "T"}\n')
    with pytest.raises(DataFormatError, match="link that leads outside"):
        list(read_image_manifest(manifest, tmp_path / "root"))


def test_a_corpus_without_pictures_says_so(small_corpus: Path) -> None:
    with pytest.raises(KnowledgeCorpusError, match="holds no images"):
        KnowledgeCorpus.open(small_corpus).search_images(np.zeros((1, 384), np.float32), 1, encoder_fingerprint="x")


def test_the_demo_corpus_is_whole() -> None:
    corpus = KnowledgeCorpus.open(DEMO_CORPUS)
    assert corpus.manifest.articles > 2_000
    assert corpus.manifest.images > 50
