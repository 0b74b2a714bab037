"""Corpora built, described, cut off and damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from moreie.encoders.images import ImageEncoder
from moreie.errors import DataFormatError, KnowledgeCorpusError, SourceError
from moreie.knowledge.build import Sources, build_corpus, partial_folder
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.sources.images import read_images
from moreie.knowledge.verify import verify
from moreie.knowledge.workers import LocalWorkers
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


BUILD = [sys.executable, "-m", "moreie", "corpus", "build"]


def write_articles(path: Path, count: int) -> None:
    with path.open("w") as out:
        for i in range(count):
            row = {"id": str(i), "title": f"Title {i}", "paragraphs": [f"Lead of {i}. It is short.", "A body." * 20]}
            out.write(json.dumps(row) + "\n")


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    write_articles(path, 60_000)
    corpus = tmp_path / "corpus"
    command = [*BUILD, str(corpus), "--articles", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    partial = corpus.with_name("corpus.partial")
    deadline = time.monotonic() + 120
    while len(list(partial.glob("parts/[0-9]*"))) < 2:
        assert process.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)  # its workers too
    process.wait()
    done = {part.name: part.stat().st_mtime_ns for part in partial.glob("parts/[0-9]*")}
    assert not corpus.exists()
    with pytest.raises(KnowledgeCorpusError, match="cut off: run the same"):
        KnowledgeCorpus.open(corpus)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"{len(done)} parts of a build that was cut off" in again.stderr
    assert KnowledgeCorpus.open(corpus).manifest.articles == 60_000
    assert verify(corpus) == []
    assert not partial.exists()
    whole = build_corpus(tmp_path / "whole", Sources(articles=(path,)), workers=LocalWorkers(1))
    assert whole.manifest.digest == KnowledgeCorpus.open(corpus).manifest.digest, "as if it had not been killed"


def test_two_builders_of_one_corpus_do_not_meet(data: Path, tmp_path: Path) -> None:
    folder = partial_folder(tmp_path / "corpus")
    folder.mkdir()
    sources = Sources(articles=(data / "articles.jsonl",))
    with FileLock(folder / ".lock"), pytest.raises(KnowledgeCorpusError, match="another build is under way"):
        build_corpus(tmp_path / "corpus", sources)
    assert build_corpus(tmp_path / "corpus", sources).manifest.articles


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
def test_a_worker_that_dies_costs_nothing(tmp_path: Path) -> None:
    process, workers = build_under_way(tmp_path)
    os.kill(workers[0], signal.SIGKILL)
    it_goes_on(process, tmp_path / "corpus")
    assert verify(tmp_path / "corpus") == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
def test_workers_that_die_while_they_answer_are_noticed(tmp_path: Path) -> None:
    """The builder is held up until the workers can do no more, and half an answer may wait in the pipe."""
    process, workers = build_under_way(tmp_path)
    os.kill(process.pid, signal.SIGSTOP)
    before = -1
    while (ticks := sum(map(processor_ticks, workers))) != before:
        before = ticks
        time.sleep(0.5)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    os.kill(process.pid, signal.SIGCONT)
    it_goes_on(process, tmp_path / "corpus")


def build_under_way(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A build by two workers that has finished a part, and the workers."""
    path = folder / "articles.jsonl"
    write_articles(path, 60_000)
    command = [*BUILD, str(folder / "corpus"), "--articles", str(path), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    parts = folder / "corpus.partial" / "parts"
    while len(workers := loky_workers(process.pid)) < 2 or not any(parts.glob("[0-9]*")):
        assert process.poll() is None, "the build ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process, workers


def it_goes_on(process: subprocess.Popen[str], corpus: Path) -> None:
    try:
        _, said = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "a worker process died" in said
    assert KnowledgeCorpus.open(corpus).manifest.articles == 60_000


def processor_ticks(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def loky_workers(parent: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            ours = int((place / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if ours and b"popen_loky" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def test_articles_that_stand_twice_are_taken_once(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    rows = [("1", "A", "Text of A."), ("2", "B", "Text of B."), ("1", "A again", "Other text."), ("3", "C", "Of C.")]
    lines = [json.dumps({"id": i, "title": t, "paragraphs": [p], "redirects": [t * 2]}) + "\n" for i, t, p in rows]
    path.write_text("".join(lines))
    other = tmp_path / "other.jsonl"
    other.write_text(lines[1] + json.dumps({"id": "4", "title": "D", "paragraphs": ["Of D."]}) + "\n")
    report = build_corpus(tmp_path / "corpus", Sources(articles=(path, other)))
    assert report.manifest.articles == 4
    assert [line.split(":")[0] for line in report.skipped] == ["1 (A again)", "2 (B)"]
    assert verify(tmp_path / "corpus") == []
    named = KnowledgeCorpus.open(tmp_path / "corpus").named(["a", "aa", "a again", "dd", "d", "c"]) or {}
    assert {name: [p.text for p in found] for name, found in named.items()} == {
        "a": ["Text of A."],
        "aa": ["Text of A."],
        "c": ["Of C."],
        "d": ["Of D."],
    }


@pytest.mark.skipif(sys.platform != "linux", reason="full disks are made with a limit on file size")
def test_a_full_disk_is_an_error_and_leaves_no_corpus(data: Path, tmp_path: Path) -> None:
    command = f"ulimit -f 8; exec {sys.executable} -m moreie corpus build {tmp_path}/corpus --articles"
    full = ["bash", "-c", f"trap '' XFSZ; {command} {data / 'articles.jsonl'}"]
    done = subprocess.run(full, capture_output=True, text=True)
    assert done.returncode != 0
    assert not (tmp_path / "corpus").exists()
    assert done.stderr.startswith("error disk: "), done.stderr
    assert "make room" in done.stderr
    report = build_corpus(tmp_path / "corpus", Sources(articles=(data / "articles.jsonl",)))
    assert report.manifest.articles == 28


@pytest.mark.skipif(sys.platform != "linux", reason="full disks are made with a limit on file size")
def test_a_disk_full_for_a_worker_is_an_error_too(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    write_articles(path, 20_000)
    command = f"{sys.executable} -m moreie corpus build {tmp_path}/corpus --articles {path} --workers 2"
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 100; exec {command}"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error disk: "), done.stderr
    again = subprocess.run(command.split(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert KnowledgeCorpus.open(tmp_path / "corpus").manifest.articles == 20_000


@pytest.mark.filterwarnings("ignore:.*tasks which were still being processed")
def test_a_bad_line_read_by_workers_is_an_error_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    write_articles(path, 60_000)
    with path.open("a") as out:
        out.write("not json\n")
    with pytest.raises(DataFormatError, match=r"articles\.jsonl:60001"):
        build_corpus(tmp_path / "corpus", Sources(articles=(path,)), workers=LocalWorkers(2))
    kept = list((tmp_path / "corpus.partial" / "parts").glob("[0-9]*"))
    assert kept
    report = build_corpus(tmp_path / "corpus", Sources(articles=(path,)), workers=LocalWorkers(2), skip_bad=True)
    assert report.resumed == len(kept)
    assert report.manifest.articles == 60_000


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
        list(read_images(manifest, tmp_path / "root"))


def test_a_corpus_without_pictures_says_so(small_corpus: Path) -> None:
    with pytest.raises(KnowledgeCorpusError, match="holds no images"):
        KnowledgeCorpus.open(small_corpus).search_images(np.zeros((1, 384), np.float32), 1, encoder_fingerprint="x")


def test_the_demo_corpus_is_whole() -> None:
    corpus = KnowledgeCorpus.open(DEMO_CORPUS)
    assert corpus.manifest.articles > 2_000
    assert corpus.manifest.images > 50
