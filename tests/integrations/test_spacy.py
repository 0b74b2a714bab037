"""The spaCy component, added by name to real pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy

from moreie import Extractor, Linker
from moreie.errors import MoreieError
from moreie.integrations.spacy import MoreComponent, annotate, as_doc
from moreie.shipped import DEMO_CORPUS

TEXTS = [
    "Kawhi Leonard leads the Toronto Raptors past Golden State in Oakland",
    "Taylor  Swift\nat Wembley, London \n",
    "",
    "  \n",
]


@pytest.fixture(scope="module")
def nlp() -> spacy.language.Language:
    made = spacy.blank("en")
    made.add_pipe("moreie", config={"corpus": str(DEMO_CORPUS), "link": True})
    return made


def test_a_document_has_entities_relations_and_evidence(nlp: spacy.language.Language, extractor: Extractor) -> None:
    doc = nlp(TEXTS[0])
    expected = extractor.extract(TEXTS[0])
    assert [(e.text, e.label_) for e in doc.ents] == expected.entities
    assert [e._.confidence for e in doc.ents] == pytest.approx([m.confidence for m in expected.mentions])
    assert [(r.head.text, r.type, r.tail.text) for r in doc._.relations] == [
        (expected.entities[r.head][0], r.type, expected.entities[r.tail][0]) for r in expected.relations
    ]
    assert doc._.relations
    assert [e.passage.title for e in doc._.evidence] == [e.passage.title for e in expected.evidence]
    assert doc._.gate == expected.gate
    assert {e.kb_id_ for e in as_doc(expected).ents} == {""}, "nobody asked"


def test_batches_give_what_single_documents_give(nlp: spacy.language.Language) -> None:
    together = list(nlp.pipe(TEXTS, batch_size=3))
    assert [d.text for d in together] == TEXTS
    for doc, text in zip(together, TEXTS, strict=True):
        assert [(e.text, e.label_) for e in doc.ents] == [(e.text, e.label_) for e in nlp(text).ents]


def test_a_picture_is_read_where_the_document_has_one(nlp: spacy.language.Language, tmp_path: Path) -> None:
    doc = nlp.make_doc(TEXTS[0])
    doc._.image = str(tmp_path / "missing.jpg")
    assert any("no such picture" in w for w in nlp(doc)._.extraction.warnings)


@pytest.mark.parametrize("text", TEXTS)
def test_an_extraction_becomes_a_document_of_the_same_text(extractor: Extractor, text: str) -> None:
    extraction = extractor.extract(text)
    doc = as_doc(extraction)
    assert doc.text == text
    assert [(e.start_char, e.end_char, e.label_) for e in doc.ents] == [
        (m.start, m.end, m.type) for m in extraction.mentions
    ]


def test_an_extraction_of_another_text_is_refused(nlp: spacy.language.Language, extractor: Extractor) -> None:
    with pytest.raises(MoreieError, match="is of another text"):
        annotate(spacy.blank("en")("Oakland"), extractor.extract(TEXTS[0]))


def test_an_entity_inside_a_token_takes_the_token(extractor: Extractor) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("moreie")
    component = nlp.get_pipe("moreie")
    assert isinstance(component, MoreComponent)
    doc = nlp("@KawhiLeonard and Kawhi Leonard's Toronto Raptors in Oakland/London")
    for entity in doc.ents:
        assert doc.text[entity.start_char : entity.end_char] == entity.text
    starts = [e.start for e in doc.ents]
    assert starts == sorted(set(starts)), "no two entities share a token"


def test_entities_have_the_id_of_their_article(nlp: spacy.language.Language, extractor: Extractor) -> None:
    text = "David Bowie at Earls Court in London, 1978"
    linked = Linker.for_corpus(DEMO_CORPUS).link(extractor.extract(text))
    ids = [m.linked.article_id or "NIL" for m in linked.mentions if m.linked]
    assert ids[0] == "en:8786"
    assert "NIL" in ids
    assert [e.kb_id_ for e in nlp(text).ents] == ids
    assert [e.kb_id_ for e in as_doc(linked).ents] == ids
    assert [e.kb_id_ for e in next(nlp.pipe([text])).ents] == ids
