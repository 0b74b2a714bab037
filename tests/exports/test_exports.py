"""Real extractions in the forms of other tools, read back by those tools or by their rules."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import regex

from moreie import Extraction, Extractor, LinkedArticle
from moreie.datasets import read_conll
from moreie.errors import MoreieError
from moreie.exports import brat, conll, label_studio, table

TEXTS = (
    "Kawhi Leonard leads the Toronto Raptors past Golden State in Oakland",
    "Taylor Swift\nwill play <b>Wembley</b> in London & Paris  #TaylorSwift",
    "nothing to see here",
)


@pytest.fixture(scope="module")
def extractions(extractor: Extractor) -> list[Extraction]:
    found = [replace(extractor.extract(text), id=f"post/{n}") for n, text in enumerate(TEXTS)]
    assert found[0].relations, "the examples need a relation"
    return found


def test_conll_gives_the_mentions_back(extractions: list[Extraction], tmp_path: Path) -> None:
    conll.write(extractions, tmp_path / "found.txt")
    posts = read_conll(tmp_path / "found.txt")
    assert [p.image_id for p in posts] == ["post/0", "post/1", "post/2"]
    for post, extraction in zip(posts, extractions, strict=True):
        spans = [(m.type, m.first, m.last) for m in post.mentions or ()]
        assert spans == [(m.type, m.first, m.last) for m in extraction.mentions]
    assert extractions[0].to_conll() + "\n" == (tmp_path / "found.txt").read_text().split("IMGID:post/1")[0]
    with pytest.raises(MoreieError, match="its words are not known"):
        conll.as_post(replace(extractions[0], words=()))


def test_brat_offsets_lie_in_the_text(extractions: list[Extraction], tmp_path: Path) -> None:
    over_a_line = replace(
        extractions[1], mentions=(replace(extractions[1].mentions[0], start=7, end=17),), relations=()
    )
    for extraction in (*extractions, over_a_line):
        parts = brat.standoff(extraction)
        found = regex.findall(r"^T(\d+)\t([\w-]+) (\d+ \d+(?:;\d+ \d+)*)\t(.*)$", parts.annotation, regex.M)
        assert len(found) == len(extraction.mentions)
        for _, type, places, surface in found:
            assert type.isascii()
            pieces = [parts.text[int(a) : int(b)] for a, b in (p.split() for p in places.split(";"))]
            assert " ".join(pieces) == surface
            assert "\n" not in surface
        relations = regex.findall(r"^R\d+\t([\w-]+) Arg1:T(\d+) Arg2:T(\d+)$", parts.annotation, regex.M)
        assert [(int(a) - 1, int(b) - 1) for _, a, b in relations] == [(r.head, r.tail) for r in extraction.relations]
    brat.write(extractions, tmp_path / "brat")
    assert sorted(p.name for p in (tmp_path / "brat").glob("*.ann")) == ["post_0.ann", "post_1.ann", "post_2.ann"]
    assert (tmp_path / "brat" / "post_1.txt").read_bytes().decode() == TEXTS[1]
    assert "[entities]" in (tmp_path / "brat" / "annotation.conf").read_text()
    with pytest.raises(MoreieError, match=r"'post/0' and 'post:0' would share the file post_0\.txt"):
        brat.write([extractions[0], replace(extractions[0], id="post:0")], tmp_path / "twice")


def test_label_studio_tasks_fit_their_labelling_interface(extractions: list[Extraction], tmp_path: Path) -> None:
    label_studio.write(extractions, tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    view = ElementTree.fromstring((tmp_path / "tasks.xml").read_text())
    known = {e.get("value") for e in view.iter("Label")} | {e.get("value") for e in view.iter("Relation")}
    for task, extraction in zip(tasks, extractions, strict=True):
        (prediction,) = task["predictions"]
        ids = {r["id"] for r in prediction["result"] if r["type"] == "labels"}
        for result in prediction["result"]:
            if result["type"] == "labels":
                value = result["value"]
                assert task["data"]["text"][value["start"] : value["end"]] == value["text"]
                assert set(value["labels"]) <= known
            else:
                assert {result["from_id"], result["to_id"]} <= ids
                assert set(result["labels"]) <= known
        assert prediction["score"] == min(
            [a.confidence for a in (*extraction.mentions, *extraction.relations)], default=1.0
        )
    assert label_studio.labelling_interface(['a"b'], []).count("a&quot;b") + 1


def test_a_table_has_a_row_a_post(extractions: list[Extraction]) -> None:
    made = table.frame(extractions)
    assert isinstance(made, pandas.DataFrame)
    assert list(made.index) == [e.id for e in extractions]
    assert [entity[:2] for entity in made.loc["post/0", "entities"]] == extractions[0].entities
    head, type, tail, _ = made.loc["post/0", "relations"][0]
    first = extractions[0].relations[0]
    assert (head, type, tail) == (
        extractions[0].entities[first.head][0],
        first.type,
        extractions[0].entities[first.tail][0],
    )
    assert table.frame([]).empty
    assert extractions[0].to_pandas().equals(table.series(extractions[0]))
    assert table.series(extractions[2]).entities == []


def test_an_extraction_knows_its_forms(extractions: list[Extraction]) -> None:
    first = extractions[0]
    assert json.loads(first.to_json()) == first.to_dict()
    assert first.to_brat() == (first.text, brat.standoff(first).annotation)
    assert first.to_label_studio() == label_studio.task(first)
    assert [(e.text, e.label_) for e in first.to_spacy().ents] == first.entities


def test_linked_mentions_keep_their_articles(extractions: list[Extraction]) -> None:
    found = extractions[0]
    articles = [LinkedArticle("en: 1", "A \tB", None, 0.9), LinkedArticle(None, None, None, 1.0)]
    kinds = [articles[n % 2] for n in range(len(found.mentions))]
    linked = replace(found, mentions=tuple(replace(m, linked=a) for m, a in zip(found.mentions, kinds, strict=True)))
    references = regex.findall(
        r"^N(\d+)\tReference T(\d+) corpus:(\S+)\t(.*)$", brat.standoff(linked).annotation, regex.M
    )
    assert references == [(str(n + 1), str(2 * n + 1), "en:_1", "A B") for n in range((len(kinds) + 1) // 2)]
    assert "Reference" not in brat.standoff(found).annotation
    assert table.row(linked)["links"] == [a.title for a in kinds]
    assert table.row(found)["links"] == [None] * len(kinds)
