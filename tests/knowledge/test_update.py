"""A corpus changed while others read it, checked for damage, and written out again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from moreie.encoders.images import ImageEncoder
from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.export import export
from moreie.knowledge.manifest import read_manifest
from moreie.knowledge.update import LOCK, add, compact, remove, replace
from moreie.knowledge.verify import verify
from moreie.shipped import IMAGE_ENCODER


def article_file(path: Path, *rows: tuple[str, str, str]) -> Sources:
    lines = [json.dumps({"id": id, "title": title, "paragraphs": [text]}) for id, title, text in rows]
    path.write_text("".join(line + "\n" for line in lines))
    return Sources(articles=(path,))


def titles(corpus: Path | KnowledgeCorpus, query: str) -> list[str]:
    opened = KnowledgeCorpus.open(corpus) if isinstance(corpus, Path) else corpus
    return [passage.title for passage, _ in opened.search_sentences([query], 5)[0]]


@pytest.fixture
def corpus(small_corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_corpus, tmp_path / "corpus"))


ZORBLAX = ("z1", "Zorblax Rovers", "Zorblax Rovers are a football club from Quintara. They play in green.")


def test_what_is_added_is_found_by_new_readers_and_not_by_old_ones(corpus: Path, tmp_path: Path) -> None:
    reader = KnowledgeCorpus.open(corpus)
    before = read_manifest(corpus)
    change = add(corpus, article_file(tmp_path / "new.jsonl", ZORBLAX))
    assert (change.added, change.replaced, change.removed, change.skipped) == (1, 0, 0, [])
    assert titles(corpus, "Zorblax")[0] == "Zorblax Rovers"
    assert titles(reader, "Zorblax") == []
    after = read_manifest(corpus)
    assert after.articles == before.articles + 1
    assert after.sentences == before.sentences + 2
    assert after.revision == before.revision + 1
    assert after.version != before.version
    assert verify(corpus) == []


def test_an_article_that_is_there_is_not_added_twice(corpus: Path, tmp_path: Path) -> None:
    add(corpus, article_file(tmp_path / "new.jsonl", ZORBLAX))
    version = read_manifest(corpus).version
    again = add(corpus, article_file(tmp_path / "new.jsonl", ZORBLAX))
    assert again.added == 0
    assert "already in the corpus" in again.skipped[0]
    assert read_manifest(corpus).version == version
    twice = add(corpus, article_file(tmp_path / "twice.jsonl", ("z2", "A", "Some text."), ("z2", "B", "Other text.")))
    assert twice.added == 1
    assert "twice" in twice.skipped[0]
    assert verify(corpus) == []


def test_replacing_changes_the_text_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    add(corpus, article_file(tmp_path / "new.jsonl", ZORBLAX))
    before = read_manifest(corpus)
    new = ("z1", "Zorblax Rovers", "Zorblax Rovers are a rock band.")
    change = replace(corpus, article_file(tmp_path / "better.jsonl", new, ("z9", "Fresh", "A fresh one.")))
    assert (change.added, change.replaced) == (1, 1)
    passages = KnowledgeCorpus.open(corpus).search_sentences(["Zorblax"], 5)[0]
    assert [p.text for p, _ in passages] == ["Zorblax Rovers are a rock band."]
    assert read_manifest(corpus).articles == before.articles + 1
    assert titles(corpus, "football club from Quintara green").count("Zorblax Rovers") == 0
    assert verify(corpus) == []


def test_what_is_removed_is_gone(corpus: Path, tmp_path: Path) -> None:
    add(corpus, article_file(tmp_path / "new.jsonl", ZORBLAX))
    reader = KnowledgeCorpus.open(corpus)
    change = remove(corpus, ["z1", "no such id"])
    assert change.removed == 1
    assert change.skipped == ["no such id: not in the corpus"]
    assert titles(corpus, "Zorblax") == []
    assert titles(reader, "Zorblax") == ["Zorblax Rovers"], "who reads the old state goes on reading it"
    added = add(corpus, article_file(tmp_path / "again.jsonl", ("z3", "Next", "Next text.")))
    assert added.added == 1
    assert verify(corpus) == [], "keys of removed passages are not given out again"
    everything = [row["article"] for row in lancedb.connect(corpus).open_table("passages").to_arrow().to_pylist()]
    with pytest.raises(KnowledgeCorpusError, match="leave nothing"):
        remove(corpus, everything)
    assert verify(corpus) == []


def test_pictures_are_added_and_stay_with_their_article(corpus: Path, tmp_path: Path) -> None:
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "z.png")
    manifest = tmp_path / "images.jsonl"
    manifest.write_text('{"file": "z.png", "title": "Zorblax Rovers"}\n')
    add(corpus, article_file(tmp_path / "new.jsonl", ZORBLAX))
    pictures = Sources(images=((manifest, tmp_path),))
    version = add(corpus, pictures, image_encoder=encoder).manifest.version
    again = add(corpus, pictures, image_encoder=encoder)
    assert (again.manifest.version, again.manifest.images) == (version, 1), "the same command again changes nothing"
    assert "1 pictures are in the corpus already" in again.skipped[0]
    good = (tmp_path / "z.png").read_bytes()
    (tmp_path / "z.png").write_bytes(good[:50])
    broken = replace(corpus, pictures, image_encoder=encoder)
    assert "z.png" in broken.skipped[0]
    assert broken.manifest.images == 1, "a picture that has become unreadable does not cost the one that is kept"
    (tmp_path / "z.png").write_bytes(good)
    new = ("z1", "Zorblax Rovers", "Zorblax Rovers are a rock band.")
    replace(corpus, article_file(tmp_path / "better.jsonl", new))
    vector = encoder.encode([Image.open(tmp_path / "z.png").convert("RGB")])
    opened = KnowledgeCorpus.open(corpus)
    (passage, _), *_ = opened.search_images(vector, 1, encoder_fingerprint=encoder.fingerprint)[0]
    assert passage.text == "Zorblax Rovers are a rock band."
    assert verify(corpus) == []
    remove(corpus, ["z1"])
    assert read_manifest(corpus).images == 0
    emptied = KnowledgeCorpus.open(corpus)
    assert emptied.search_images(vector, 1, encoder_fingerprint=encoder.fingerprint) == [[]]
    assert verify(corpus) == []


def test_another_change_under_way_is_an_error(corpus: Path, tmp_path: Path) -> None:
    with FileLock(corpus / LOCK), pytest.raises(KnowledgeCorpusError, match="another change is under way"):
        add(corpus, article_file(tmp_path / "new.jsonl", ZORBLAX))


def test_a_bad_source_leaves_the_corpus_as_it_was(corpus: Path, tmp_path: Path) -> None:
    before = read_manifest(corpus)
    sources = article_file(tmp_path / "new.jsonl", *[(f"n{i}", f"N{i}", "Text.") for i in range(10)])
    with (tmp_path / "new.jsonl").open("a") as out:
        out.write("not json\n")
    with pytest.raises(ValueError, match=r"new\.jsonl:11"):
        add(corpus, sources)
    assert read_manifest(corpus) == before
    assert verify(corpus) == []
    assert add(corpus, article_file(tmp_path / "good.jsonl", ZORBLAX)).added == 1
    assert titles(corpus, "Zorblax") == ["Zorblax Rovers"]
    assert verify(corpus) == []


@pytest.mark.slow
def test_a_killed_change_is_as_if_it_had_never_been(corpus: Path, tmp_path: Path) -> None:
    rows = [(f"k{i}", f"Killed {i}", f"Paragraph number {i}. Xyzzy is in it.") for i in range(60_000)]
    sources = article_file(tmp_path / "many.jsonl", *rows)
    command = [sys.executable, "-m", "moreie", "corpus", "add", str(corpus), "--articles", str(tmp_path / "many.jsonl")]
    before = read_manifest(corpus)
    files = len(list(corpus.glob("*.lance/data/*")))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(corpus.glob("*.lance/data/*"))) == files:
        assert process.poll() is None, "the change ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_manifest(corpus) == before
    assert titles(corpus, "Xyzzy") == []
    assert verify(corpus) == []
    done = add(corpus, sources)
    assert done.added == 60_000
    assert len(titles(corpus, "Xyzzy")) == 5
    assert verify(corpus) == []


def test_compacting_keeps_the_content(corpus: Path, tmp_path: Path) -> None:
    for i in range(4):
        add(corpus, article_file(tmp_path / "new.jsonl", (f"c{i}", f"Compact {i}", f"Plugh number {i}.")))
    remove(corpus, ["c0"])
    before = {p.id: (p.text, s) for p, s in KnowledgeCorpus.open(corpus).search_sentences(["Plugh"], 10)[0]}
    manifest = compact(corpus, timedelta(0))
    versions = {name: lancedb.connect(corpus).open_table(name).version for name in manifest.tables}
    assert versions == manifest.tables, "forgetting old states comes after the manifest and makes no new ones"
    after = {p.id: (p.text, s) for p, s in KnowledgeCorpus.open(corpus).search_sentences(["Plugh"], 10)[0]}
    assert before.keys() == after.keys()
    assert len(after) == 3
    assert manifest.articles == read_manifest(corpus).articles
    assert verify(corpus) == []


def test_an_export_builds_the_same_corpus(corpus: Path, tmp_path: Path) -> None:
    add(corpus, article_file(tmp_path / "new.jsonl", ZORBLAX))
    for suffix in ("", ".gz", ".zst"):
        target = tmp_path / f"out.jsonl{suffix}"
        assert export(corpus, target) == read_manifest(corpus).articles
        built = build_corpus(tmp_path / f"again{suffix}", Sources(articles=(target,))).manifest
        ours = read_manifest(corpus)
        assert (built.articles, built.passages, built.sentences) == (ours.articles, ours.passages, ours.sentences)
    assert not list(tmp_path.glob(".out*"))


def test_damage_is_found(corpus: Path) -> None:
    assert verify(corpus) == []
    data = max((corpus / "sentences.lance" / "data").iterdir(), key=lambda p: p.stat().st_size)
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    assert any("sentences" in problem for problem in verify(corpus))
    data.write_bytes(content)
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["sentences"] += 1
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    assert any("the manifest says" in problem for problem in verify(corpus))


def test_rows_that_do_not_belong_are_found(corpus: Path) -> None:
    table = lancedb.connect(corpus).open_table("sentences")
    table.add([{"passage": 999_999, "sentence": "Nowhere.", "introduction": False}])
    table.add([{"passage": 0, "sentence": "Not in the passage at all.", "introduction": False}])
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["tables"]["sentences"] = table.version
    manifest["sentences"] += 2
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    found = "\n".join(verify(corpus))
    assert "passages that are not there, such as [999999]" in found
    assert "not in their passage" in found
