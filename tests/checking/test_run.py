"""Every kind of problem is found in files that have it, and none in files that have not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from moreie.checking.findings import Report
from moreie.checking.run import check_files, check_recipe
from moreie.cli.app import app
from moreie.datasets import post_from_text, read_posts, write_jsonl
from moreie.encoders.text import TextEncoder
from moreie.errors import DataFormatError, RecipeError
from moreie.models.assembly import View
from moreie.models.crf_kernels import load
from moreie.models.expert import ExpertSpec
from moreie.models.ner import NerExpert
from moreie.models.windows import POST_LIMIT
from moreie.project.survey import survey
from moreie.project.write import Plan, write_project
from moreie.reproduction.evidence import ensure_evidence
from moreie.training.recipe import read_recipe

runner = CliRunner()


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_encoder_folder)


def written(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows))
    return path


def post(text: str, *mentions: tuple[str, str], **more: Any) -> dict[str, Any]:
    found = [{"start": (i := text.index(name)), "end": i + len(name), "type": type} for name, type in mentions]
    return {"text": text, "mentions": found, **more}


def kinds(report: Report, level: str | None = None) -> set[str]:
    return {f.kind for f in report.findings if level in (None, f.level)}


def test_good_files_have_no_errors(data: Path, encoder: TextEncoder) -> None:
    samples = ["twitter2017-sample.txt", "mnre-sample.txt", "snap-sample.txt", "wikidiverse-sample.json"]
    report = check_files([data / name for name in samples], encoder=encoder)
    assert not report.failed
    assert [len(f.posts) for f in report.files] == [10, 12, 4, 5]


def test_lines_that_cannot_be_read_are_named_and_the_rest_is_checked(tmp_path: Path) -> None:
    path = written(
        tmp_path / "posts.jsonl",
        {"id": "a", "text": "Obama in Berlin", "mentions": [{"start": 0, "end": 3, "type": "PER"}]},
        {"id": "b", "text": "Obama in Rome", "mentions": [{"start": 1, "end": 5, "type": "PER"}]},
        {"id": "c", "text": "x y", "mentions": [], "relations": [{"head": 0, "tail": 1, "type": "near"}]},
        {"id": "d", "text": "fine", "mentions": []},
        {"id": "d", "text": "fine too", "mentions": []},
        "{broken",
        {"id": "e", "txt": "?"},
    )
    report = check_files([path])
    assert report.failed
    assert [p.id for p in report.files[0].posts] == ["d"]
    lines = [f for f in report.findings if f.kind == "unreadable-lines"]
    assert sum(f.count for f in lines) == 6
    misaligned = next(f for f in lines if "begin and end with a word" in f.said)
    assert misaligned.count == 2, "one finding a kind of problem"
    assert all(f"posts.jsonl:{n}" in "".join(misaligned.examples) for n in (1, 2))
    said = " ".join(e for f in lines for e in f.examples)
    for part in (
        "posts.jsonl:3: relation 0 → 1 does not join",
        "id 'd' already stands in line 4",
        "posts.jsonl:6",
        "posts.jsonl:7",
    ):
        assert part in said


def test_what_is_no_data_file_is_an_error_not_a_crash(tmp_path: Path, data: Path) -> None:
    report = check_files([data / "rel2id.json", written(tmp_path / "empty.jsonl")])
    assert report.failed
    assert kinds(report, "error") == {"unreadable-lines"}
    with pytest.raises(DataFormatError, match="nowhere"):
        check_files([tmp_path / "nowhere.jsonl"])


def test_annotation_is_looked_at(tmp_path: Path) -> None:
    path = written(
        tmp_path / "train.jsonl",
        post("New York Times writes", ("New York Times", "ORG"), ("New York", "LOC")),
        *[post(f"{i} Apple sells", ("Apple", "ORG")) for i in range(5)],
        *[post(f"{i} Apple pie") for i in range(3)],
        post("Paris is big", ("Paris", "Loc")),
        *[post(f"{i} Rome is big", ("Rome", "LOC")) for i in range(3)],
        *[post(f"{i} Rome wins", ("Rome", "ORG")) for i in range(2)],
        {"text": "nobody looked"},
        {"text": "   ", "mentions": []},
        post("Apple sells twice", ("Apple", "ORG")),
        post("Apple sells twice"),
    )
    report = check_files([path])
    found = {f.kind: f for f in report.findings}
    assert found["overlapping-mentions"].level == "error"
    assert "'New York Times' and 'New York'" in found["overlapping-mentions"].examples[0]
    assert found["empty-texts"].examples == ("train:17",)
    assert found["inconsistent-annotation"].examples[0].startswith("'Apple': annotated 6 times, not 4 times (train:7")
    assert found["several-types"].examples == ("'Rome': LOC 3, ORG 2",)
    assert found["label-variants"].examples == ("'LOC' (4), 'Loc' (1)",)
    assert found["rare-labels"].count == 2
    assert found["not-annotated"].count == 1
    assert found["contradicting-copies"].examples == ("train:18, train:19: 'Apple sells twice'",)


@pytest.mark.skipif(not load(), reason="torch operations give some answer")
def test_a_post_without_words_does_end_scoring(encoder: TextEncoder) -> None:
    expert = NerExpert(ExpertSpec(task="ner", name="x", labels=("PER",), view=View(None), encoder="x"), encoder)
    posts = [post_from_text(text, id=text) for text in ("Obama", " ")]
    with pytest.raises(ValueError, match="length"):
        expert.log_probabilities(expert.assemble(posts, [(), ()]))


def test_texts_of_two_files_are_compared(tmp_path: Path) -> None:
    train = written(tmp_path / "train.jsonl", post("Obama in Berlin", ("Obama", "PER")), post("other"))
    valid = written(tmp_path / "valid.jsonl", post("OBAMA  in berlin"), post("Rome", ("Rome", "LOC")))
    report = check_files([train, valid])
    (shared,) = [f for f in report.findings if f.kind == "shared-texts"]
    assert shared.count == 1
    assert "train:1 = valid:1" in shared.examples[0]
    assert {f.where.rpartition("/")[2] for f in report.findings if f.kind == "labels-of-one-file"} == {
        "train.jsonl",
        "valid.jsonl",
    }


def test_long_and_strange_texts_are_measured_by_the_encoder(tmp_path: Path, encoder: TextEncoder) -> None:
    rows = [
        post("Berlin " * 300 + "Angela Merkel", ("Angela Merkel", "PER")),
        *[post("Владимир Путин приехал", ("Владимир Путин", "PER"))] * 3,
    ]
    report = check_files([written(tmp_path / "posts.jsonl", *rows)], encoder=encoder)
    found = {f.kind: f for f in report.findings}
    assert found["long-posts"].count == 1
    assert found["unknown-words"].level == "warning"
    assert found["unknown-words"].count == 9
    assert "Cyrillic" in found["unknown-words"].said
    assert "xlm-roberta" in found["unknown-words"].remedy


def test_mentions_and_relations_that_cutting_loses_are_counted(tmp_path: Path, encoder: TextEncoder) -> None:
    ((pieces,),) = encoder.word_subtokens([["word"]])  # the vocabulary is learnt anew, not always the same way
    text = " ".join(["word"] * (POST_LIMIT // len(pieces) + 1))
    whole = {"start": 0, "end": len(text), "type": "MISC"}
    row = {"text": text, "mentions": [whole, {"start": 0, "end": 4, "type": "PER"}]}
    row["relations"] = [{"head": 0, "tail": 1, "type": "near"}]
    report = check_files([written(tmp_path / "posts.jsonl", row)], encoder=encoder)
    (long,) = [f for f in report.findings if f.kind == "long-posts"]
    assert "1 mentions across a cut and all 1 relations in them" in long.said


def test_pictures_are_opened(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    names = ["good", "cut", "huge", "lost"]
    rows = [post(f"a picture {name}", image=f"{name}.png") for name in names]
    report = check_files([written(tmp_path / "posts.jsonl", *rows, post("none"))])
    found = {f.kind: f for f in report.findings}
    assert found["missing-pictures"].count == 1
    assert "lost.png" in found["missing-pictures"].examples[0]
    assert found["unreadable-pictures"].count == 2
    assert "9000 × 9000" in " ".join(found["unreadable-pictures"].examples)
    assert found["no-picture"].count == 1


def test_pictures_by_id_are_missed(data: Path, tmp_path: Path) -> None:
    report = check_files([data / "twitter2017-sample.txt"], images=tmp_path)
    assert [f.count for f in report.findings if f.kind == "missing-pictures"] == [10]


def test_pairs_and_their_direction_are_counted(tmp_path: Path) -> None:
    def pair(head: int, tail: int, *types: str) -> dict[str, Any]:
        row = post("Obama visits Berlin", ("Obama", "PER"), ("Berlin", "LOC"))
        return {**row, "relations": [{"head": head, "tail": tail, "type": type} for type in types]}

    lopsided = [*[pair(0, 1, "None")] * 30, *[pair(1, 0, "visited_by")] * 10]
    found = {f.kind: f for f in check_files([written(tmp_path / "a.jsonl", *lopsided)]).findings}
    assert "0 of 10" in found["none-in-text-order"].said
    assert "swapped_none" in found["none-in-text-order"].remedy
    fair = [*lopsided, *[pair(1, 0, "None")] * 30]
    assert "none-in-text-order" not in kinds(check_files([written(tmp_path / "b.jsonl", *fair)]))
    all_related = written(tmp_path / "c.jsonl", pair(0, 1, "visits", "likes"))
    report = check_files([all_related])
    assert {"no-none", "two-relations"} <= kinds(report)


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, data: Path, small_corpus: Path, tiny_encoder_folder: Path
) -> Path:
    """A folder with recipes for entities and for relations, and the evidence of the first."""
    folder = tmp_path_factory.mktemp("checked")
    for sample, corpus in (("twitter2017-sample.txt", str(small_corpus)), ("mnre-sample.txt", None)):
        found = survey(data / sample, data / sample, data / sample)
        write_project(Plan(folder, found, corpus, str(tiny_encoder_folder)), force=True)
    ensure_evidence(read_recipe(folder / "ner.yaml"), str(small_corpus), (), lambda line: None)
    return folder


def test_a_recipe_is_checked_with_its_evidence_and_what_it_takes(project: Path) -> None:
    report = check_recipe(project / "ner.yaml")
    assert not report.failed, report.findings
    assert [c.expert for c in report.costs] == ["start", "baseline", "text"]
    _, baseline, text = report.costs
    words = sum(len(p.words) for p in report.files[0].posts)
    assert baseline.tokens > words
    assert baseline.tokens < text.tokens
    assert baseline.longest < text.longest <= 256
    assert all(c.seconds is not None and 0 < c.seconds < 60 for c in report.costs)
    assert {"shared-texts", "few-posts"} <= kinds(report), "all its splits are one small file"


def test_a_recipe_with_faults_says_all_of_them(project: Path, tmp_path: Path, data: Path) -> None:
    content = yaml.safe_load((project / "ner.yaml").read_text())
    posts = read_posts(data / "twitter2017-sample.txt")
    changed = [replace(p, mentions=tuple(replace(m, type="NEW") for m in p.mentions or ())) for p in posts]
    write_jsonl([replace(changed[0], id="other"), *changed[1:]], tmp_path / "valid.jsonl")
    kept = str(project / "evidence" / "ner-train-text.jsonl.zst")
    content["data"] = {
        "train": {"posts": str(data / "twitter2017-sample.txt"), "evidence": {"text": "nowhere.jsonl.zst"}},
        "validation": {"posts": "valid.jsonl", "evidence": {"text": kept}},
    }
    content["encoder"] = str(tmp_path / "no-encoder")
    path = tmp_path / "faulty.yaml"
    path.write_text(yaml.safe_dump(content))
    report = check_recipe(path)
    errors = {f.kind for f in report.findings if f.level == "error"}
    assert errors == {"missing-evidence", "misfit-evidence", "unknown-labels", "no-encoder"}
    assert not report.costs
    with pytest.raises(RecipeError, match="nowhere"):
        check_recipe(tmp_path / "nowhere.yaml")


def test_a_relation_recipe_is_measured_in_both_directions(project: Path) -> None:
    text = (project / "re.yaml").read_text()
    (project / "once.yaml").write_text(text.replace("swapped_none: true", "swapped_none: false"))
    both = check_recipe(project / "re.yaml", measure=False)
    once = check_recipe(project / "once.yaml", measure=False)
    assert not both.failed
    assert both.costs[0].seconds is None
    assert both.costs[0].tokens > 1.5 * once.costs[0].tokens


def test_the_command_tells_errors_by_its_exit_status(tmp_path: Path, data: Path, tiny_encoder_folder: Path) -> None:
    encoder = ["--encoder", str(tiny_encoder_folder)]
    bad = written(tmp_path / "posts.jsonl", post("fine [bold]"), "{broken")
    failed = runner.invoke(app, ["check", str(bad), *encoder])
    assert failed.exit_code == 1, failed.output
    assert "posts.jsonl:2" in failed.stdout
    assert "1 error," in failed.stdout
    done = runner.invoke(app, ["data", "check", str(data / "snap-sample.txt"), *encoder, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["failed"] is False
    assert said["files"][0]["posts"] == 4
    assert {f["level"] for f in said["findings"]} <= {"error", "warning", "note"}
    together = runner.invoke(app, ["check", str(bad), "recipe.yaml"])
    assert together.exit_code == 2
    assert "by itself" in together.stderr
