"""`summary.json`: one row for every result, from which all tables and plots of the docs are made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from moreie.errors import DataFormatError
from moreie.evaluation.run import BASELINE, MIXTURE, Evaluation, mean_flips, save_predictions
from moreie.evaluation.significance import paired_randomisation
from moreie.training.recipe import Recipe

FILE = "summary.json"


class Result(BaseModel):
    """A variant on a split: micro-F1 of each seed in percent, F1 per type (mean over seeds), and where it is from.

    `predictions` are paths from the summary's folder. `p_value_vs_baseline`: paired approximate randomisation over
    cases, the seeds' counts summed; None for the baseline itself, or where there is none. `flips`: right answers of the
    baseline that the variant spoils, and wrong ones that it mends, means over seeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    split: str
    task: str
    variant: str
    encoder: str
    seeds: tuple[int, ...]
    f1: tuple[float, ...]
    mean: float
    std: float | None
    precision: float
    recall: float
    per_type: dict[str, float]
    accuracy: float | None = None
    calibration_error: float | None = None
    p_value_vs_baseline: float | None
    flips: tuple[float, float] | None = None
    command: str
    predictions: tuple[str, ...]


_ROWS = TypeAdapter(list[Result])


def read_summary(folder: Path) -> list[Result]:
    """Rows so far; none where the file is not there yet. Raises `DataFormatError` on a damaged file."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        return _ROWS.validate_json(path.read_bytes())
    except ValidationError as problem:
        raise DataFormatError(f"not a result summary ({problem.errors()[0]['msg']})", path) from problem


def record(folder: Path, recipe_path: Path, recipe: Recipe, split: str, evaluations: Sequence[Evaluation]) -> None:
    """Keep the predictions of all seeds, and put the variants' rows in place of older ones of the same recipe."""
    names = []
    for evaluation in evaluations:
        name = f"{recipe_path.stem}/{split}-seed-{evaluation.seed}.jsonl.zst"
        save_predictions(evaluation, folder / name)
        names.append(name)
    rows = results(recipe_path, recipe, split, evaluations, names)
    replaced = {(row.dataset, row.split, row.variant, row.encoder) for row in rows}
    kept = [r for r in read_summary(folder) if (r.dataset, r.split, r.variant, r.encoder) not in replaced]
    temporary = folder / f".{FILE}.{os.getpid()}"
    temporary.write_bytes(_ROWS.dump_json([*kept, *rows], indent=2) + b"\n")
    os.replace(temporary, folder / FILE)


def results(
    recipe_path: Path, recipe: Recipe, split: str, evaluations: Sequence[Evaluation], names: Sequence[str]
) -> list[Result]:
    """One row a variant."""
    dataset, _, _ = recipe_path.stem.partition("-")
    first = evaluations[0]
    base = sum(e.counts(BASELINE) for e in evaluations) if BASELINE in first.predictions else None
    rows = []
    for variant in first.predictions:
        scores = [e.scores(variant) for e in evaluations]
        f1 = [round(s["micro"].f1, 2) for s in scores]
        types = sorted({type for s in scores for type in s} - {"micro"})
        p_value = None
        if base is not None and variant != BASELINE:
            p_value = round(paired_randomisation(sum(e.counts(variant) for e in evaluations), base), 4)  # type: ignore[arg-type]
        rows.append(
            Result(
                dataset=dataset,
                split=split,
                task=recipe.task,
                variant=variant,
                encoder=Path(recipe.encoder).name if Path(recipe.encoder).is_dir() else recipe.encoder,
                seeds=tuple(e.seed for e in evaluations),
                f1=tuple(f1),
                mean=round(float(np.mean(f1)), 2),
                std=round(float(np.std(f1, ddof=1)), 2) if len(f1) > 1 else None,
                precision=round(float(np.mean([s["micro"].precision for s in scores])), 2),
                recall=round(float(np.mean([s["micro"].recall for s in scores])), 2),
                per_type={t: round(float(np.mean([s[t].f1 if t in s else 0.0 for s in scores])), 2) for t in types},
                accuracy=round(float(np.mean([e.accuracy(variant) for e in evaluations])), 2)
                if recipe.task == "re"
                else None,
                calibration_error=round(float(np.mean([e.calibration_error for e in evaluations])), 4)
                if variant == MIXTURE
                else None,
                p_value_vs_baseline=p_value,
                flips=mean_flips(evaluations, variant),
                command=f"moreie evaluate experiments/recipes/{recipe_path.name} --split {split} "
                "--results experiments/results",
                predictions=tuple(names),
            )
        )
    return rows
