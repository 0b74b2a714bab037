"""Posts of every kind in, flagged answers out, with the shipped model, encoder and corpus."""

from __future__ import annotations

import _thread
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from moreie import Extractor, KnowledgeCorpus
from moreie.datasets import post_from_text, read_jsonl
from moreie.encoders.batches import computing_with
from moreie.encoders.fingerprints import recorded_fingerprint
from moreie.encoders.images import ImageEncoder
from moreie.encoders.text import TextEncoder
from moreie.errors import CheckpointError, KnowledgeCorpusError, MoreieError
from moreie.knowledge.build import Sources
from moreie.knowledge.update import add
from moreie.models.assembly import View
from moreie.models.expert import ExpertSpec
from moreie.models.mixture import Mixture
from moreie.models.relation import RelationExpert
from moreie.schema import Extraction
from moreie.shipped import DEMO_CORPUS, DEMO_POSTS, IMAGE_ENCODER, MODEL, TEXT_ENCODER

TEXT = "RT @AFP: Barack Obama meets Angela Merkel in Berlin  😀 before the UN summit"


@pytest.fixture(scope="module")
def answers(extractor: Extractor) -> dict[str, Extraction]:
    return {e.id: e for e in extractor.extract_batch(read_jsonl(DEMO_POSTS))}


def test_offsets_lie_in_the_users_own_text(answers: dict[str, Extraction], extractor: Extractor) -> None:
    extraction = extractor.extract(TEXT)
    found = {TEXT[m.start : m.end]: m.type for m in extraction.mentions}
    assert found["Angela Merkel"] == "PER"
    assert found["Berlin"] == "LOC"
    for answer in answers.values():
        for m in answer.mentions:
            assert 0 <= m.start < m.end <= len(answer.text)
            assert answer.text[m.start : m.end].strip() == answer.text[m.start : m.end]
            assert 0 < m.confidence <= 1


def test_an_extractor_for_texts_answers_texts_as_any_other_does(extractor: Extractor, tmp_path: Path) -> None:
    posts = read_jsonl(DEMO_POSTS)
    for_texts = Extractor.for_texts()
    assert for_texts.image_encoder is None
    texts = [replace(post, image=None) for post in posts]
    assert for_texts.extract_batch(texts) == extractor.extract_batch(texts)
    pictured = next(post for post in posts if post.image is not None)
    answer = for_texts.extract(pictured)
    assert any("the picture was not used: the model has no image encoder" in w for w in answer.warnings)
    assert not any(evidence.retriever == "image" for evidence in answer.evidence)
    for_texts.save_pretrained(tmp_path / "model")
    assert Extractor.from_pretrained(tmp_path / "model").image_encoder is None
    copied = next((tmp_path / "model" / "encoders").iterdir())
    assert recorded_fingerprint(copied) == for_texts.ner.experts[0].encoder.fingerprint
    with pytest.raises(KnowledgeCorpusError, match="no knowledge corpus there"):
        Extractor.for_texts(tmp_path / "no-model", corpus=tmp_path / "no-corpus")


def test_gate_weights_sum_to_one_and_name_the_experts(answers: dict[str, Extraction], extractor: Extractor) -> None:
    assert extractor.relations is not None
    for answer in answers.values():
        assert set(answer.gate.entities) == set(extractor.ner.names)
        assert sum(answer.gate.entities.values()) == pytest.approx(1, abs=1e-5)
        if answer.gate.relations:
            assert set(answer.gate.relations) == set(extractor.relations.names)
            assert sum(answer.gate.relations.values()) == pytest.approx(1, abs=1e-5)


def test_threads_change_nothing(answers: dict[str, Extraction], extractor: Extractor) -> None:
    with computing_with(3):
        others = extractor.extract_batch(read_jsonl(DEMO_POSTS))
    for other in others:
        own = answers[other.id]
        assert [(m.type, m.start, m.end) for m in other.mentions] == [(m.type, m.start, m.end) for m in own.mentions]
        assert [(r.type, r.head, r.tail) for r in other.relations] == [(r.type, r.head, r.tail) for r in own.relations]
        confidences = [m.confidence for m in other.mentions] + [r.confidence for r in other.relations]
        expected = [m.confidence for m in own.mentions] + [r.confidence for r in own.relations]
        assert confidences == pytest.approx(expected, abs=0.03)
        assert [e.passage.id for e in other.evidence] == [e.passage.id for e in own.evidence]


@pytest.mark.parametrize("threads", [1, 2])
def test_stages_are_heard_of_in_the_callers_thread(extractor: Extractor, threads: int) -> None:
    heard: list[tuple[str, float, threading.Thread]] = []
    clock = time.perf_counter()
    with computing_with(threads):
        extractor.extract_batch(
            read_jsonl(DEMO_POSTS)[:3], on_stage=lambda *stage: heard.append((*stage, threading.current_thread()))
        )
    whole = time.perf_counter() - clock
    stages = {name: seconds for name, seconds, _ in heard}
    retrieval = ["text retrieval", "image encoder", "image retrieval"]
    both = "evidence, and posts without it"
    assert list(stages) == ["windows", *retrieval, both, "entity experts", "decoding", "relation experts"]
    assert all(seconds >= 0 and thread is threading.main_thread() for _, seconds, thread in heard)
    assert sum(stages[name] for name in retrieval) <= stages[both] <= whole


def test_who_interrupts_is_heard_at_once_and_what_was_at_work_ends_before_the_next(
    answers: dict[str, Extraction], extractor: Extractor
) -> None:
    posts = read_jsonl(DEMO_POSTS)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
    try:
        with computing_with(2):
            timer = threading.Timer(0.2, _thread.interrupt_main)
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                extractor.extract_batch(posts * 100, batch_size=16)
            timer.join()
            after = extractor.extract(posts[0])
    finally:
        signal.signal(signal.SIGINT, before)
    assert [m.type for m in after.mentions] == [m.type for m in answers[posts[0].id].mentions]
    assert [e.passage.id for e in after.evidence] == [e.passage.id for e in answers[posts[0].id].evidence]


def test_relations_join_the_found_mentions(answers: dict[str, Extraction]) -> None:
    relations = [(a, r) for a in answers.values() for r in a.relations]
    assert relations, "no demo post has a relation"
    for answer, r in relations:
        assert r.head != r.tail
        head, tail = answer.mentions[r.head], answer.mentions[r.tail]
        first, second = r.type.split("/")[1:3]
        assert (head.type or "").lower() == first, r
        assert (tail.type or "").lower() == second, r
        assert r.type != "None"
    for answer in answers.values():
        pairs = [frozenset((r.head, r.tail)) for r in answer.relations]
        assert len(pairs) == len(set(pairs)), "at most one relation a pair"


def test_the_photograph_finds_its_article(answers: dict[str, Extraction]) -> None:
    def best(id: str) -> str:
        return next(e.passage.title for e in answers[id].evidence if e.retriever == "image")

    assert best("andes") == "The Heart of the Andes"
    assert best("sobieski") == "John III Sobieski"
    assert best("toledo") == "View of Toledo"


def test_evidence_comes_from_both_retrievers_in_rank_order(answers: dict[str, Extraction]) -> None:
    evidence = answers["andes"].evidence
    assert {e.retriever for e in evidence} == {"text", "image"}
    for retriever in ("text", "image"):
        own = [e for e in evidence if e.retriever == retriever]
        assert [e.rank for e in own] == list(range(1, len(own) + 1))
        assert [e.score for e in own] == sorted((e.score for e in own), reverse=True)


def test_what_is_missing_is_said(answers: dict[str, Extraction]) -> None:
    assert "no picture" in answers["no-picture"].warnings
    assert answers["no-picture"].mentions
    assert any("similar enough" in w for w in answers["bowie"].warnings)
    assert any("found no room" in w for w in answers["andes"].warnings)


def test_a_post_alone_is_answered_as_in_a_batch(answers: dict[str, Extraction], extractor: Extractor) -> None:
    for post in read_jsonl(DEMO_POSTS)[:3]:
        alone, batched = extractor.extract(post), answers[post.id]
        assert [(m.start, m.end, m.type) for m in alone.mentions] == [
            (m.start, m.end, m.type) for m in batched.mentions
        ]
        assert [m.confidence for m in alone.mentions] == pytest.approx(
            [m.confidence for m in batched.mentions], abs=0.02
        )


def test_json_follows_the_documented_schema(answers: dict[str, Extraction]) -> None:
    row = json.loads(json.dumps(answers["sobieski"].to_dict()))
    assert list(row) == [
        "schema",
        "id",
        "text",
        "image",
        "mentions",
        "relations",
        "evidence",
        "gate",
        "warnings",
        "model",
        "corpus",
    ]
    assert list(row["mentions"][0]) == ["text", "type", "start", "end", "confidence"]
    assert list(row["evidence"][0]) == [
        "retriever",
        "rank",
        "score",
        "article",
        "title",
        "url",
        "sentence",
        "text",
        "image",
    ]
    assert list(row["gate"]) == ["entities", "relations"]
    relations = [r for a in answers.values() for r in a.to_dict()["relations"]]
    assert list(relations[0]) == ["head", "tail", "type", "confidence"]
    mention = row["mentions"][0]
    assert row["text"][mention["start"] : mention["end"]] == mention["text"]
    documented = Path(__file__).parents[1] / "docs" / "extraction-json.md"
    for key in (*row, *row["mentions"][0], *row["evidence"][0]):
        assert f"`{key}`" in documented.read_text(), f"{key} is not documented"


def test_what_is_added_to_the_knowledge_is_evidence_a_moment_later(
    extractor: Extractor, small_corpus: Path, tmp_path: Path
) -> None:
    corpus = Path(shutil.copytree(small_corpus, tmp_path / "corpus"))
    taught = Extractor(extractor.ner, extractor.relations, corpus=KnowledgeCorpus.open(corpus), image_encoder=None)
    post = "Great night with Zorblax in Quintara"
    before = taught.extract(post)
    assert "Zorblax" not in {e.passage.title for e in before.evidence}
    new = tmp_path / "new.jsonl"
    new.write_text('{"id": "z", "title": "Zorblax", "paragraphs": ["Zorblax are a rock band from Quintara."]}\n')
    add(corpus, Sources(articles=(new,)))
    after = taught.extract(post)
    assert after.evidence[0].passage.title == "Zorblax"
    assert after.corpus != before.corpus


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "   \n\t", "​"])
def test_an_empty_text_is_flagged(extractor: Extractor, text: str) -> None:
    extraction = extractor.extract(text)
    assert extraction.mentions == ()
    assert extraction.text == text
    if not text.strip():
        assert "the text is empty: nothing to extract" in extraction.warnings


@pytest.mark.slow
def test_twenty_thousand_words(extractor: Extractor) -> None:
    words = ("Barack Obama met Angela Merkel in Berlin . " * 2500).split()[:20_000]
    text = " ".join(words)
    extraction = extractor.extract(text)
    assert any("long text" in w for w in extraction.warnings)
    assert len(extraction.mentions) > 5000
    for m in extraction.mentions[:50] + extraction.mentions[-50:]:
        assert text[m.start : m.end] in {"Barack Obama", "Angela Merkel", "Berlin", "Obama", "Merkel"}


@pytest.mark.parametrize(
    "text",
    [
        "😀😀👩‍👩‍👧‍👦 🇫🇷",
        "باراك أوباما يلتقي أنغيلا ميركل في برلين",
        "ברק אובמה נפגש עם אנגלה מרקל בברלין 😀",
        "東京オリンピック2020",
        "a" * 5000,
        "\x00\x01 \ud7ff \U0010ffff",
    ],
)
def test_emoji_right_to_left_and_odd_text(extractor: Extractor, text: str) -> None:
    extraction = extractor.extract(text)
    assert extraction.text == text
    for m in extraction.mentions:
        assert text[m.start : m.end]


def _truncated(path: Path) -> None:
    good = path.with_suffix(".whole")
    Image.effect_noise((300, 300), 60).convert("RGB").save(good, "JPEG")
    path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])


def _bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


@pytest.mark.parametrize(
    "make, said",
    [
        (_truncated, "cut off or damaged"),
        (lambda p: p.write_bytes(b""), "0 bytes"),
        (lambda p: p.write_text("hello, I am no picture"), "not a picture"),
        (_bomb, "pixels"),
        (lambda p: None, "no such picture"),
    ],
    ids=["truncated", "0-byte", "text", "bomb", "missing"],
)
def test_a_bad_picture_is_flagged_and_the_text_still_answers(
    extractor: Extractor, tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "photo.jpg"
    make(path)
    extraction = extractor.extract(TEXT, image=path)
    assert any(said in w and "photo.jpg" in w for w in extraction.warnings), extraction.warnings
    assert extraction.mentions == extractor.extract(TEXT).mentions
    assert not any(e.retriever == "image" for e in extraction.evidence)


def test_one_bad_picture_does_not_touch_its_neighbours(
    extractor: Extractor, answers: dict[str, Extraction], tmp_path: Path
) -> None:
    posts = read_jsonl(DEMO_POSTS)[:3]
    (tmp_path / "b.jpg").write_bytes(b"")
    posts.insert(1, replace(post_from_text(TEXT, id="bad"), image=tmp_path / "b.jpg"))
    for extraction in extractor.extract_batch(posts):
        if extraction.id != "bad":
            assert [e.passage.id for e in extraction.evidence] == [
                e.passage.id for e in answers[extraction.id].evidence
            ]


def test_a_corpus_without_images_leaves_the_image_experts_out(small_corpus: Path, extractor: Extractor) -> None:
    bare = Extractor(
        extractor.ner,
        extractor.relations,
        corpus=KnowledgeCorpus.open(small_corpus),
        image_encoder=ImageEncoder.from_pretrained(IMAGE_ENCODER),
    )
    extraction = bare.extract(read_jsonl(DEMO_POSTS)[0])
    assert "the picture was not used: the corpus holds no images" in extraction.warnings
    assert "no picture" in bare.extract(TEXT).warnings
    assert extraction.mentions


def test_a_model_without_an_image_encoder_says_that_the_picture_was_not_used(extractor: Extractor) -> None:
    bare = Extractor(extractor.ner, None, corpus=extractor.corpus, image_encoder=None)
    post = read_jsonl(DEMO_POSTS)[0]
    assert "the picture was not used: the model has no image encoder" in bare.extract(post).warnings
    assert "the picture was not used: the model has no image encoder" in bare.retrieve(post).warnings
    assert "no picture" in bare.extract(TEXT).warnings


def test_iterative_retrieval_asks_for_the_mentions_found_without_evidence(
    small_corpus: Path, extractor: Extractor
) -> None:
    iterative = Extractor(
        extractor.ner,
        None,
        corpus=KnowledgeCorpus.open(small_corpus),
        image_encoder=None,
        text_mode="iterative",
    )
    alone = iterative.mentions_alone(
        [post_from_text("David Bowie played in London", id="p"), post_from_text("", id="e")]
    )
    assert [post.type for post in alone[0]] == ["PER", "LOC"]
    assert alone[1] == []
    extraction = iterative.extract("David Bowie played in London")
    assert {e.passage.title for e in extraction.evidence[:2]} == {"David Bowie", "London"}


def test_an_expert_whose_evidence_is_not_retrieved_is_named(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expert = extractor.ner.experts[-1]
    view = replace(expert.spec.view, retriever="caption")
    monkeypatch.setattr(expert, "spec", expert.spec.model_copy(update={"view": view}))
    extraction = extractor.extract("David Bowie played in London")
    said = (
        f"the {expert.spec.name} expert was left out: it reads caption evidence, which is not retrieved, and none was"
    )
    assert any(warning.startswith(said) for warning in extraction.warnings)
    assert extraction.gate.entities[expert.spec.name] == 0


def test_typed_markers_are_told_the_types_that_were_found(extractor: Extractor) -> None:
    encoder = TextEncoder.from_pretrained(TEXT_ENCODER)
    found = {}
    for markers in ("typed", "plain"):
        torch.manual_seed(0)
        spec = ExpertSpec(task="re", name="a", labels=("None", "near"), view=View(None, markers=markers), encoder="x")
        expert = RelationExpert(spec, encoder).eval()
        expert.classifier.bias.data = torch.tensor([-3.0, 0.0])
        bare = Extractor(extractor.ner, Mixture([expert], None), corpus=None, image_encoder=None)
        extraction = bare.extract("David Bowie played in London")
        assert extraction.entities == [("David Bowie", "PER"), ("London", "LOC")]
        (relation,) = extraction.relations
        post = post_from_text(extraction.text, id="p")
        pair = (post, extraction.mentions[relation.head], extraction.mentions[relation.tail])
        (inputs,) = expert.assemble([pair], [()])
        (expected,) = expert.log_probabilities([inputs])
        assert relation.confidence == pytest.approx(float(expected[1].exp()), abs=1e-4)
        found[markers] = (len(inputs.input_ids), relation.confidence)
    (words,) = encoder.word_subtokens([["PER", ":", "LOC", ":"]])
    assert found["typed"][0] == found["plain"][0] + sum(map(len, words))
    assert abs(found["typed"][1] - found["plain"][1]) > 1e-3, "the confidences tell the markers apart"


def test_without_a_corpus_the_answer_says_so(extractor: Extractor) -> None:
    bare = Extractor(extractor.ner, None, corpus=None, image_encoder=None)
    extraction = bare.extract(TEXT)
    assert "no knowledge corpus: nothing was retrieved" in extraction.warnings
    assert extraction.mentions
    assert extraction.relations == ()
    assert extraction.corpus is None


def test_an_unfinished_or_absent_corpus_is_named(tmp_path: Path) -> None:
    shutil.copytree(DEMO_CORPUS, tmp_path / "half")
    (tmp_path / "half" / "manifest.json").unlink()
    with pytest.raises(KnowledgeCorpusError, match="half"):
        Extractor.from_pretrained(corpus=tmp_path / "half")
    with pytest.raises(KnowledgeCorpusError, match="nowhere"):
        Extractor.from_pretrained(corpus=tmp_path / "nowhere")


def test_a_model_folder_is_saved_and_loaded_again(extractor: Extractor, tmp_path: Path) -> None:
    extractor.save_pretrained(tmp_path / "model")
    files = {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert files == {".json", ".safetensors"}
    again = Extractor.from_pretrained(tmp_path / "model")
    assert again.extract(TEXT) == extractor.extract(TEXT)


@pytest.mark.parametrize("lost", ["extractor.json", "ner/mixture.json", "ner/gate.safetensors"])
def test_an_incomplete_model_folder_is_named(tmp_path: Path, extractor: Extractor, lost: str) -> None:
    extractor.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / lost).unlink()
    with pytest.raises(CheckpointError, match="model"):
        Extractor.from_pretrained(tmp_path / "model")


def test_a_damaged_expert_is_named(tmp_path: Path, extractor: Extractor) -> None:
    extractor.save_pretrained(tmp_path / "model")
    adapter = next((tmp_path / "model" / "ner").glob("*/adapter.safetensors"))
    adapter.write_bytes(adapter.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=adapter.parent.name):
        Extractor.from_pretrained(tmp_path / "model")


def test_the_shipped_model_has_a_card_and_stays_small() -> None:
    card = (MODEL / "README.md").read_text()
    for heading in ("Data", "Recipe", "Scores", "Licences", "Limits"):
        assert f"## {heading}" in card
    files = [p for p in MODEL.parents[1].rglob("*") if p.is_file()]
    assert max(p.stat().st_size for p in files) < 50 * 2**20
    assert sum(p.stat().st_size for p in files) < 90 * 2**20


def test_confidences_are_read_at_the_models_temperature_and_answers_stay(
    tmp_path: Path, answers: dict[str, Extraction], extractor: Extractor
) -> None:
    assert extractor.relations is not None
    softer = Extractor(
        Mixture(extractor.ner.experts, extractor.ner.gate, 2.5, threshold=extractor.ner.threshold),
        Mixture(
            extractor.relations.experts,
            extractor.relations.gate,
            1.5,
            reversed_none=extractor.relations.reversed_none,
        ),
        corpus=extractor.corpus,
        image_encoder=extractor.image_encoder,
        k=extractor.k,
        image_floor=extractor.image_floor,
        text_mode=extractor.text_mode,
    )
    for answer in softer.extract_batch(read_jsonl(DEMO_POSTS)):
        before = answers[answer.id]
        assert answer.entities == before.entities
        assert [(r.head, r.tail, r.type) for r in answer.relations] == [
            (r.head, r.tail, r.type) for r in before.relations
        ]
        for now, was in zip(answer.mentions, before.mentions, strict=True):
            assert now.confidence < was.confidence
        assert all(a.confidence != b.confidence for a, b in zip(answer.relations, before.relations, strict=True))
    softer.save_pretrained(tmp_path / "model")
    again = Extractor.from_pretrained(tmp_path / "model", corpus=extractor.corpus)
    assert again.relations is not None
    assert (again.ner.temperature, again.relations.temperature) == (2.5, 1.5)
    assert again.relations.reversed_none == extractor.relations.reversed_none > 5


def test_evidence_alone_is_that_of_the_extraction(extractor: Extractor) -> None:
    post = next(post for post in read_jsonl(DEMO_POSTS) if post.image)
    extraction, found = extractor.extract(post), extractor.retrieve(post)
    assert found.evidence == extraction.evidence
    bare = Extractor(extractor.ner, None, corpus=None, image_encoder=None)
    with pytest.raises(KnowledgeCorpusError, match="no knowledge corpus"):
        bare.retrieve("Obama")


def test_evidence_is_read_where_the_post_alone_leaves_doubt(
    answers: dict[str, Extraction], extractor: Extractor
) -> None:
    selective = extractor.selective(0.9)
    found = selective.extract_batch(read_jsonl(DEMO_POSTS))
    assert {e.model for e in found} == {f"{extractor.name} (certainty 0.9)"}
    unread = [e for e in found if e.gate.entities.get("baseline") == 1 and e.evidence]
    assert 0 < len(unread) < len(found)
    for e in found:
        whole = answers[e.id]
        assert e.evidence == whole.evidence, "it is retrieved all the same"
        assert {(m.type, m.first, m.last) for m in e.mentions} == {(m.type, m.first, m.last) for m in whole.mentions}
    influences = selective.attribute(unread[0].text).influences
    assert not [i for i in influences if i.mention is not None]
    with pytest.raises(MoreieError, match="a probability above 0"):
        extractor.selective(1.5)


def test_in_8_bits_nearly_the_same_is_found_and_it_says_so(extractor: Extractor) -> None:
    posts = read_jsonl(DEMO_POSTS)
    small = extractor.quantized()
    whole, found = extractor.extract_batch(posts), small.extract_batch(posts)
    assert {e.model for e in found} == {f"{extractor.name} (int8)"}
    assert {e.model for e in whole} == {extractor.name}
    mentions = [{(e.id, m.type, m.first, m.last) for e in each for m in e.mentions} for each in (whole, found)]
    assert len(mentions[0] & mentions[1]) > 0.9 * len(mentions[0] | mentions[1])
