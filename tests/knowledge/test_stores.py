"""The embedded and the cluster store give the same answers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreie.encoders.images import ImageEncoder
from moreie.errors import DataFormatError, KnowledgeCorpusError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.export import export
from moreie.knowledge.passages import rows_of
from moreie.knowledge.stores import cluster_editor
from moreie.knowledge.stores.cluster import ClusterLocation, read_cluster_manifest
from moreie.knowledge.stores.cluster_editor import ClusterEditor
from moreie.knowledge.update import add, compact, embed, remove, replace
from moreie.knowledge.verify import verify
from moreie.schema import Article, Paragraph
from moreie.shipped import IMAGE_ENCODER

QUERIES = ["capital of Tennessee", "basketball team Spurs Thunder", "British singer", "", "zzzz qqqq"]


def test_sentences_bring_back_their_paragraphs(small_corpus: Path) -> None:
    corpus = KnowledgeCorpus.open(small_corpus)
    rows = corpus.search_sentences(QUERIES, 3)
    assert rows[0][0][0].title == "Nashville, Tennessee"
    assert rows[3] == rows[4] == []
    for row in rows:
        ids = [passage.id for passage, _ in row]
        assert len(set(ids)) == len(ids)
        scores = [score for _, score in row]
        assert scores == sorted(scores, reverse=True)
        for passage, _ in row:
            assert passage.sentence
            assert passage.sentence in passage.text
    introductions = corpus.search_sentences(["team American league"], 5, introductions_only=True)[0]
    assert introductions
    assert all(passage.introduction for passage, _ in introductions)


@pytest.mark.parametrize("query", ['"', "a AND (b", "x:y^2~", "*?", "'; DROP TABLE", "\\", "\0"])
def test_no_query_is_syntax(small_corpus: Path, query: str) -> None:
    assert isinstance(KnowledgeCorpus.open(small_corpus).search_sentences([query], 2)[0], list)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Milvus server, spoken to over gRPC."""
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (it has no build for this platform)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("milvus")
    command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, "the server ended at once"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield f"milvus://127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Sources:
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    lines = []
    for title in ("London", "Libya", "Tripoli"):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(folder / f"{title}.png")
        lines.append(f'{{"file": "{title}.png", "title": "{title}"}}\n')
    (folder / "images.jsonl").write_text("".join(lines))
    return Sources(articles=(data / "articles.jsonl",), images=((folder / "images.jsonl", folder),))


@pytest.fixture(scope="module", params=["file", "server"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sources: Sources, server: str
) -> tuple[KnowledgeCorpus, KnowledgeCorpus]:
    folder = tmp_path_factory.mktemp("stores")
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    cluster = f"milvus:{folder / 'corpus.db'}" if request.param == "file" else f"{server}/both"
    opened = []
    for destination in (str(folder / "embedded"), cluster):
        build_corpus(destination, sources, image_encoder=encoder)
        opened.append(KnowledgeCorpus.open(destination))
    with pytest.raises(KnowledgeCorpusError, match="already exists"):
        build_corpus(cluster, sources, image_encoder=encoder)
    return opened[0], opened[1]


def test_cluster_and_embedded_store_find_the_same(both: tuple[KnowledgeCorpus, KnowledgeCorpus]) -> None:
    embedded, cluster = both
    assert cluster.version == embedded.version
    found = [corpus.search_sentences(QUERIES, 5) for corpus in both]
    for ours, theirs in zip(*found, strict=True):
        # Ties and word splitting may order the tail differently; the best must agree.
        assert [p.id for p, _ in ours[:1]] == [p.id for p, _ in theirs[:1]]
        assert len({p.id for p, _ in ours} & {p.id for p, _ in theirs}) >= 0.6 * len(ours)
    assert found[0][0][0][0] == found[1][0][0][0], "the same passage in every field"
    flags = [c.search_sentences(["team American league"], 5, introductions_only=True)[0] for c in both]
    assert {p.id for p, _ in flags[0]} == {p.id for p, _ in flags[1]}
    record = embedded.manifest.image_encoder
    assert record is not None
    vectors = np.random.default_rng(1).normal(size=(2, record.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hits = [c.search_images(vectors, 3, encoder_fingerprint=record.fingerprint) for c in both]
    for ours, theirs in zip(*hits, strict=True):
        assert [p.title for p, _ in ours] == [p.title for p, _ in theirs]
        assert [s for _, s in ours] == pytest.approx([s for _, s in theirs], abs=2e-3)  # one keeps half precision
    names = ["London.png", 'a"b\\c', "x' or '1'='1"]
    assert embedded.thumbnails(names) == cluster.thumbnails(names)
    assert embedded.thumbnails(names).keys() == {"London.png"}


def test_names_lead_to_the_same_articles(both: tuple[KnowledgeCorpus, KnowledgeCorpus]) -> None:
    names = ["london", "nashville tennessee", "davidbowie", "nobody at all", "x' or '1'='1", '"']
    found = [corpus.named(names) or {} for corpus in both]
    assert found[0] == found[1]
    assert {name: [p.title for p in passages] for name, passages in found[0].items()} == {
        "london": ["London"],
        "nashville tennessee": ["Nashville, Tennessee"],
        "davidbowie": ["David Bowie"],
    }
    for corpus in both:
        rows = corpus.search_sentences(["capital Tennessee", "capital zzzz"], 5, all_words=True)
        assert all("apital" in (p.sentence or "") and "Tennessee" in (p.sentence or "") for p, _ in rows[0])
        assert rows[0]
        assert rows[1] == []


def test_either_store_is_verified_and_exported(both: tuple[KnowledgeCorpus, KnowledgeCorpus], tmp_path: Path) -> None:
    exported = []
    for number, corpus in enumerate(both):
        assert verify(corpus.location) == []
        target = tmp_path / f"{number}.jsonl"
        export(corpus.location, target)
        exported.append(target)
    articles = [sorted(target.read_text(encoding="utf-8").splitlines()) for target in exported]
    assert articles[0]
    assert articles[0] == articles[1]


def said(corpus: KnowledgeCorpus, query: str) -> list[str]:
    return [passage.text for passage, _ in corpus.search_sentences([query], 5)[0]]


def test_a_corpus_in_milvus_changes_under_its_readers(server: str, sources: Sources, tmp_path: Path) -> None:
    location = f"{server}/living"
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    build_corpus(location, sources, image_encoder=encoder)
    before = KnowledgeCorpus.open(location)
    path = tmp_path / "new.jsonl"
    path.write_text('{"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax are a band from Quintara."]}\n')
    change = add(location, Sources(articles=(path,)))
    assert (change.added, change.skipped) == (1, [])
    assert change.manifest.passages == before.manifest.passages + 1
    assert said(before, "Zorblax Quintara") == [], "who reads the old state goes on reading it"
    after = before.latest()
    assert said(after, "Zorblax Quintara")[0] == "Zorblax are a band from Quintara."
    assert (after.named(["zorblax"]) or {})["zorblax"][0].title == "Zorblax"
    assert "already in the corpus" in add(location, Sources(articles=(path,))).skipped[0]
    path.write_text('{"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax are a club."]}\n')
    assert replace(location, Sources(articles=(path,))).replaced == 1
    assert said(after, "Zorblax") == ["Zorblax are a band from Quintara."]
    assert said(after.latest(), "Zorblax") == ["Zorblax are a club."]
    pictures = Sources(images=sources.images)
    assert replace(location, pictures, image_encoder=encoder).manifest.images == 3
    assert remove(location, ["z1"]).removed == 1
    compact(location, timedelta(0))
    last = KnowledgeCorpus.open(location)
    assert said(last, "Zorblax") == []
    assert (last.manifest.passages, last.manifest.images) == (before.manifest.passages, 3)
    assert said(last, "capital of Tennessee") == said(before, "capital of Tennessee")


def test_what_a_change_cut_off_left_in_milvus_is_taken_away(
    server: str, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"{server}/cutoff"
    build_corpus(location, Sources(articles=sources.articles))
    path = tmp_path / "new.jsonl"
    row = {"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax are a band from Quintara."]}
    path.write_text(json.dumps(row) + "\nnot json\n")
    with pytest.raises(DataFormatError, match=r"new\.jsonl:2"):
        add(location, Sources(articles=(path,)))
    manifest = read_cluster_manifest(location)
    editor = ClusterEditor(location, manifest)  # begins a change, removes an article, and is never heard of again
    editor.remove(key for keys in editor.keys(["en:8786"]).values() for key in keys)
    rows = rows_of([Article("z2", "Half", (Paragraph("Quuxifer.", True),))], 10_000)
    editor.add_passages(rows.passages, rows.sentences)
    assert said(KnowledgeCorpus.open(location), "Quuxifer") == []
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(KnowledgeCorpusError, match="forgotten after 10 minutes"):
        add(location, Sources(articles=(path,)))
    monkeypatch.setattr(cluster_editor, "LOCK_SECONDS", 0)  # ten minutes later
    changed = add(location, Sources(articles=(path,))).manifest
    monkeypatch.undo()
    assert changed.passages == manifest.passages + 1
    assert said(KnowledgeCorpus.open(location), "Quuxifer") == []
    with ClusterEditor.alone(location), pytest.raises(KnowledgeCorpusError, match="another change is under way"):
        remove(location, ["z1"])


def introductions(corpus: KnowledgeCorpus, clip: ImageEncoder, text: str, k: int = 3) -> list[tuple[str, float]]:
    rows = corpus.search_introductions(clip.encode_texts([text]), k, encoder_fingerprint=clip.fingerprint)
    return [(passage.text, score) for passage, score in rows[0]]


@pytest.mark.parametrize("kind", ["folder", "file", "server"])
def test_introductions_are_embedded_in_either_store(
    kind: str, server: str, sources: Sources, clip: ImageEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    locations = {"folder": str(tmp_path / "c"), "file": f"milvus:{tmp_path / 'c.db'}", "server": f"{server}/embedded"}
    location = locations[kind]
    build_corpus(location, sources, image_encoder=clip)
    before = KnowledgeCorpus.open(location)
    with pytest.raises(KnowledgeCorpusError, match="not embedded; `moreie corpus embed`"):
        introductions(before, clip, "London")
    if kind != "folder":
        ClusterEditor(location, before.manifest).create_introductions(99)  # a change that is never heard of again
        monkeypatch.setattr(cluster_editor, "LOCK_SECONDS", 0)  # ten minutes later
    done = embed(location, clip)
    assert done.introductions == before.unembedded > 5
    opened = KnowledgeCorpus.open(location)
    passages = [
        row for batch in opened.scan("passages", ["title", "text", "introduction"]) for row in batch.to_pylist()
    ]
    texts = [f"{row['title']}. {row['text']}" for row in passages if row["introduction"]]
    scores = np.sort(clip.encode_texts(texts) @ clip.encode_texts(["London"])[0])[::-1]
    assert [score for _, score in introductions(opened, clip, "London", 5)] == pytest.approx(scores[:5], abs=2e-2)
    path = tmp_path / "new.jsonl"
    path.write_text('{"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax are a band from Quintara."]}\n')
    add(location, Sources(articles=(path,)))
    assert KnowledgeCorpus.open(location).unembedded == 1
    assert embed(location, clip).introductions == 1
    reader = KnowledgeCorpus.open(location)
    band = "Zorblax are a band from Quintara."
    assert band in dict(introductions(reader, clip, f"Zorblax. {band}"))
    assert band not in dict(introductions(opened, clip, f"Zorblax. {band}", 99)), "the old state has it not"
    path.write_text('{"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax are a club."]}\n')
    replace(location, Sources(articles=(path,)))
    assert band not in dict(introductions(KnowledgeCorpus.open(location), clip, f"Zorblax. {band}", 99))
    assert band in dict(introductions(reader, clip, f"Zorblax. {band}"))
    assert embed(location, clip).introductions == 1
    assert verify(location) == []
    assert remove(location, ["z1"]).removed == 1
    compact(location, timedelta(0))
    last = KnowledgeCorpus.open(location)
    assert (last.manifest.introductions, last.unembedded) == (done.introductions, 0)
    assert introductions(last, clip, "London") == introductions(KnowledgeCorpus.open(location), clip, "London")
    assert verify(location) == []
    export(location, tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("*.partial")), "nothing that was kept on the way stays"


def test_a_cluster_that_does_not_answer_is_a_clear_error() -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    with pytest.raises(KnowledgeCorpusError, match="no Milvus answers"):
        KnowledgeCorpus.open("milvus://127.0.0.1:9/wiki")


@pytest.mark.parametrize("location", ["milvus://", "milvus://host:1", "milvus://host/a b", "milvus:folder"])
def test_a_malformed_location_is_a_clear_error(location: str) -> None:
    with pytest.raises(KnowledgeCorpusError, match="expected milvus"):
        ClusterLocation.parse(location)
