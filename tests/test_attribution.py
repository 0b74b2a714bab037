"""Leaving passages out of real mixtures, against running them on evidence without those passages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from moreie import Extractor
from moreie.cli.app import app
from moreie.datasets import post_from_text
from moreie.models.attribution import leave_one_out
from moreie.models.mixture import Mixture
from moreie.rendering.html import Shown, page
from moreie.rendering.terminal import render_influences
from moreie.schema import Attribution
from moreie.shipped import DEMO_POSTS

TEXT = "Stood in front of The Heart of the Andes at the Metropolitan Museum of Art. Frederic Edwin Church was 33!"
PICTURE = DEMO_POSTS.parent / "pictures/andes.jpg"


@pytest.fixture(scope="module")
def attribution(extractor: Extractor) -> Attribution:
    return extractor.attribute(TEXT, image=PICTURE)


def test_each_passage_is_left_out_exactly(extractor: Extractor) -> None:
    texts = [TEXT, "Kawhi Leonard leads the Toronto Raptors", "nothing was found here"]
    posts = [post_from_text(text, id=str(n), image=PICTURE if n == 0 else None) for n, text in enumerate(texts)]
    found = [extractor.extract(post) for post in posts]
    rows = {
        name: [[e for e in extraction.evidence if e.retriever == name][:3] for extraction in found]
        for name in ("text", "image")
    }
    rows["image"][1] = []
    rows["text"][2] = rows["text"][2][:1]
    mixture: Mixture = extractor.ner
    whole, pieces = leave_one_out(mixture, posts, rows)
    left_out = [variant for piece in pieces for variant in piece]
    for expected, own in zip(mixture(posts, rows).log_probabilities, whole, strict=True):
        torch.testing.assert_close(own, expected)
    assert len(left_out) == sum(len(row) for column in rows.values() for row in column) > 5
    for variant in left_out:
        n = variant.case
        less = {
            name: [[e for i, e in enumerate(column[n]) if (name, i) != (variant.retriever, variant.passage)]]
            for name, column in rows.items()
        }
        (expected,) = mixture([posts[n]], less).log_probabilities
        torch.testing.assert_close(variant.log_probabilities, expected, atol=1e-4, rtol=1e-4)


def test_influences_are_differences_of_confidence(extractor: Extractor, attribution: Attribution) -> None:
    extraction = attribution.extraction
    assert extraction == extractor.extract(TEXT, image=PICTURE)
    read = {i.evidence for i in attribution.influences if i.mention is not None}
    assert {extraction.evidence[i].retriever for i in read} == {"text", "image"}
    for m in range(len(extraction.mentions)):
        own = attribution.of_mention(m)
        assert {i.evidence for i in own} == read
        changes = [abs(i.change) for i in own]
        assert changes == sorted(changes, reverse=True)
        assert all(-1 <= extraction.mentions[m].confidence - i.change <= 1 + 1e-6 for i in own)
    assert any(abs(i.change) > 0.001 for i in attribution.influences), "evidence is read"
    for r in range(len(extraction.relations)):
        assert {i.evidence for i in attribution.of_relation(r)} == read
    assert json.loads(json.dumps(attribution.to_dict()))["influences"]
    assert replace(attribution, influences=()).of_mention(0) == []


def test_a_post_without_words_or_evidence_has_no_influences(extractor: Extractor) -> None:
    assert extractor.attribute("").influences == ()
    alone = Extractor(extractor.ner, extractor.relations, corpus=None, image_encoder=None)
    assert alone.attribute(TEXT).influences == ()


def test_influences_are_shown(extractor: Extractor, attribution: Attribution, tmp_path: Path) -> None:
    console = Console(width=120, record=True)
    console.print(render_influences(attribution))
    shown = console.export_text()
    strongest = attribution.of_mention(0)[0]
    assert f"{strongest.change:+.3f}" in shown
    assert attribution.extraction.evidence[strongest.evidence].passage.title in shown
    html = page([Shown(attribution.extraction, influences=attribution.influences)], extractor.corpus, title="t")
    moved = any(abs(i.change) >= 0.01 for i in attribution.influences)
    assert ('class="influences"' in html) == moved


def test_the_command_attributes_and_writes_other_tools_files(tmp_path: Path) -> None:
    command = ["extract", "--text", "Kawhi Leonard leads the Toronto Raptors", "--attribute", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert {i["mention"] for i in row["influences"]} >= set(range(len(row["mentions"])))
    files = {"--conll": "found.txt", "--brat": "brat", "--label-studio": "tasks.json"}
    options = [part for option, name in files.items() for part in (option, str(tmp_path / name))]
    result = CliRunner().invoke(app, ["extract", "--input", "tests/data/posts.jsonl", "--json", *options])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "found.txt").read_text().startswith("IMGID:")
    assert list((tmp_path / "brat").glob("*.ann"))
    assert json.loads((tmp_path / "tasks.json").read_text())
    missing = str(tmp_path / "no" / "such" / "found.txt")
    result = CliRunner().invoke(app, ["extract", "--text", "Oakland", "--conll", missing])
    assert result.exit_code == 2
    assert "cannot be written: there is no folder" in result.output
    assert not result.stdout.strip(), "said before anything is extracted"
