"""Mentions linked over a real corpus: the right article, none of them, and the same in any batch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moreie import Extractor, KnowledgeCorpus, LinkedArticle, Linker, Mention
from moreie.datasets import post_from_text
from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.build import Sources
from moreie.knowledge.update import add
from moreie.linking.candidates import MentionsInText, gather
from moreie.retrieval.text import TextRetriever
from moreie.schema import Evidence, Extraction, GateWeights

TEXTS = (
    ("Mercury is the planet that orbits the sun fastest", "Mercury"),
    ("The element Mercury, a liquid metal, is used in thermometers", "Mercury"),
    ("Kawhi Leonard scores again", "Kawhi Leonard"),
    ("Zorblax of Quintara sings tonight", "Zorblax"),
    ("RT #KawhiLeonard wins", "#KawhiLeonard"),
    ("Watching Sol rise", "Sol"),
    ("… !", "…"),
    ("Nobody is named here", ""),
)


def asked(text: str, surface: str) -> MentionsInText:
    start = text.index(surface)
    return MentionsInText(text, (Mention(None, 0, 0, start, start + len(surface)),) if surface else ())


@pytest.fixture(scope="module")
def linker(linked_corpus: Path) -> Linker:
    return Linker.for_corpus(linked_corpus)


def test_namesakes_are_told_apart_by_the_text(linker: Linker) -> None:
    answers = linker.answers([asked(*pair) for pair in TEXTS])
    assert [[a.title for a in row] for row in answers] == [
        ["Mercury (planet)"],
        ["Mercury (element)"],
        ["Kawhi Leonard"],
        [None],
        ["Kawhi Leonard"],
        ["Sun"],
        [None],
        [],
    ]
    assert answers[0][0].article_id == "m1"
    assert answers[0][0].url == "https://example.org/Mercury_(planet)"
    assert all(0 <= a.score <= 1 for row in answers for a in row)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(st.sampled_from(TEXTS), max_size=6))
def test_a_batch_says_what_each_alone_says(linker: Linker, chosen: list[tuple[str, str]]) -> None:
    together = linker.answers([asked(*pair) for pair in chosen])
    assert together == [linker.answers([asked(*pair)])[0] for pair in chosen]


def test_a_part_of_a_name_is_found_among_the_evidence(linker: Linker) -> None:
    text = "Messi dribbles past five players of the club in Barcelona"
    alone = asked(text, "Messi")
    assert gather(linker.corpus, linker.anchors, [alone])[0][0].articles == ()
    (retrieved,) = TextRetriever(linker.corpus, 5).retrieve([post_from_text(text, id="p")])
    (found,) = gather(linker.corpus, linker.anchors, [replace(alone, evidence=retrieved.evidence)])[0]
    assert [c.passage.title for c in found.articles] == ["Lionel Messi"]
    assert found.articles[0].rank == min(e.rank for e in retrieved.evidence if e.passage.title == "Lionel Messi")
    passages = (linker.corpus.named(["national basketball association"]) or {})["national basketball association"]
    league = MentionsInText("In the NBA", (Mention("ORG", 2, 2, 7, 10),), (Evidence(passages[0], "text", 2, 1.0),))
    (found,) = gather(linker.corpus, linker.anchors, [league])[0]
    assert [(c.passage.title, c.rank) for c in found.articles] == [("National Basketball Association", 2)]


def test_an_extraction_keeps_everything_else(linker: Linker, extractor: Extractor) -> None:
    found = extractor.extract("Kawhi Leonard leads the Toronto Raptors past Golden State in Oakland")
    linked = linker.link(found)
    assert [replace(m, linked=None) for m in linked.mentions] == list(found.mentions)
    assert replace(linked, mentions=found.mentions) == found
    assert "link" not in found.to_dict()["mentions"][0]
    row = linked.to_dict()["mentions"][0]["link"]
    assert row["article"] == "simple:550510"
    assert row["title"] == "Kawhi Leonard"
    assert list(linker.stream([found, found], batch_size=1)) == [linked, linked]
    assert "= Kawhi Leonard" in str(linked)


def test_a_corpus_that_changes_is_seen_in_its_new_state(linked_corpus: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(linked_corpus, tmp_path / "corpus")
    linker = Linker.for_corpus(folder)
    text = "Zorblax sings tonight"
    mention = Mention("PER", 0, 0, 0, 7)
    extraction = Extraction("p", text, (mention,), (), (), GateWeights(), (), "m", None)
    assert linker.link(extraction).mentions[0].linked == LinkedArticle(None, None, None, 1.0)
    more = tmp_path / "more.jsonl"
    row = {"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax sings in a band from Quintara."]}
    more.write_text(json.dumps(row) + "\n", encoding="utf-8")
    add(folder, Sources(articles=(more,)))
    answer = linker.link(extraction).mentions[0].linked
    assert answer is not None
    assert answer.title == "Zorblax"


def test_a_corpus_without_names_is_refused(linked_corpus: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(linked_corpus, tmp_path / "corpus")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["tables"]["names"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(KnowledgeCorpusError, match="moreie corpus compact"):
        Linker.for_corpus(KnowledgeCorpus.open(folder))
