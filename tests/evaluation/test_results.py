"""Results on disk: every figure follows from the predictions, and the page from both."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moreie.cli.app import app
from moreie.errors import DataFormatError, MoreieError
from moreie.evaluation.predictions import FOR_F1, MIXTURE, Evaluation, Scaled, load_predictions, save_predictions
from moreie.evaluation.recompute import recompute
from moreie.evaluation.report import write_report
from moreie.evaluation.summary import Origin, read_summary, results, write_summary

COMMITTED = Path(__file__).parents[2] / "experiments" / "results"


def test_what_is_recorded_comes_out_again(folder: Path) -> None:
    rows, differences = recompute(folder)
    assert differences == []
    assert rows == read_summary(folder)
    assert CliRunner().invoke(app, ["recompute", str(folder)]).exit_code == 0


def test_what_is_decoded_otherwise_is_set_against_the_baseline_decoded_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (row,) = [r for r in read_summary(folder) if r.variant == MIXTURE and r.recipe.endswith("k1")]
    variants = [name for v in ("baseline", "text", "image", MIXTURE) for name in (v, f"{v}, {FOR_F1}")]
    origin = Origin("set", "test", "ner", "tiny", dict.fromkeys(variants, 1), "moreie …", None, row.predictions)

    def decoded(e: Evaluation, *pairs: tuple[str, str]) -> Evaluation:
        return replace(e, predictions=e.predictions | {f"{new}, {FOR_F1}": e.predictions[old] for new, old in pairs})

    seeds = [
        load_predictions(folder / name, "ner", seed) for name, seed in zip(row.predictions, row.seeds, strict=True)
    ]
    # By span the baseline says what the text expert says otherwise.
    alike = [decoded(e, ("baseline", "text"), (MIXTURE, MIXTURE)) for e in seeds]
    rows = {r.variant: r for r in results(origin, alike)}
    by_path, by_span = rows[MIXTURE], rows[f"{MIXTURE}, {FOR_F1}"]
    assert by_span.f1 == by_path.f1
    assert by_path.gain_interval is not None
    assert by_span.gain_interval is not None
    assert by_span.gain_interval[0] < by_path.gain_interval[0], "text is better than the baseline"
    assert by_span.flips != by_path.flips
    assert rows[f"baseline, {FOR_F1}"].gain_interval == rows["text"].gain_interval
    assert not caplog.records
    some = {r.variant for r in results(origin, [alike[0], *seeds[1:]])}
    assert not any(variant.endswith(FOR_F1) for variant in some)
    assert f"baseline, {FOR_F1}" in caplog.text


def test_changed_figures_are_found_one_by_one(folder: Path) -> None:
    content = json.loads((folder / "summary.json").read_text())
    content[1]["mean"] += 0.01
    content[3]["p_value_vs_baseline"] = 0.0001
    content[3]["per_type"]["PER"] = 99.0
    (folder / "summary.json").write_text(json.dumps(content))
    done = CliRunner().invoke(app, ["recompute", str(folder)])
    assert done.exit_code == 1
    assert [line.split(": ")[1].split()[0] for line in done.stdout.splitlines()] == [
        "mean",
        "per_type",
        "p_value_vs_baseline",
    ]
    assert CliRunner().invoke(app, ["recompute", str(folder), "--write"]).exit_code == 0
    assert recompute(folder)[1] == []


def test_a_changed_prediction_is_found(folder: Path) -> None:
    path = folder / "set-tiny-k1" / "test-seed-2.jsonl.zst"
    evaluation = load_predictions(path, "ner", 2)
    spans = next(row for row in evaluation.predictions["text"] if row)
    spans[0] = ("ORG" if spans[0][0] != "ORG" else "PER", *spans[0][1:])
    save_predictions(evaluation, path)
    differences = recompute(folder)[1]
    assert any(line.startswith("set-tiny-k1, test, text: f1 ") for line in differences)
    assert all(line.startswith("set-tiny-k1, test, text") for line in differences)


def test_missing_and_damaged_predictions_are_named(folder: Path) -> None:
    path = folder / "set-tiny-k3" / "test-seed-1.jsonl.zst"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no zstandard"):
        path.write_bytes(content)
        with pytest.raises(DataFormatError, match=r"set-tiny-k3/test-seed-1\.jsonl\.zst"):
            recompute(folder)
    path.unlink()
    with pytest.raises(DataFormatError, match=r"test-seed-1\.jsonl\.zst: no such file"):
        recompute(folder)
    done = CliRunner().invoke(app, ["recompute", str(folder)])
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    with pytest.raises(MoreieError, match="no results"):
        recompute(folder / "none")


@pytest.mark.slow
def test_the_committed_results_come_out_again() -> None:
    assert recompute(COMMITTED)[1] == []


def test_the_page_has_all_tables_and_plots_and_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    (folder / "published.json").write_text(
        json.dumps({"source": "A paper", "encoder": "large", "split": "test", "f1": {"set": {"baseline": 70.0}}})
    )
    page = tmp_path / "page" / "results.md"
    written = write_report(folder, page)
    text, own = page.read_text(), (page.parent / "results" / "set-tiny-k1.md").read_text()
    for name in ("f1", "gate", "reliability", "confusion"):
        assert f"(set-tiny-k1-test-{name}.svg)" in own
    assert "[All results](../results.md)" in own
    assert "(results/set-tiny-test-k.svg)" in text, "two k, so a plot over k"
    assert "(results/gains.svg)" in text
    assert "| published | large | test |  | 70.00 |" in text
    rows = {(row.recipe, row.variant): row for row in read_summary(folder)}
    for recipe in ("set-tiny-k1", "set-tiny-k3"):
        baseline, best, mixture = (rows[recipe, variant] for variant in ("baseline", "text", "mixture"))
        assert (
            f"| [{recipe}](results/{recipe}.md) | tiny | test | 3 | {baseline.mean:.2f} ± {baseline.std:.2f} | "
            f"text {best.mean:.2f} | {mixture.mean:.2f} ± {mixture.std:.2f} | {mixture.mean - baseline.mean:+.2f} |"
        ) in text
    for path in written:
        links = re.findall(r"\]\(([^)]+)\)", path.read_text()) if path.suffix == ".md" else []
        assert all((path.parent / link).is_file() for link in links), path
    assert "| mixture | " in own
    before = {path: path.read_bytes() for path in written}
    assert {path: path.read_bytes() for path in write_report(folder, page)} == before
    assert all(len(content) < 60_000 for content in before.values())


def test_scaled_confidences_are_reported_before_and_after(folder: Path, tmp_path: Path) -> None:
    names = read_summary(folder)[0].predictions
    evaluations = []
    for seed, name in enumerate(names, 1):
        old = load_predictions(folder / name, "ner", seed)
        assert old.scaled is None
        softer = [[round(c / 2, 4) for c in row] for row in old.confidences]
        evaluations.append(replace(old, scaled=Scaled(softer, [1.5 + n % 2 for n in range(len(softer))])))
        save_predictions(evaluations[-1], folder / name)
        assert load_predictions(folder / name, "ner", seed).scaled == evaluations[-1].scaled
    rows = recompute(folder)[0]
    write_summary(folder, rows)
    mixture = next(row for row in rows if row.variant == MIXTURE)
    assert mixture.temperature == 2.0
    assert mixture.calibration_error_scaled != mixture.calibration_error
    assert all(row.temperature is None for row in rows if row.variant != MIXTURE or row.recipe == "set-tiny-k3")
    page = tmp_path / "results.md"
    write_report(folder, page)
    assert (tmp_path / "results" / "set-tiny-k1.md").read_text().count(
        "At a temperature of 2.00 (fitted on the validation split): "
    ) == 1
    assert "at the temperature" in (tmp_path / "results" / "set-tiny-k1-test-reliability.svg").read_text()
    assert "at the temperature" not in (tmp_path / "results" / "set-tiny-k3-test-reliability.svg").read_text()


def test_a_damaged_file_of_published_scores_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "published.json").write_text("{}")
    with pytest.raises(DataFormatError, match=r"published\.json"):
        write_report(folder, tmp_path / "page.md")
