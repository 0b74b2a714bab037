"""Two recorded systems against each other, from the files and from the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from moreie.cli.app import app
from moreie.errors import MoreieError
from moreie.evaluation.contrast import System, contrast
from moreie.evaluation.predictions import load_predictions, save_predictions
from moreie.evaluation.summary import read_summary, write_summary


def test_against_the_baseline_it_is_what_the_summary_says(folder: Path) -> None:
    rows = {row.variant: row for row in read_summary(folder) if row.recipe == "set-tiny-k1"}
    found = contrast(folder, System("set-tiny-k1"), System("set-tiny-k1", "baseline"), "test")
    mixture = rows["mixture"]
    assert tuple(round(f1, 2) for f1 in found.ours) == mixture.f1
    assert tuple(round(f1, 2) for f1 in found.theirs) == rows["baseline"].f1
    assert round(found.p_value, 4) == mixture.p_value_vs_baseline
    assert found.gain is not None
    assert (round(found.gain.low, 2), round(found.gain.high, 2)) == mixture.gain_interval
    assert mixture.flips == pytest.approx(found.only[::-1], abs=0.05)
    assert {t: round(ours, 2) for t, (ours, _) in found.per_type.items()} == mixture.per_type


def test_the_other_way_round_it_is_the_same_with_another_sign(folder: Path) -> None:
    first, second = System("set-tiny-k1", "text"), System("set-tiny-k3", "image")
    one, other = contrast(folder, first, second, "test"), contrast(folder, second, first, "test")
    assert one.difference == pytest.approx(-other.difference)
    assert one.only == other.only[::-1]
    assert one.p_value == pytest.approx(other.p_value, abs=0.02)
    assert contrast(folder, first, first, "test").p_value == 1.0


def test_only_common_seeds_count(folder: Path) -> None:
    rows = read_summary(folder)
    fewer = [
        row.model_copy(update={"seeds": row.seeds[1:], "predictions": row.predictions[1:]})
        if row.recipe == "set-tiny-k3"
        else row
        for row in rows
    ]
    write_summary(folder, fewer)
    found = contrast(folder, System("set-tiny-k1"), System("set-tiny-k3"), "test")
    assert found.seeds == (2, 3)
    assert found.gain is None, "two are too few to draw from"
    whole = next(row for row in rows if row.variant == "mixture")
    assert found.ours == pytest.approx(whole.f1[1:], abs=0.01)


@pytest.mark.parametrize(
    ("first", "split", "said"),
    [
        ("none", "test", "no results of none; there are those of set-tiny-k1, set-tiny-k3"),
        ("set-tiny-k1:imagee", "test", "no variant 'imagee' on test; there are baseline; text; image; mixture"),
        ("set-tiny-k1", "validation", "no validation results, but test"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, first: str, split: str, said: str) -> None:
    done = CliRunner().invoke(app, ["significance", first, "set-tiny-k3", "--split", split, "--results", str(folder)])
    assert done.exit_code == 2
    assert said in done.stderr.replace("\n", " ")


def test_other_posts_are_refused(folder: Path) -> None:
    path = folder / "set-tiny-k3" / "test-seed-1.jsonl.zst"
    evaluation = load_predictions(path, "ner", 1)
    evaluation.ids[0] = "another"
    save_predictions(evaluation, path)
    with pytest.raises(MoreieError, match="did not answer the same test posts"):
        contrast(folder, System("set-tiny-k1"), System("set-tiny-k3"), "test")


def test_the_command_shows_both_and_the_difference(folder: Path) -> None:
    command = ["significance", "set-tiny-k1", "set-tiny-k1:baseline", "--split", "test", "--results", str(folder)]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    row = next(row for row in read_summary(folder) if row.recipe == "set-tiny-k1" and row.variant == "mixture")
    assert f"{row.mean:.2f} ± {row.std:.2f}" in done.stdout
    assert f"p = {row.p_value_vs_baseline:.4f}" in done.stdout
