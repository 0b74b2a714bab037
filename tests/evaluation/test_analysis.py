"""What lies behind a score: categories and buckets count every answer once, costs are of real passes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from moreie.cli.app import app
from moreie.datasets import read_posts
from moreie.encoders.text import TextEncoder
from moreie.errors import DataFormatError
from moreie.evaluation.analysis.breakdown import bucket_counts, variants
from moreie.evaluation.analysis.breakdown import decided as decided_by
from moreie.evaluation.analysis.cost import costs
from moreie.evaluation.analysis.dimensions import dimensions
from moreie.evaluation.analysis.errors import (
    NOTHING,
    Category,
    category_counts,
    flip_counts,
    judge,
    judge_mentions,
    judge_relation,
)
from moreie.evaluation.analysis.figures import predictions_digest, read_analysis
from moreie.evaluation.analysis.run import ensure_analysis
from moreie.evaluation.analysis.scored import folded, known, scored_cases
from moreie.evaluation.ner import mention_counts
from moreie.evaluation.predictions import MIXTURE, Evaluation, load_predictions, save_predictions
from moreie.evaluation.report import write_report
from moreie.evaluation.summary import Origin, results, write_summary
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.models.expert import ExpertSpec
from moreie.models.gate import Gate, GateSpec
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert
from moreie.models.tagset import Span
from moreie.retrieval.cache import EvidenceHeader, save_evidence
from moreie.retrieval.text import TextRetriever
from moreie.schema import NO_RELATION, Evidence, Passage
from moreie.training.data import cases, load_split
from moreie.training.recipe import Recipe, load_recipe

TYPES = st.sampled_from(["PER", "LOC", "ORG"])


@st.composite
def spans(draw: st.DrawFn) -> list[Span]:
    """Spans that do not overlap, as decoding gives them."""
    found, word = [], 0
    for _ in range(draw(st.integers(0, 5))):
        first = word + draw(st.integers(0, 2))
        word = first + draw(st.integers(1, 3))
        found.append((draw(TYPES), first, word - 1))
    return found


SPLITS = st.lists(st.tuples(spans(), spans(), spans()), min_size=1, max_size=5)


@given(SPLITS)
def test_categories_add_up_to_gold_and_to_the_answers(rows: list[tuple[list[Span], list[Span], list[Span]]]) -> None:
    gold, guess = [row[0] for row in rows], [row[1] for row in rows]
    counts = category_counts(judge("ner", gold, guess))
    right, guessed, total = mention_counts(gold, guess).sum(0).tolist()
    assert sum(counts.values()) == total + counts[Category.spurious]
    assert counts[Category.right] == right
    assert sum(counts.values()) - counts[Category.missed] == guessed


@given(SPLITS)
def test_flips_add_up_to_the_categories_on_either_side(rows: list[tuple[list[Span], list[Span], list[Span]]]) -> None:
    gold, first, second = ([row[i] for row in rows] for i in range(3))
    was, now = judge("ner", gold, first), judge("ner", gold, second)
    flips = flip_counts(was, now)
    for category in Category:
        assert sum(c for (a, _), c in flips.items() if a == category.value) == category_counts(was)[category]
        assert sum(c for (_, b), c in flips.items() if b == category.value) == category_counts(now)[category]
    assert (NOTHING, NOTHING) not in flips
    assert all(a == b for a, b in flip_counts(was, was))


def test_each_category_by_an_example() -> None:
    gold = [("PER", 0, 1), ("LOC", 3, 3), ("ORG", 5, 7), ("PER", 9, 9), ("LOC", 11, 11)]
    guess = [("PER", 0, 1), ("ORG", 3, 3), ("ORG", 5, 6), ("LOC", 9, 10), ("LOC", 13, 13)]
    judged = judge_mentions(gold, guess)
    assert [c.value for _, c in judged.gold] == [
        "right",
        "type wrong",
        "boundary wrong",
        "type and boundary wrong",
        "missed",
    ]
    assert judged.spurious == (("LOC", 13, 13),)
    both = judge_mentions([("PER", 0, 2)], [("PER", 0, 0), ("PER", 1, 2)])
    assert (both.gold[0][1], both.spurious) == (Category.boundary_wrong, (("PER", 0, 0),)), "most words in common"
    answers = [(NO_RELATION, NO_RELATION), (NO_RELATION, "a"), ("a", NO_RELATION), ("a", "b"), ("a", "a")]
    assert [sum(category_counts([judge_relation(*pair)]).values()) for pair in answers] == [0, 1, 1, 1, 1]
    assert judge_relation("a", "b").gold == (("a", Category.type_wrong),)


@dataclass(frozen=True)
class Run:
    """A recipe that was never trained, and recorded predictions of its validation split."""

    recipe: Path
    results: Path
    evaluations: list[Evaluation]


Make = Callable[[str], Run]


@pytest.fixture
def make(tmp_path: Path, tiny_encoder_folder: Path, data: Path, small_corpus: Path) -> Make:
    def made(task: str) -> Run:
        posts = data / ("twitter2017-sample.txt" if task == "ner" else "mnre-sample.txt")
        read, corpus = read_posts(posts), KnowledgeCorpus.open(small_corpus)
        header = EvidenceHeader(retriever="text", query="post", k=3, corpus=corpus.version, posts=len(read))
        found = TextRetriever(corpus, 3).retrieve(read)
        save_evidence(tmp_path / "text.jsonl.zst", header, read, [r.evidence for r in found])
        files = {"posts": str(posts), "evidence": {"text": "text.jsonl.zst"}}
        content = {
            "task": task,
            "output": "runs",
            "encoder": str(tiny_encoder_folder),
            "data": {"train": files, "validation": files},
            "experts": [
                {"name": "baseline"},
                {"name": "text", "view": {"retriever": "text", "form": "sentence", "budget": 200}},
            ],
            "seeds": [1, 2],
        }
        recipe = tmp_path / f"{task}-tiny.yaml"
        recipe.write_text(yaml.safe_dump(content))
        evaluations = [_guessed(load_recipe(recipe), seed) for seed in (1, 2)]
        names = tuple(f"{recipe.stem}/validation-seed-{e.seed}.jsonl.zst" for e in evaluations)
        for evaluation, name in zip(evaluations, names, strict=True):
            save_predictions(evaluation, tmp_path / "results" / name)
        origin = Origin(task, "validation", task, "tiny", {}, "moreie …", None, names)
        write_summary(tmp_path / "results", results(origin, evaluations))
        kept = [
            load_predictions(tmp_path / "results" / n, task, e.seed) for n, e in zip(names, evaluations, strict=True)
        ]
        return Run(recipe, tmp_path / "results", kept)

    return made


def _guessed(recipe: Recipe, seed: int) -> Evaluation:
    """Gold answers of a split, some lost, some with another type, some added."""
    chance = random.Random(seed)
    task_cases, _, gold = cases(recipe.task, load_split(recipe.data.validation))

    def guess(n: int) -> object:
        if recipe.task == "re":
            return gold[n] if chance.random() < 0.6 else chance.choice(gold)
        kept = [(t if chance.random() < 0.8 else "PER", a, b) for t, a, b in gold[n] if chance.random() < 0.7]
        return kept or [("LOC", 0, 0)]

    predictions = {v: [guess(n) for n in range(len(gold))] for v in ("baseline", "text", "text, no evidence", MIXTURE)}
    weights = torch.rand(len(gold), 1, generator=torch.Generator().manual_seed(seed))
    confidences = [[0.5] * (len(p) if recipe.task == "ner" else 1) for p in predictions[MIXTURE]]
    ids = [case.id if recipe.task == "ner" else case[0].id for case in task_cases]
    gate = torch.cat([weights, 1 - weights], dim=1)
    return Evaluation(recipe.task, seed, ids, gold, predictions, ("baseline", "text"), gate, confidences)


def _items(answers: list[Any]) -> list[Any]:
    return [[a for a in [x] if a != NO_RELATION] if isinstance(x, str) else x for x in answers]


@pytest.mark.parametrize("task", ["ner", "re"])
def test_every_item_is_in_one_bucket_of_each_dimension(make: Make, task: str) -> None:
    run = make(task)
    recipe, evaluation = load_recipe(run.recipe), run.evaluations[0]
    scored = scored_cases(recipe, "validation", evaluation.ids, evaluation.gold)
    found = dimensions(evaluation, scored, known(recipe))
    assert len(found) >= 6
    for dimension in found:
        for variant in variants(evaluation):
            counts = bucket_counts(_items(evaluation.gold), _items(evaluation.predictions[variant]), dimension)
            assert set(counts) <= set(dimension.buckets), dimension.name
            assert np.sum(list(counts.values()), axis=0).tolist() == evaluation.counts(variant).sum(0).tolist()


def test_names_are_sought_in_training_posts_and_evidence(make: Make) -> None:
    run = make("ner")
    recipe, evaluation = load_recipe(run.recipe), run.evaluations[0]
    scored = scored_cases(recipe, "validation", evaluation.ids, evaluation.gold)
    by_name = {d.name: d for d in dimensions(evaluation, scored, known(recipe))}
    seen, found = by_name["name in the training posts"], by_name["name in the text evidence"]
    n, (type, first, last) = next((n, gold[0]) for n, gold in enumerate(evaluation.gold) if gold)
    assert seen.place(n, (type, first, last)) == "seen with this type"
    assert seen.place(n, ("NEW", first, last)) == "seen with another type"
    assert folded("  Lady-Gaga’s “ÉTÉ”") == "lady gaga s été"
    n, (type, first, last) = next((n, g) for n, gold in enumerate(evaluation.gold) for g in gold if g[1] == g[2])
    name = scored[n].surface(first, last)
    for title, text, expected in (
        (f"{name}son", f"The {name}s", "absent"),  # a longer word is not the name
        (f"{name}son", f"({name.upper()})", "in the text only"),
        (f"Mr. {name}", "", "in a title"),
    ):
        held = Evidence(Passage("1", "a", title, text, True), "text", 1, 1.0)
        again = [replace(case, evidence={"text": (held,)}) for case in scored]
        (own,) = (d for d in dimensions(evaluation, again, known(recipe)) if d.name == found.name)
        assert own.place(n, (type, first, last)) == expected
    for n, case in enumerate(scored):
        for item in case.gold:
            name = f" {case.surface(*item[1:])} "
            passages = [e.passage for e in case.evidence["text"]]
            in_title = any(name in f" {folded(p.title)} " for p in passages)
            in_text = any(name in f" {folded(p.text)} " for p in passages)
            expected = "in a title" if in_title else "in the text only" if in_text else "absent"
            assert found.place(n, item) == expected
    assert {found.place(n, item) for n, case in enumerate(scored) for item in case.gold} >= {"absent"}


def test_windows_of_long_posts_are_found_again(make: Make) -> None:
    run = make("ner")
    recipe, evaluation = load_recipe(run.recipe), run.evaluations[0]
    post = load_split(recipe.data.validation).posts[0]
    half = len(post.words) // 2
    spans = [(m.type, m.first, m.last) for m in post.mentions or ()]
    left = [s for s in spans if s[2] < half]
    right = [(t, a - half, b - half) for t, a, b in spans if a >= half]
    ids, gold = [f"{post.id}#0", f"{post.id}#{half}", *evaluation.ids[1:]], [left, right, *evaluation.gold[1:]]
    first, second, *_ = scored_cases(recipe, "validation", ids, gold)
    assert [w.text for s in (first, second) for w in s.post.words] == [w.text for w in post.words]
    assert (len(first.post.words), second.evidence) == (half, first.evidence)
    for wrong in ([*ids[:-1], "no such post"], [*ids[:-1], f"{post.id}#x"]):
        with pytest.raises(DataFormatError, match="not the posts"):
            scored_cases(recipe, "validation", wrong, gold)
    with pytest.raises(DataFormatError, match="not the posts"):
        scored_cases(recipe, "validation", evaluation.ids, [[("PER", 0, 0)] for _ in evaluation.ids])


def test_what_an_expert_decides() -> None:
    gold = [[("PER", 0, 0), ("LOC", 2, 2)], [("ORG", 1, 1)], [("PER", 0, 0)]]
    said = {
        "baseline": [[("PER", 0, 0)], [], [("PER", 0, 0)]],
        "image": [[("PER", 0, 0), ("LOC", 2, 2)], [("ORG", 1, 1)], []],
        "text": [[], [("ORG", 1, 1)], []],
        "caption": [[], [], []],
        MIXTURE: [[("LOC", 2, 2)], [], []],
    }
    names = ("baseline", "image", "text", "caption")
    one = Evaluation("ner", 1, ["a", "b", "c"], gold, said, names, torch.ones(3, 4) / 4, [])
    image, text, _ = decided_by([one])
    assert (image.mended, image.mended_cases, image.spoilt, image.spoilt_cases) == (2, 2, 1, 1)
    assert (image.alone, image.kept) == (1, 1)
    assert (text.mended, text.spoilt, text.alone) == (1, 2, 0)


@pytest.mark.parametrize("task", ["ner", "re"])
def test_the_command_writes_figures_without_texts_and_the_page_shows_them(
    make: Make, task: str, tmp_path: Path
) -> None:
    run = make(task)
    command = ["analyse", str(run.recipe), "--results", str(run.results), "--examples", str(tmp_path / "errors.html")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "no costs" in done.stderr
    analysis = read_analysis(run.results, run.recipe.stem, "validation")
    assert analysis is not None
    assert analysis.made_from == predictions_digest(run.evaluations)
    counts = analysis.errors[MIXTURE]
    gold = run.evaluations[0].counts(MIXTURE)[:, 2].sum()
    assert sum(counts.values()) - counts["spurious"] == gold
    assert all(sum(b.support for b in own.buckets) == pytest.approx(gold, abs=0.2) for own in analysis.breakdowns)
    content = (run.results / run.recipe.stem / "validation-analysis.json").read_text()
    posts = load_split(load_recipe(run.recipe).data.validation).posts
    assert not [s for p in posts for m in p.mentions or () if len(s := p.surface(m)) > 4 and s in content]
    overview, page = tmp_path / "results.md", tmp_path / "results" / f"{run.recipe.stem}.md"
    write_report(run.results, overview)
    shown = [b.name for b in analysis.breakdowns if len(b.buckets) > 1]
    assert shown
    assert all(f"Recall / F1 by {name}." in page.read_text() for name in shown)
    assert "### What lies behind it" in page.read_text()
    assert ensure_analysis(run.results, run.recipe.stem, load_recipe(run.recipe), "validation") is None, "is there"
    path = run.results / run.recipe.stem / "validation-seed-1.jsonl.zst"
    changed = run.evaluations[0]
    changed.predictions["text"][0] = [] if task == "ner" else "/another/relation"
    save_predictions(changed, path)
    write_report(run.results, overview)
    assert "### What lies behind it" not in page.read_text(), "an analysis of other predictions is left out"
    assert ensure_analysis(run.results, run.recipe.stem, load_recipe(run.recipe), "validation") is not None
    write_report(run.results, overview)
    assert "### What lies behind it" in page.read_text()


def test_examples_are_escaped(make: Make, tmp_path: Path) -> None:
    run = make("ner")
    content = yaml.safe_load(run.recipe.read_text())
    posts = Path(content["data"]["train"]["posts"]).read_text().splitlines()
    first = next(n for n, line in enumerate(posts) if line.endswith("\tO"))
    posts[first] = "<script>alert(1)</script>\tO"
    hostile = tmp_path / "hostile" / Path(content["data"]["train"]["posts"]).name  # ids have the file's name in them
    hostile.parent.mkdir()
    hostile.write_text("\n".join(posts) + "\n")
    files = {"posts": str(hostile), "evidence": {"text": "none.jsonl.zst"}}
    run.recipe.write_text(yaml.safe_dump({**content, "data": {"train": files, "validation": files}}))
    page = tmp_path / "errors.html"
    command = ["analyse", str(run.recipe), "--results", str(run.results), "--examples", str(page)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "<script>" not in text
    assert "<mark>" in text
    assert {c for c in ("missed", "spurious", "right") if f"<h2>{c}</h2>" in text} == {"missed", "spurious", "right"}
    analysis = read_analysis(run.results, run.recipe.stem, "validation")
    assert analysis is not None
    assert not [b.name for b in analysis.breakdowns if "evidence" in b.name], "its file is not there"


def test_costs_are_those_of_the_real_forward_pass(make: Make) -> None:
    run = make("ner")
    recipe = load_recipe(run.recipe).model_copy(update={"seeds": (1,)})
    folder = recipe.output / "seed-1"
    experts = []
    for own in recipe.experts:
        encoder = TextEncoder.from_pretrained(recipe.encoder)
        spec = ExpertSpec(task="ner", name=own.name, labels=("LOC", "PER"), view=own.view, encoder=recipe.encoder)
        experts.append(NerExpert(spec, encoder))
        experts[-1].save(folder / own.name)
    sizes = (encoder.hidden_size, 2)
    gate = Gate(GateSpec(experts=("baseline", "text"), inputs=("post", "entropy"), sizes=sizes))
    Mixture(experts, gate).save_spec(folder, ("baseline", "text"), {})
    measured = costs(recipe, "validation")
    rows = {row.variant: row for row in measured.rows}
    assert list(rows) == ["baseline", "text", "gate", "mixture"]
    split = load_split(recipe.data.validation)
    inputs = experts[0].assemble(split.posts, split.rows(None))
    layers, width, inner = 2, 32, 64

    def operations(s: int, words: int) -> float:
        def layer(asked: int) -> float:  # keys and values of all tokens; queries, attention and the rest of those asked
            return 2 * 2 * s * width**2 + asked * (2 * 2 * width**2 + 2 * 2 * width * inner + 2 * 2 * s * width)

        return (layers - 1) * layer(s) + layer(words) + 2 * words * width * len(experts[0].tagset)

    expected = np.mean([operations(len(x.input_ids), len(x.anchors)) for x in inputs]) / 1e9
    assert rows["baseline"].gflops == pytest.approx(expected, rel=0.01)
    assert rows["baseline"].tokens == pytest.approx(np.mean([len(x.input_ids) for x in inputs]), abs=0.1)
    assert rows["text"].tokens > rows["baseline"].tokens
    assert rows["text"].gflops > rows["baseline"].gflops
    for field in ("gflops", "seconds_per_100", "tokens"):
        parts = [getattr(rows[v], field) for v in ("baseline", "text", "gate")]
        assert getattr(rows["mixture"], field) == pytest.approx(sum(parts), abs=0.01)
    assert measured.cases == len(split.posts)
    assert all(row.peak_mib > 1 and row.seconds_per_100 > 0 for row in measured.rows)


def test_a_damaged_analysis_is_named(make: Make) -> None:
    run = make("ner")
    path = run.results / run.recipe.stem / "validation-analysis.json"
    path.write_text('{"recipe": "x"}')
    with pytest.raises(DataFormatError, match=r"validation-analysis\.json"):
        write_report(run.results, run.results / "page.md")
