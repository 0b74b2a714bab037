"""`moreie reproduce` on example posts with a tiny encoder: what is missing, what is made, what a kill leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from moreie.cli.app import app
from moreie.datasets import read_posts
from moreie.errors import DataFormatError, RecipeError
from moreie.evaluation.analysis.figures import read_analysis
from moreie.evaluation.recompute import recompute
from moreie.evaluation.summary import read_summary
from moreie.models.expert import read_config
from moreie.reproduction.evidence import ensure_evidence
from moreie.reproduction.recipes import with_k
from moreie.reproduction.run import Plan, prepare, reproduce
from moreie.retrieval.cache import load_evidence
from moreie.training.recipe import read_recipe

_SAMPLE = "twitter2017-sample.txt"
SPLITS = {"train": "train", "validation": "valid", "test": "test"}


@pytest.fixture
def plan(tmp_path: Path, tiny_encoder_folder: Path, data: Path, small_corpus: Path) -> Plan:
    """A data folder with the example posts as every split, and a recipe for it."""
    folder = tmp_path / "experiments" / "data" / "twitter2017"
    folder.mkdir(parents=True)
    posts = (data / _SAMPLE).read_text()
    ids = sorted({line.removeprefix("IMGID:") for line in posts.splitlines() if line.startswith("IMGID:")})
    (folder / "captions.jsonl").write_text(
        "".join(json.dumps({"image_id": id, "caption": "a man in Paris"}) + "\n" for id in ids)
    )
    for name in SPLITS.values():
        (folder / f"{name}.txt").write_text(posts)
    content = {
        "task": "ner",
        "output": "../../runs/twitter2017-tiny",
        "encoder": str(tiny_encoder_folder),
        "adapter": {"rank": 4, "alpha": 8},
        "data": {split: _files(name) for split, name in SPLITS.items()},
        "retrieval": {
            "corpus": "../data/wiki",
            "evidence": {
                "text": {"mode": "sentences", "k": 3, "keep_copies": False},
                "image": {"mode": "captions", "k": 3, "keep_copies": False},
            },
        },
        "training": {"epochs": 2, "batch_size": 4, "learning_rate": 5e-3, "precision": "fp32"},
        "experts": [
            {"name": "baseline"},
            {"name": "text", "view": {"retriever": "text", "k": 3, "budget": 64, "form": "sentence"}},
            {"name": "image", "view": {"retriever": "image", "k": 3, "budget": 64, "form": "lead"}},
        ],
        "gate": {"folds": 2},
        "seeds": [1, 2],
    }
    recipe = tmp_path / "experiments" / "recipes" / "twitter2017-tiny.yaml"
    recipe.parent.mkdir()
    recipe.write_text(yaml.safe_dump(content))
    return Plan(
        dataset="twitter2017",
        recipe=recipe,
        data=tmp_path / "experiments" / "data",
        results=tmp_path / "experiments" / "results",
        page=tmp_path / "docs" / "results.md",
        command="moreie reproduce twitter2017",
        corpus=str(small_corpus),
        any_size=True,
    )


def _files(name: str) -> dict[str, Any]:
    return {
        "posts": f"../data/twitter2017/{name}.txt",
        "captions": "../data/twitter2017/captions.jsonl",
        "evidence": {kind: f"../data/evidence/{name}-{kind}.jsonl.zst" for kind in ("text", "image")},
    }


def _command(plan: Plan) -> list[str]:
    return [
        *("reproduce", plan.dataset, "--recipe", str(plan.recipe), "--data", str(plan.data)),
        *("--corpus", str(plan.corpus), "--results", str(plan.results), "--page", str(plan.page), "--any-size"),
    ]


def _left_behind(plan: Plan) -> dict[Path, int]:
    """Files that a later attempt must not make again, and when each was written."""
    root = plan.data.parent.parent
    patterns = ("experiments/data/evidence/*.zst", "runs/*/seed-*/*.zst", "runs/*/seed-*/*/validation.json")
    return {path: path.stat().st_mtime_ns for pattern in patterns for path in root.glob(pattern)}


@pytest.mark.slow
def test_killed_at_every_stage_it_goes_on_and_does_nothing_twice(plan: Plan) -> None:
    command = [sys.executable, "-m", "moreie", *_command(plan)]
    stages = (
        "experiments/data/evidence/train-text.jsonl.zst",
        "runs/twitter2017-tiny/seed-1/baseline/checkpoints/checkpoint-*/trainer_state.json",
        "runs/twitter2017-tiny/seed-2/image/validation.json",
        "runs/twitter2017-tiny/seed-1/validation-*.jsonl.zst",
    )
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads cost a tiny model more than they give
    root = plan.data.parent.parent
    kept: dict[Path, int] = {}
    for stage in stages:
        process = subprocess.Popen(command, env=alone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not any(root.glob(stage)) and process.poll() is None:
            assert time.monotonic() < deadline, stage
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        now = _left_behind(plan)
        assert {path: now.get(path) for path in kept} == kept, stage
        kept = now
    done = subprocess.run(command, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    now = _left_behind(plan)
    assert {path: now[path] for path in kept} == kept
    again = subprocess.run(command, env=alone, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert _left_behind(plan) == now
    assert again.stderr.count("kept") == 8, "six evidence files, two splits"
    rows = read_summary(plan.results)
    assert {row.split for row in rows} == {"validation", "test"}
    assert {row.seeds for row in rows} == {(1, 2)}
    assert rows[0].command.startswith("moreie reproduce twitter2017 --recipe")
    assert recompute(plan.results)[1] == []
    assert plan.page.exists()


def test_evidence_results_and_page_are_made_once(plan: Plan) -> None:
    said: list[str] = []
    written = reproduce([_one_seed(plan)], said.append)
    assert plan.page in written
    assert sum(": evidence of " in line for line in said) == 6
    rows = read_summary(plan.results)
    assert {row.variant: row.k for row in rows if row.split == "test"}["mixture"] == 3
    assert len({(row.split, row.configuration) for row in rows}) == 2, "one a split"
    analyses = [read_analysis(plan.results, plan.recipe.stem, split) for split in ("validation", "test")]
    assert all(a is not None and a.costs is not None and a.costs.rows[-1].variant == "mixture" for a in analyses)
    page = plan.page.parent / "results" / "twitter2017-tiny.md"
    assert page.read_text().count("### What lies behind it") == 2
    assert sum(line.endswith("-analysis.json: analysed") for line in said) == 2
    before = _left_behind(plan)
    said.clear()
    reproduce([_one_seed(plan)], said.append)
    assert _left_behind(plan) == before
    assert sum("results of this configuration are there, kept" in line for line in said) == 2
    assert not [line for line in said if "analysed" in line], "made once, too"
    content = yaml.safe_load(plan.recipe.read_text())
    plan.recipe.write_text(yaml.safe_dump({**content, "gate": {"folds": 3}}))
    reproduce([_one_seed(plan)], said.append)
    after = _left_behind(plan)
    assert {path: after[path] for path in before} == before, "another gate leaves experts and evidence as they are"
    assert len(after) == len(before) + 2, "predictions of the new gate on both splits"
    content["experts"][1]["view"]["budget"] = 48
    plan.recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=r"text holds an expert of another .*\(expert.view.budget changed"):
        reproduce([_one_seed(plan)], said.append)


def test_a_seed_is_added_to_results_whose_experts_are_gone(plan: Plan) -> None:
    reproduce([_one_seed(plan)], [].append)
    runs = plan.data.parent.parent / "runs" / "twitter2017-tiny"
    shutil.rmtree(runs)
    said: list[str] = []
    reproduce([plan], said.append)
    assert {path.name for path in runs.iterdir()} == {"seed-2"}, "nothing of the first is trained again"
    assert sum(line.endswith("-seed-1.jsonl.zst: predicted before, kept") for line in said) == 2
    assert {row.seeds for row in read_summary(plan.results)} == {(1, 2)}
    analysis = read_analysis(plan.results, plan.recipe.stem, "validation")
    assert analysis is not None
    assert analysis.costs is not None, "of the seed that is at hand"
    assert recompute(plan.results)[1] == []


def _one_seed(plan: Plan) -> Plan:
    return replace(plan, seeds=1)


def test_what_is_missing_is_listed_with_its_place(plan: Plan) -> None:
    (plan.data / "twitter2017" / "train.txt").unlink()
    (plan.data / "twitter2017" / "captions.jsonl").unlink()
    (plan.data / "twitter2017" / "test.txt").unlink()
    done = CliRunner().invoke(app, _command(plan))
    assert done.exit_code == 2
    said = done.stderr
    for part in (
        "3 of its files are not there",
        "twitter2017/train.txt",
        "3,373 published",
        "captions.jsonl",
        "Lu et al",
    ):
        assert part in said
    assert "Traceback" not in done.output


def test_sizes_are_those_published_unless_told_otherwise(plan: Plan) -> None:
    command = [part for part in _command(plan) if part != "--any-size"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "3,373 are published" in done.stderr
    with (plan.data / "twitter2017" / "train.txt").open("a") as posts:
        posts.write("no tag\n")
    with pytest.raises(DataFormatError, match=r"train\.txt:\d+"):
        reproduce([plan], lambda line: None)


def test_without_a_test_split_the_rest_is_done(plan: Plan) -> None:
    (plan.data / "twitter2017" / "test.txt").unlink()
    assert prepare(plan).data.test is None


def test_texts_of_posts_are_attached_where_the_recipe_says_so(plan: Plan, data: Path) -> None:
    content = yaml.safe_load(plan.recipe.read_text())
    texts = plan.data / "pgim" / "train.txt"
    content["retrieval"] = {"attached": {"knowledge": {"texts": dict.fromkeys(SPLITS, "../data/pgim/train.txt")}}}
    for split, name in SPLITS.items():
        content["data"][split]["evidence"] = {"knowledge": f"../data/evidence/{name}-knowledge.jsonl.zst"}
    content["experts"] = [{"name": "baseline"}, {"name": "told", "view": {"retriever": "knowledge", "k": 1}}]
    plan.recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=r"pgim/train\.txt +the knowledge of its posts"):
        prepare(plan)
    texts.parent.mkdir()
    texts.write_bytes((data / "pgim-sample.txt").read_bytes())
    said: list[str] = []
    for kept in (0, 3):
        said.clear()
        ensure_evidence(prepare(plan), None, (), said.append)
        assert sum("made before, kept" in line for line in said) == kept
    header, rows = load_evidence(
        plan.data / "evidence" / "valid-knowledge.jsonl.zst", read_posts(plan.data / "twitter2017" / "valid.txt")
    )
    assert header.source is not None
    assert header.source.file == "train.txt"
    assert sum(bool(row) for row in rows) == 3
    texts.write_bytes(texts.read_bytes().replace(b"Tennessee", b"Kentucky"))
    ensure_evidence(prepare(plan), None, (), said.append)
    assert said[-1].endswith("texts of 3 posts, 7 have none"), "made anew of other texts"


def test_without_a_corpus_evidence_cannot_be_made(plan: Plan) -> None:
    with pytest.raises(RecipeError, match=r"wiki is not there.*--articles"):
        reproduce([replace(plan, corpus=None)], lambda line: None)


def test_another_k_is_another_run_with_its_own_evidence_where_more_is_asked(plan: Plan) -> None:
    recipe = read_recipe(plan.recipe)
    fewer, more = with_k(recipe, 1), with_k(recipe, 5)
    assert [e.view.k for e in fewer.experts if e.view.retriever] == [1, 1]
    assert fewer.data == recipe.data
    assert fewer.output.name == "twitter2017-tiny-k1"
    assert more.data.train.evidence["text"].name == "train-text-k5.jsonl.zst"
    assert more.retrieval is not None
    assert more.retrieval.evidence["text"].k == 5


def test_runs_with_another_k_share_what_does_not_depend_on_it(plan: Plan) -> None:
    said: list[str] = []
    plans = [replace(_one_seed(plan), k=k) for k in (1, 2)]
    reproduce(plans, said.append)
    copied = [line for line in said if line.endswith(", copied")]
    assert len(copied) == 1, "the baseline alone reads no evidence"
    runs = plan.data.parent.parent / "runs"
    folders = [runs / f"twitter2017-tiny-k{k}" / "seed-1" for k in (1, 2)]
    baselines = [(folder / "baseline" / "head.safetensors").read_bytes() for folder in folders]
    assert baselines[0] == baselines[1]
    assert [read_config(folder / "text").view.k for folder in folders] == [1, 2]
    assert sum(line.endswith("validation: recorded in " + str(plan.results)) for line in said) == 2
    plot = plan.page.parent / "results" / "twitter2017-tiny-validation-k.svg"
    assert plot.exists()
    assert plot.name in plan.page.read_text()


def test_unknown_data_sets_and_foreign_recipes_are_refused(plan: Plan) -> None:
    for command, said in (
        (["reproduce", "conll"], "known are twitter2015, twitter2017"),
        (["reproduce", "mnre", "--recipe", str(plan.recipe)], "is named mnre-"),
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2
        assert said in done.stderr


def test_a_gate_that_reads_pictures_needs_their_folder(plan: Plan) -> None:
    content = yaml.safe_load(plan.recipe.read_text())
    content["gate"] = {"inputs": ["image"], "image_encoder": "some/encoder"}
    for split in SPLITS:
        content["data"][split]["images"] = "../data/twitter2017/pictures"
    plan.recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=r"twitter2017/pictures +folder of the posts' pictures"):
        prepare(plan)
    (plan.data / "twitter2017" / "pictures").mkdir()
    assert prepare(plan).gate.reads_pictures
