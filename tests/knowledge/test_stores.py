"""The embedded and the cluster store give the same answers."""

from __future__ import annotations

import base64
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from moreie.encoders.images import ImageEncoder
from moreie.errors import DataFormatError, KnowledgeCorpusError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.export import export
from moreie.knowledge.passages import rows_of
from moreie.knowledge.stores import cluster, cluster_editor, cluster_reader, in_cluster
from moreie.knowledge.stores.cluster import ClusterLocation, read_cluster_manifest, save_manifest
from moreie.knowledge.stores.cluster_editor import ClusterEditor
from moreie.knowledge.stores.words import words
from moreie.knowledge.update import add, compact, embed, remove, replace
from moreie.knowledge.verify import verify
from moreie.schema import Article, Paragraph, Passage
from moreie.shipped import IMAGE_ENCODER

MilvusServer = Callable[[Path], AbstractContextManager[str]]
QUERIES = ["capital of Tennessee", "basketball team Spurs Thunder", "British singer", "", "zzzz qqqq"]
# One engine's BM25 scores may differ from another's by so much: Milvus counts sentences without a word, Lance does not.
TOLERANCE = 0.001
# Paragraphs whose words two analyzers are likely to split, fold, drop or count in different ways.
NASTY = [
    "Don't call O'Neil’s café snake_case. The AT&T store isn’t Sinéad O'Connor's, it's rock-'n'-roll.",
    "Beyoncé met Zoë, Renée and Björk at the Château d’If. Naïve Ångström cafe\u0301 fiancée.",
    "Die Straße in Gießen heißt Große Allee. İstanbul is not ISTANBUL. ΣΊΣΥΦΟΣ rolls. Œuvre and Æon, ﬁre and ﬂow.",
    "It cost 3.14 or 1,000 dollars in U.S.A. by 50% on 2016-05-13, x² plus ½ and Ⅳ. Version 1.2.3 of C++ and C#.",
    "東京都は日本の首都です。中国，北京 and 서울 are capitals. Москва́ столица. กรุงเทพ และ हिन्दी नमस्ते العربية.",
    "😀hi😀there ❤️ #KawhiLeonard @user https://example.org/a_b?c=d RT so so so so good good.",
    f"A {'long' * 9} word, a {'long' * 10} word and a {'é' * 19} word. Queen quiz Qatar q qq q71q.",
    "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo. The the THE thé Thé.",
]
NASTY_QUERIES = [
    *(
        "O'Connor don't",
        "O’Connor isn't",
        "snake_case",
        "rock-'n'-roll",
        "AT&T",
        "beyonce",
        "BEYONCÉ Zoe",
        "cafe",
        "Café",
    ),
    *("cafe\u0301 château", "strasse", "Straße GROSSE", "istanbul İSTANBUL", "σίσυφοσ", "oeuvre aeon fire", "ﬁre"),
    *(
        "3.14",
        "1,000 dollars",
        "USA U.S.A.",
        "x2",
        "12 iv",
        "C++ C#",
        "1.2.3",
        "東京",
        "東京都は日本の首都です",
        "北京 中国",
    ),
    *("서울 capital", "Москва", "Москва́ столица", "กรุงเทพ", "हिन्दी", "العربية", "😀", "hi there ❤️", "#KawhiLeonard"),
    *(
        "kawhi leonard",
        "example org",
        "so good",
        "so so so good",
        "long" * 9,
        "long" * 10,
        "é" * 19,
        "queen q",
        "q71q qq",
    ),
    *(
        "buffalo",
        "Buffalo buffalo buffalo",
        "the",
        "THE thé the",
        "singer singer British",
        "London London London Libya",
    ),
]


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
def server(milvus_server: MilvusServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with milvus_server(tmp_path_factory.mktemp("milvus")) as address:
        yield address


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Sources:
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    lines = []
    for title in ("London", "Libya", "Tripoli"):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(folder / f"{title}.png")
        lines.append(f'{{"file": "{title}.png", "title": "{title}"}}\n')
    (folder / "images.jsonl").write_text("".join(lines))
    nasty = [{"id": f"n{i}", "title": f"Nasty {i}", "paragraphs": [text]} for i, text in enumerate(NASTY)]
    (folder / "nasty.jsonl").write_text("".join(json.dumps(row) + "\n" for row in nasty))
    articles = (data / "articles.jsonl", folder / "nasty.jsonl")
    return Sources(articles=articles, images=((folder / "images.jsonl", folder),))


@pytest.fixture(scope="module", params=["file", "server"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sources: Sources, server: str
) -> tuple[KnowledgeCorpus, KnowledgeCorpus]:
    folder = tmp_path_factory.mktemp("stores")
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    location = f"milvus:{folder / 'corpus.db'}" if request.param == "file" else f"{server}/both"
    opened = []
    for destination in (str(folder / "embedded"), location):
        build_corpus(destination, sources, image_encoder=encoder)
        opened.append(KnowledgeCorpus.open(destination))
    with pytest.raises(KnowledgeCorpusError, match="already exists"):
        build_corpus(location, sources, image_encoder=encoder)
    return opened[0], opened[1]


Found = Sequence[tuple[Passage, float]]


def assert_same(ours: Found, theirs: Found) -> None:
    """The same scores rank by rank; where passages differ they tie: with each other, or with the other's last."""
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], rel=TOLERANCE)
    for row, other in ((ours, theirs), (theirs, ours)):
        scores = {passage.id: score for passage, score in other}
        for passage, score in row:
            assert scores.get(passage.id, other[-1][1]) == pytest.approx(score, rel=TOLERANCE), passage.id


def test_cluster_and_embedded_store_find_the_same(both: tuple[KnowledgeCorpus, KnowledgeCorpus]) -> None:
    embedded, clustered = both
    assert clustered.version == embedded.version
    queries = [*QUERIES, *NASTY_QUERIES, *NASTY]
    for all_words in (False, True):
        for introductions_only in (False, True):
            flags = {"all_words": all_words, "introductions_only": introductions_only}
            for ours, theirs in zip(*(corpus.search_sentences(queries, 5, **flags) for corpus in both), strict=True):
                assert_same(ours, theirs)
    found = [corpus.search_sentences(QUERIES, 5) for corpus in both]
    assert found[0][0][0][0] == found[1][0][0][0], "the same passage in every field"
    for query, ours in zip(NASTY, embedded.search_sentences(NASTY, 1), strict=True):
        assert ours[0][0].text == query
    record = embedded.manifest.image_encoder
    assert record is not None
    vectors = np.random.default_rng(1).normal(size=(2, record.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hits = [c.search_images(vectors, 3, encoder_fingerprint=record.fingerprint) for c in both]
    for ours, theirs in zip(*hits, strict=True):
        assert [p.title for p, _ in ours] == [p.title for p, _ in theirs]
        assert [s for _, s in ours] == pytest.approx([s for _, s in theirs], abs=2e-3)  # one keeps half precision
    names = ["London.png", 'a"b\\c', "x' or '1'='1"]
    assert embedded.thumbnails(names) == clustered.thumbnails(names)
    assert embedded.thumbnails(names).keys() == {"London.png"}


def test_a_tie_goes_to_the_passage_that_comes_first(server: str, tmp_path: Path) -> None:
    path = tmp_path / "twins.jsonl"
    rows = ({"id": str(i), "title": f"Twin {i}", "paragraphs": ["The twins of Quintara."]} for i in range(12))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for location in (str(tmp_path / "embedded"), f"milvus:{tmp_path / 'twins.db'}", f"{server}/twins"):
        build_corpus(location, Sources(articles=(path,)))
        found = KnowledgeCorpus.open(location).search_sentences(["Quintara"], 5)[0]
        assert [passage.title for passage, _ in found] == [f"Twin {i}" for i in range(5)]


_WORD = st.one_of(st.sampled_from(sorted({word for text in NASTY for word in text.split()})), st.text(max_size=12))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(queries=st.lists(st.lists(_WORD, max_size=8).map(" ".join), min_size=1, max_size=8), all_words=st.booleans())
def test_any_query_finds_the_same(
    both: tuple[KnowledgeCorpus, KnowledgeCorpus], queries: list[str], all_words: bool
) -> None:
    for ours, theirs in zip(*(c.search_sentences(queries, 4, all_words=all_words) for c in both), strict=True):
        assert_same(ours, theirs)


def test_a_sentence_with_all_words_is_found_however_far_behind(server: str, tmp_path: Path) -> None:
    short = [
        f"{tree} {tree} {tree} {i}." for tree in ("Alder", "Birch") for i in range(cluster_reader.LOOKED_THROUGH + 50)
    ]
    both = " ".join(f"filler{i}" for i in range(100)) + " alder's birch"
    path = tmp_path / "trees.jsonl"
    rows = ({"id": str(i), "title": f"Tree {i}", "paragraphs": [text]} for i, text in enumerate([*short, both]))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for location in (str(tmp_path / "embedded"), f"milvus:{tmp_path / 'trees.db'}", f"{server}/trees"):
        build_corpus(location, Sources(articles=(path,)))
        corpus = KnowledgeCorpus.open(location)
        ranked = [passage.text for passage, _ in corpus.search_sentences(["alder birch"], 250)[0]]
        assert both not in ranked[: cluster_reader.LOOKED_THROUGH]
        found = corpus.search_sentences(["Birch alder birch", "alder birch zzzz", "alder"], 5, all_words=True)
        assert [[passage.text for passage, _ in row] for row in found[:2]] == [[both], []]
        assert len(found[2]) == 5


def test_words_that_do_not_fit_a_field_of_milvus_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    sentence = "слово " * 5_900
    assert len(sentence.encode()) < cluster.LONGEST
    with caplog.at_level(logging.WARNING):
        (row,) = cluster._numbered([{"passage": 7, "sentence": sentence}])
    assert len(row["words"]) <= cluster.LONGEST
    assert "longer than Milvus searches" in caplog.text
    kept = row["words"].split()
    assert len(set(kept)) == 1
    assert 2_000 < len(kept) < len(words(sentence))


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


def test_what_is_added_to_milvus_ranks_as_in_a_folder_once_compacted(
    server: str, sources: Sources, tmp_path: Path
) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text('{"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax are a band from Quintara."]}\n')
    queries = ["great night with Zorblax in Quintara", *NASTY]
    found = []
    for location in (str(tmp_path / "embedded"), f"milvus:{tmp_path / 'grown.db'}", f"{server}/grown"):
        build_corpus(location, Sources(articles=sources.articles))
        add(location, Sources(articles=(path,)))
        remove(location, ["n0"])
        compact(location, timedelta(0))
        found.append(KnowledgeCorpus.open(location).search_sentences(queries, 5))
        assert found[-1][0][0][0].title == "Zorblax"
    for ours, theirs in itertools.chain(zip(found[0], found[1], strict=True), zip(found[0], found[2], strict=True)):
        assert_same(ours, theirs)


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


def test_a_corpus_of_an_older_layout_says_to_build_it_again(server: str, sources: Sources) -> None:
    location = f"{server}/older"
    manifest = build_corpus(location, Sources(articles=sources.articles)).manifest
    where = ClusterLocation.parse(location)
    older = manifest.model_copy(update={"tables": dict.fromkeys(manifest.tables, 1)})
    save_manifest(where.client(), where, older)
    for use in (KnowledgeCorpus.open, verify, lambda corpus: remove(corpus, ["en:8786"])):
        with pytest.raises(KnowledgeCorpusError, match="older version of moreie; build it again"):
            use(location)


def build_and_read(location: str, sources: Sources, said: str) -> None:
    articles = Sources(articles=sources.articles)
    for use in (
        KnowledgeCorpus.open,
        lambda corpus: build_corpus(corpus, articles),
        lambda corpus: add(corpus, articles),
    ):
        with pytest.raises(KnowledgeCorpusError, match=said):
            use(location)


@pytest.mark.parametrize("scheme", ["milvus", "milvus+tls"])
def test_a_cluster_that_does_not_answer_is_a_clear_error(
    scheme: str, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    monkeypatch.chdir(tmp_path)
    build_and_read(f"{scheme}://127.0.0.1:9/wiki", sources, "127.0.0.1:9: no Milvus answers there")
    assert not list(tmp_path.iterdir()), "nothing was read"


@pytest.mark.parametrize("open_calls", [(), ("Connect",)], ids=["first call", "later call"])
def test_a_refused_token_is_a_clear_error(
    open_calls: tuple[str, ...], sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpc = pytest.importorskip("grpc", reason="pymilvus is not installed")
    messages = pytest.importorskip("pymilvus.grpc_gen.milvus_pb2")
    stubs = pytest.importorskip("pymilvus.grpc_gen.milvus_pb2_grpc")
    heard: list[str] = []

    class Answers(stubs.MilvusServiceServicer):  # type: ignore[misc,name-defined]
        def Connect(self, request: object, context: object) -> object:  # noqa: N802
            return messages.ConnectResponse()

    class Guard(grpc.ServerInterceptor):  # type: ignore[misc,name-defined]
        """Lets nobody in, as a Milvus with authorization does whose users have other tokens."""

        def intercept_service(self, going_on, call):  # type: ignore[no-untyped-def]
            heard.append(base64.b64decode(dict(call.invocation_metadata)["authorization"]).decode())
            if call.method.endswith(open_calls):
                return going_on(call)
            refused = (grpc.StatusCode.UNAUTHENTICATED, "auth check failure")
            return grpc.unary_unary_rpc_method_handler(lambda request, context: context.abort(*refused))

    listening = grpc.server(ThreadPoolExecutor(2), interceptors=[Guard()])
    stubs.add_MilvusServiceServicer_to_server(Answers(), listening)
    port = listening.add_insecure_port("127.0.0.1:0")
    listening.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILVUS_TOKEN", "root:wrong")
    said = rf"127\.0\.0\.1:{port}: Milvus refuses the token in MILVUS_TOKEN \(auth check failure\)"
    try:
        build_and_read(f"milvus://127.0.0.1:{port}/wiki", sources, said)
    finally:
        listening.stop(None)
    assert set(heard) == {"root:wrong"}
    assert not list(tmp_path.iterdir()), "nothing was read"


def test_a_server_that_goes_away_is_a_clear_error(
    milvus_server: MilvusServer, sources: Sources, tmp_path: Path
) -> None:
    with milvus_server(tmp_path / "data") as address:
        location = f"{address}/gone"
        build_corpus(location, Sources(articles=sources.articles))
        corpus = KnowledgeCorpus.open(location)
        assert said(corpus, "capital of Tennessee")
    with pytest.raises(KnowledgeCorpusError, match=r"no Milvus answers there|Milvus failed"):
        said(corpus, "capital of Tennessee")


@pytest.mark.parametrize(
    "location, there",
    [
        ("milvus://h:1/a", True),
        ("milvus+tls://h:1/a", True),
        ("milvus:a.db", True),
        ("milvus", False),
        ("a/milvus:b", False),
    ],
)
def test_a_location_tells_its_engine(location: str, there: bool) -> None:
    assert in_cluster(location) == there


@pytest.mark.parametrize("location", ["milvus://", "milvus://host:1", "milvus://host/a b", "milvus:folder"])
def test_a_malformed_location_is_a_clear_error(location: str) -> None:
    with pytest.raises(KnowledgeCorpusError, match="expected milvus"):
        ClusterLocation.parse(location)


def test_both_give_an_article_back_with_its_pictures(both: tuple[KnowledgeCorpus, KnowledgeCorpus]) -> None:
    embedded, in_milvus = both
    id = embedded.search_sentences(["capital of Libya Tripoli"], 1)[0][0][0].article_id
    article = embedded.article(id)
    assert article is not None
    assert article == in_milvus.article(id)
    shown = next(iter(embedded.scan("images", ["file", "passage"]))).to_pylist()
    passages = embedded.passages([row["passage"] for row in shown])
    for row in shown:
        for corpus in both:
            whole = corpus.article(passages[row["passage"]].article_id)
            assert whole is not None
            assert row["file"] in [image.file for image in whole.images]
    assert embedded.article("nobody's") is in_milvus.article("nobody's") is None
