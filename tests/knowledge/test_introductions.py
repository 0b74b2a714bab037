"""Introductions embedded among pictures: found by vectors, kept up with changes, resumed after a kill, verified."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from moreie.encoders.images import ImageEncoder
from moreie.errors import EncoderError, KnowledgeCorpusError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.export import export
from moreie.knowledge.introductions import TEXTS_PER_BATCH, text_batches
from moreie.knowledge.manifest import read_manifest
from moreie.knowledge.passages import titled
from moreie.knowledge.stores import embedded_editor, embedded_tables
from moreie.knowledge.stores.store import INTRODUCTIONS, PASSAGES
from moreie.knowledge.stores.vectors import index_file
from moreie.knowledge.update import add, compact, embed, remove, replace
from moreie.knowledge.verify import verify
from moreie.shipped import IMAGE_ENCODER


def article_file(path: Path, *rows: tuple[str, str, str]) -> Sources:
    lines = [json.dumps({"id": id, "title": title, "paragraphs": [text]}) for id, title, text in rows]
    path.write_text("".join(line + "\n" for line in lines))
    return Sources(articles=(path,))


def spelt(number: int) -> str:
    """Words that the tiny vocabulary knows."""
    return " ".join("abcdefghij"[int(digit)] for digit in f"{number:05d}")


def introductions(corpus: Path) -> dict[int, str]:
    """What is embedded, by passage key."""
    rows = [row for batch in KnowledgeCorpus.open(corpus).scan(PASSAGES, PASSAGE_COLUMNS) for row in batch.to_pylist()]
    return {row["key"]: titled(row["title"], row["text"]) for row in rows if row["introduction"]}


PASSAGE_COLUMNS = ["key", "title", "text", "introduction"]
ZORBLAX = ("z1", "Zorblax Rovers", "Zorblax Rovers are a football club from Quintara. They play in green.")


def found(corpus: Path | KnowledgeCorpus, clip: ImageEncoder, text: str, k: int = 3) -> list[str]:
    opened = KnowledgeCorpus.open(corpus) if isinstance(corpus, Path) else corpus
    rows = opened.search_introductions(clip.encode_texts([text]), k, encoder_fingerprint=clip.fingerprint)
    return [passage.title for passage, _ in rows[0]]


@pytest.fixture
def plain(small_corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_corpus, tmp_path / "corpus"))


@pytest.fixture
def corpus(plain: Path, clip: ImageEncoder) -> Path:
    embed(plain, clip)
    return plain


def test_embedded_introductions_are_found_by_vectors(corpus: Path, clip: ImageEncoder) -> None:
    manifest = read_manifest(corpus)
    texts = introductions(corpus)
    assert manifest.introductions == len(texts) < manifest.passages
    assert manifest.image_encoder is not None
    assert manifest.image_encoder.fingerprint == clip.fingerprint
    assert not (corpus / ".introductions").exists()
    opened = KnowledgeCorpus.open(corpus)
    assert opened.unembedded == 0
    queries = np.random.default_rng(0).normal(size=(3, clip.dimension)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    rows = opened.search_introductions(queries, 4, encoder_fingerprint=clip.fingerprint)
    expected = np.sort(queries @ clip.encode_texts(list(texts.values())).T, axis=1)[:, ::-1][:, :4]
    assert np.array([[score for _, score in row] for row in rows]) == pytest.approx(expected, abs=2e-2)
    assert all(passage.introduction for row in rows for passage, _ in row)
    assert verify(corpus) == []


def test_embedding_is_a_revision_of_its_own(plain: Path, clip: ImageEncoder) -> None:
    before, reader = read_manifest(plain), KnowledgeCorpus.open(plain)
    heard: list[int] = []
    done = embed(plain, clip, progress=heard.append)
    assert sum(heard) == done.introductions == len(introductions(plain))
    assert done.manifest == read_manifest(plain)
    assert (done.manifest.revision, done.manifest.passages) == (before.revision + 1, before.passages)
    assert done.manifest.version != before.version
    with pytest.raises(KnowledgeCorpusError, match="not embedded; `moreie corpus embed`"):
        found(reader, clip, "London")
    assert reader.unembedded == done.introductions
    again = embed(plain, clip)
    assert (again.introductions, again.manifest) == (0, done.manifest), "the same command again changes nothing"
    assert not (plain / ".introductions").exists()


def test_embeddings_follow_their_articles(corpus: Path, clip: ImageEncoder, tmp_path: Path) -> None:
    count = read_manifest(corpus).introductions
    add(corpus, article_file(tmp_path / "new.jsonl", ZORBLAX))
    assert (read_manifest(corpus).introductions, KnowledgeCorpus.open(corpus).unembedded) == (count, 1)
    assert verify(corpus) == [], "an introduction without an embedding is no damage"
    assert embed(corpus, clip).introductions == 1
    reader = KnowledgeCorpus.open(corpus)
    assert found(reader, clip, titled(*ZORBLAX[1:]))[0] == "Zorblax Rovers"
    replace(corpus, article_file(tmp_path / "better.jsonl", ("z1", "Zorblax Rovers", "Zorblax Rovers are a band.")))
    assert "Zorblax Rovers" not in found(corpus, clip, titled(*ZORBLAX[1:]), count)
    assert found(reader, clip, titled(*ZORBLAX[1:]))[0] == "Zorblax Rovers", "who reads the old state goes on with it"
    assert KnowledgeCorpus.open(corpus).unembedded == 1
    embed(corpus, clip)
    assert read_manifest(corpus).introductions == count + 1
    compact(corpus, timedelta(0))
    assert found(corpus, clip, "Zorblax Rovers. Zorblax Rovers are a band.")[0] == "Zorblax Rovers"
    remove(corpus, ["z1"])
    assert (read_manifest(corpus).introductions, KnowledgeCorpus.open(corpus).unembedded) == (count, 0)
    assert verify(corpus) == []
    target = tmp_path / "out.jsonl"
    assert export(corpus, target) == read_manifest(corpus).articles
    assert build_corpus(tmp_path / "again", Sources(articles=(target,))).manifest.introductions == 0


def test_one_encoder_embeds_all_of_a_corpus(
    plain: Path, clip: ImageEncoder, tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    dino = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    with pytest.raises(EncoderError, match=r"without a text tower.*CLIP"):
        embed(plain, dino)
    Image.fromarray(np.full((40, 40, 3), 99, np.uint8)).save(tmp_path / "l.png")
    (tmp_path / "images.jsonl").write_text('{"file": "l.png", "title": "London"}\n')
    pictures = Sources(images=((tmp_path / "images.jsonl", tmp_path),))
    other = shutil.copytree(plain, tmp_path / "other")
    add(other, pictures, image_encoder=dino)
    with pytest.raises(KnowledgeCorpusError, match="its images were embedded by"):
        embed(other, clip)
    embed(plain, clip)
    with pytest.raises(KnowledgeCorpusError, match="its introductions were embedded by"):
        add(plain, pictures, image_encoder=dino)
    with pytest.raises(KnowledgeCorpusError, match="its introductions were embedded by"):
        KnowledgeCorpus.open(plain).search_introductions(
            np.zeros((1, 16), np.float32), 1, encoder_fingerprint=dino.fingerprint
        )
    with pytest.raises(KnowledgeCorpusError, match="holds no images"):
        KnowledgeCorpus.open(plain).search_images(
            np.zeros((1, 16), np.float32), 1, encoder_fingerprint=clip.fingerprint
        )
    assert add(plain, pictures, image_encoder=clip).manifest.images == 1
    assert not (plain / ".pictures").exists()
    assert verify(plain) == []


def test_many_introductions_are_searched_through_an_index(
    plain: Path, clip: ImageEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_tables, "EXACT_LIMIT", 500)
    monkeypatch.setattr(embedded_editor, "EXACT_LIMIT", 500)
    monkeypatch.setattr(embedded_editor, "UNINDEXED_ROWS", 100)
    rows = [(f"n{i}", f"Number {i}", spelt(37 * i)) for i in range(2_000)]
    add(plain, article_file(tmp_path / "many.jsonl", *rows))
    embed(plain, clip)
    index = plain / index_file(INTRODUCTIONS)
    made = index.stat().st_ino
    queries = clip.encode_texts(list(introductions(plain).values())[::101])
    opened = KnowledgeCorpus.open(plain)
    through = opened.search_introductions(queries, 5, encoder_fingerprint=clip.fingerprint)
    add(plain, article_file(tmp_path / "new.jsonl", ZORBLAX))
    embed(plain, clip)
    assert index.stat().st_ino == made, "a few more are searched beside the index"
    assert found(plain, clip, titled(*ZORBLAX[1:]))[0] == "Zorblax Rovers"
    compact(plain)
    assert index.stat().st_ino != made
    index.unlink()
    exact = KnowledgeCorpus.open(plain).search_introductions(queries, 5, encoder_fingerprint=clip.fingerprint)
    # Vectors of random weights are all but equal: what counts is how much of the lead over any text is lost.
    best, reached = (np.mean([[score for _, score in row] for row in rows]) for rows in (exact, through))
    anything = (queries @ clip.encode_texts(list(introductions(plain).values())).T).mean()
    assert best - reached <= 0.1 * (best - anything)
    assert verify(plain) == []


def test_batches_are_named_by_what_they_hold() -> None:
    texts = [(i, f"text {i}") for i in range(TEXTS_PER_BATCH + 1)]
    first, second = text_batches(texts, "encoder")
    assert (len(first.texts), second.passages, second.texts) == (
        TEXTS_PER_BATCH,
        (TEXTS_PER_BATCH,),
        (f"text {TEXTS_PER_BATCH}",),
    )
    keys = {batch.key for batch in text_batches([*texts[:-1], (TEXTS_PER_BATCH, "changed")], "encoder")}
    assert keys & {first.key, second.key} == {first.key}
    assert not keys & {batch.key for batch in text_batches(texts, "another encoder")}


def test_what_an_embedding_cut_off_left_is_taken_away(plain: Path, clip: ImageEncoder) -> None:
    editor = embedded_editor.EmbeddedEditor(plain, read_manifest(plain).tables)
    editor.create_introductions(99)  # another encoder's, never heard of again
    assert verify(plain) == []
    embed(plain, clip)
    manifest = read_manifest(plain)
    table = lancedb.connect(plain).open_table(INTRODUCTIONS)
    table.add(table.to_arrow().slice(0, 2))
    assert manifest.tables[INTRODUCTIONS] < table.version
    assert verify(plain) == []
    compact(plain)
    assert read_manifest(plain).introductions == manifest.introductions
    assert verify(plain) == []


def test_an_embedding_interrupted_goes_on_where_it_was(
    plain: Path, clip: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moreie.knowledge.introductions.TEXTS_PER_BATCH", 5)
    before = read_manifest(plain)
    heard: list[int] = []

    def interrupt(amount: int) -> None:
        heard.append(amount)
        if len(heard) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(plain, clip, progress=interrupt)
    kept = finished(plain)
    assert len(kept) >= 2
    assert read_manifest(plain) == before
    done = embed(plain, clip)
    assert done.resumed == len(kept)
    assert done.introductions == len(introductions(plain))
    assert verify(plain) == []


@pytest.mark.slow
def test_an_embedding_killed_goes_on_where_it_was(clip: ImageEncoder, tmp_path: Path) -> None:
    rows = [(f"k{i}", f"Killed {i}", f"{spelt(i)}. {'Xyzzy is in it. ' * (i % 7)}") for i in range(12_000)]
    corpus = tmp_path / "corpus"
    build_corpus(corpus, article_file(tmp_path / "many.jsonl", *rows))
    before = read_manifest(corpus)
    command = [sys.executable, "-m", "moreie", "corpus", "embed", str(corpus), "--image-encoder", clip.name]
    kept: set[str] = set()
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(finished(corpus)) < len(kept) + 2:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert kept < finished(corpus), "what was done is not done again"
        kept = finished(corpus)
        assert read_manifest(corpus) == before
        assert verify(corpus) == []
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} batches of a run that was cut off were taken over" in done.stderr
    assert read_manifest(corpus).introductions == 12_000
    assert verify(corpus) == []
    assert "Killed 4321" in found(corpus, clip, titled(*rows[4_321][1:]))
    assert not (corpus / ".introductions").exists()


def finished(corpus: Path) -> set[str]:
    folder = corpus / ".introductions"
    return {path.name for path in folder.glob("*") if not path.name.startswith(".")} if folder.is_dir() else set()


def damaged(corpus: Path, rows: list[dict[str, Any]]) -> str:
    """What is found when these rows stand among the embeddings."""
    table = lancedb.connect(corpus).open_table(INTRODUCTIONS)
    table.add(pa.Table.from_pylist(rows, schema=table.schema))
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["tables"][INTRODUCTIONS] = table.version
    manifest["introductions"] += len(rows)
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    return "\n".join(verify(corpus))


def test_damaged_embeddings_are_found(corpus: Path) -> None:
    unit = np.eye(16, dtype=np.float16)[0]
    rows = [row for batch in KnowledgeCorpus.open(corpus).scan(PASSAGES, PASSAGE_COLUMNS) for row in batch.to_pylist()]
    body = next(row["key"] for row in rows if not row["introduction"])
    introduction = next(row["key"] for row in rows if row["introduction"])
    said = damaged(corpus, [{"passage": 999_999, "vector": unit}])
    assert said == "embeddings of 1 passages that are not there, such as [999999]"
    said = damaged(corpus, [{"passage": body, "vector": unit}, {"passage": introduction, "vector": 2 * unit}])
    assert f"embeddings of 1 passages that are no introductions, such as [{body}]" in said
    assert "1 introductions are embedded twice" in said
    assert f"1 embeddings that are no unit vectors, such as of passage {introduction}" in said
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["introductions"] += 1
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    assert "embedded introductions, there are" in "\n".join(verify(corpus))
    data = max((corpus / "introductions.lance" / "data").iterdir(), key=lambda p: p.stat().st_size)
    data.write_bytes(data.read_bytes()[:-30])
    assert any("introductions" in problem and "damaged" in problem for problem in verify(corpus))


def test_a_corpus_of_before_opens_and_is_embedded(plain: Path, clip: ImageEncoder) -> None:
    manifest = json.loads((plain / "manifest.json").read_text())
    del manifest["introductions"]
    (plain / "manifest.json").write_text(json.dumps(manifest))
    opened = KnowledgeCorpus.open(plain)
    assert opened.manifest.introductions == 0
    assert opened.unembedded == len(introductions(plain))
    assert compact(plain).introductions == 0
    assert embed(plain, clip).introductions == opened.unembedded
    assert verify(plain) == []
