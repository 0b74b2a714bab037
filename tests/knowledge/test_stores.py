"""The embedded and the cluster store give the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreie.encoders.images import ImageEncoder
from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.stores.cluster import ClusterLocation
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
def both(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[KnowledgeCorpus, KnowledgeCorpus]:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (it has no build for this platform)")
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(0)
    lines = []
    for title in ("London", "Libya", "Tripoli"):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(folder / f"{title}.png")
        lines.append(f'{{"file": "{title}.png", "title": "{title}"}}\n')
    (folder / "images.jsonl").write_text("".join(lines))
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    sources = Sources(articles=(data / "articles.jsonl",), images=((folder / "images.jsonl", folder),))
    opened = []
    for destination in (str(folder / "embedded"), f"milvus:{folder / 'corpus.db'}"):
        build_corpus(destination, sources, image_encoder=encoder)
        opened.append(KnowledgeCorpus.open(destination))
    with pytest.raises(KnowledgeCorpusError, match="already exists"):
        build_corpus(f"milvus:{folder / 'corpus.db'}", sources, image_encoder=encoder)
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


@pytest.mark.parametrize("location", ["milvus://", "milvus://host:1", "milvus://host/a b", "milvus:folder"])
def test_a_malformed_location_is_a_clear_error(location: str) -> None:
    with pytest.raises(KnowledgeCorpusError, match="expected milvus"):
        ClusterLocation.parse(location)
