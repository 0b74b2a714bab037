"""What each expert says alone, against mixtures of that expert only."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from moreie import Extractor
from moreie.datasets import post_from_text, read_jsonl
from moreie.models.mixture import Mixture
from moreie.schema import Comparison, Extraction, Post
from moreie.shipped import DEMO_POSTS


@pytest.fixture(scope="module")
def posts() -> list[Post]:
    chosen = [post for post in read_jsonl(DEMO_POSTS) if post.id in ("andes", "sobieski", "spurs", "no-picture")]
    return [*chosen, post_from_text("", id="empty"), post_from_text("nothing was found", id="plain")]


@pytest.fixture(scope="module")
def compared(extractor: Extractor, posts: list[Post]) -> list[Comparison]:
    return extractor.compare(posts, batch_size=4)


def alone(extractor: Extractor, name: str) -> Extractor:
    """The same extractor with one entity expert and without relations."""
    expert = next(e for e in extractor.ner.experts if e.spec.name == name)
    return Extractor(
        Mixture([expert], None, extractor.ner.fitted_temperature, threshold=extractor.ner.threshold),
        None,
        corpus=extractor.corpus,
        image_encoder=extractor.image_encoder,
        k=extractor.k,
        image_floor=extractor.image_floor,
    )


def test_the_mixture_answers_as_without_comparing(
    extractor: Extractor, posts: list[Post], compared: list[Comparison]
) -> None:
    def rounded(extraction: Extraction) -> list[object]:
        rows = extraction.to_dict()
        return [[(m["text"], m["type"], round(m["confidence"], 4)) for m in rows["mentions"]], rows["evidence"]]

    plain = extractor.extract_batch(posts)
    assert [rounded(c.extraction) for c in compared] == [rounded(e) for e in plain]
    assert [[(r.head, r.tail, r.type) for r in c.extraction.relations] for c in compared] == [
        [(r.head, r.tail, r.type) for r in e.relations] for e in plain
    ]


@pytest.mark.parametrize("name", ["text", "image"])
def test_an_expert_says_what_it_says_alone(
    extractor: Extractor, posts: list[Post], compared: list[Comparison], name: str
) -> None:
    spoke = 0
    for own, comparison in zip(alone(extractor, name).extract_batch(posts), compared, strict=True):
        if name not in comparison.entities:
            continue
        spoke += 1
        said = comparison.entities[name]
        assert [(m.type, m.first, m.last) for m in said] == [(m.type, m.first, m.last) for m in own.mentions]
        assert [m.confidence for m in said] == pytest.approx([m.confidence for m in own.mentions], abs=1e-3)
    assert spoke >= 2


def test_experts_without_evidence_have_no_answer(compared: list[Comparison]) -> None:
    by_id = {c.extraction.id: c for c in compared}
    assert set(by_id["no-picture"].entities) == {
        name for name, weight in by_id["no-picture"].extraction.gate.entities.items() if weight > 0
    }
    assert "image" not in by_id["no-picture"].entities
    assert {"text", "image"} <= set(by_id["andes"].entities)
    assert by_id["empty"].entities == by_id["empty"].relations == {}
    assert by_id["plain"].relations == {}, "there are no mentions to ask about"
    assert by_id["andes"].relations.keys() == by_id["andes"].extraction.gate.relations.keys()


def test_relations_point_into_the_mixtures_mentions(compared: list[Comparison]) -> None:
    relations = [(c, r) for c in compared for own in c.relations.values() for r in own]
    assert relations
    for comparison, relation in relations:
        count = len(comparison.extraction.mentions)
        assert 0 <= relation.head < count
        assert 0 <= relation.tail < count
        assert 0 < relation.confidence <= 1


def test_a_single_expert_is_its_mixture(extractor: Extractor) -> None:
    post = read_jsonl(DEMO_POSTS)[0]
    (comparison,) = alone(extractor, "text").compare([post])
    assert comparison.entities == {"text": comparison.extraction.mentions}


def test_a_long_post_is_put_together_from_its_windows(extractor: Extractor) -> None:
    text = "Barack Obama meets Angela Merkel in Berlin. " * 40
    (comparison,) = alone(extractor, "text").compare([post_from_text(text, id="long")])
    assert any("windows" in warning for warning in comparison.extraction.warnings)
    starts = [m.start for m in comparison.entities["text"]]
    assert starts == sorted(starts)
    assert starts[-1] > len(text) * 0.9
    assert {text[m.start : m.end] for m in comparison.entities["text"]} >= {"Barack Obama", "Berlin"}


def test_json(compared: list[Comparison]) -> None:
    comparison = compared[0]
    row = json.loads(json.dumps(comparison.to_dict()))
    assert row.keys() - comparison.extraction.to_dict().keys() == {"experts"}
    assert row["experts"]["entities"].keys() == comparison.entities.keys()
    one = row["experts"]["entities"]["text"][0]
    assert one["text"] == row["text"][one["start"] : one["end"]]
    assert replace(comparison, entities={}, relations={}).to_dict()["experts"] == {"entities": {}, "relations": {}}
