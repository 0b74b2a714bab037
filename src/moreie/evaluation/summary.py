"""`summary.json`: one row for every result, from which all tables and plots of the docs are made."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from moreie.errors import DataFormatError
from moreie.evaluation.predictions import (
    MIXTURE,
    Evaluation,
    load_predictions,
    mean_flips,
    mean_temperature,
    save_predictions,
    scaled_error,
)
from moreie.evaluation.significance import paired_bootstrap, paired_randomisation
from moreie.training.configuration import configuration, digest, encoder_name
from moreie.training.recipe import Recipe
from moreie.whole_files import replace_file

log = logging.getLogger(__name__)
FILE = "summary.json"
# With fewer seeds there is next to nothing to draw from.
ENOUGH_SEEDS = 3


class Result(BaseModel):
    """A variant on a split: micro-F1 of each seed in percent, F1 per type (mean over seeds), and where it is from.

    `predictions` are paths from the summary's folder. `p_value_vs_baseline`: paired approximate randomisation over
    cases, the seeds' counts summed, against the baseline decoded alike; None for the baseline itself, or without one.
    `p_value_over_seeds` and `gain_interval` (95 %, points of F1): paired bootstrap over cases and seeds, where there
    are at least three seeds.
    `flips`: right answers of the baseline that the variant spoils, and wrong ones that it mends, means over seeds.
    `calibration_error_scaled`: the mixture's at `temperature`; means over seeds (validation: and folds).
    `k`: passages the variant may read. `configuration` names all that the result depends on.
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
    calibration_error_scaled: float | None = None
    temperature: float | None = None
    p_value_vs_baseline: float | None
    flips: tuple[float, float] | None = None
    p_value_over_seeds: float | None = None
    gain_interval: tuple[float, float] | None = None
    k: int | None = None
    command: str
    configuration: str | None = None
    predictions: tuple[str, ...]

    @property
    def mean_and_std(self) -> str:
        """`84.99 ± 0.27`; the mean alone where there is one seed."""
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")

    @property
    def recipe(self) -> str:
        """Name of the recipe: the folder of its predictions."""
        return Path(self.predictions[0]).parent.name


@dataclass(frozen=True)
class Origin:
    """What rows say beside their figures. `k[variant]`: passages a variant may read."""

    dataset: str
    split: str
    task: str
    encoder: str
    k: Mapping[str, int | None]
    command: str
    configuration: str | None
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


def write_summary(folder: Path, rows: Sequence[Result]) -> None:
    """Replace the summary in one step."""
    replace_file(folder / FILE, _ROWS.dump_json(list(rows), indent=2) + b"\n")


def predictions_name(recipe_path: Path, split: str, seed: int) -> str:
    """Where a seed's predictions lie, from the summary's folder."""
    return f"{recipe_path.stem}/{split}-seed-{seed}.jsonl.zst"


def record(
    folder: Path,
    recipe_path: Path,
    recipe: Recipe,
    split: str,
    evaluations: Sequence[Evaluation],
    command: str | None = None,
) -> None:
    """Keep the predictions of all seeds, and put the variants' rows in place of older ones of the same recipe.

    `command` is what brings the result about, `moreie evaluate …` unless given.
    """
    names = []
    for evaluation in evaluations:
        name = predictions_name(recipe_path, split, evaluation.seed)
        save_predictions(evaluation, folder / name)
        names.append(name)
    origin = Origin(
        dataset=recipe_path.stem.partition("-")[0],
        split=split,
        task=recipe.task,
        encoder=encoder_name(recipe),
        k={variant: passages_read(recipe, variant) for variant in evaluations[0].predictions},
        command=command
        or f"moreie evaluate experiments/recipes/{recipe_path.name} --split {split} --results experiments/results",
        configuration=digest(configuration(recipe, split)),
        predictions=tuple(names),
    )
    saved = [load_predictions(folder / n, recipe.task, e.seed) for n, e in zip(names, evaluations, strict=True)]
    rows = results(origin, saved)  # of the rounded figures in the files, as they can be computed again
    kept = [row for row in read_summary(folder) if (row.recipe, row.split) != (recipe_path.stem, split)]
    write_summary(folder, [*kept, *rows])


def passages_read(recipe: Recipe, variant: str) -> int:
    """The most passages of one retriever that a variant may read; a mixture reads what its experts do."""
    own = {e.name: e.view.k if e.view.retriever else 0 for e in recipe.experts}
    expert, _, ablation = variant.partition(", ")
    return 0 if ablation == "no evidence" else own.get(expert, max(own[name] for name in recipe.members))


def results(origin: Origin, evaluations: Sequence[Evaluation]) -> list[Result]:
    """One row a variant, as far as all seeds have it: some may be of a time when there were fewer."""
    first = evaluations[0]
    shared = [v for v in first.predictions if all(v in e.predictions for e in evaluations)]
    if some := {v for e in evaluations for v in e.predictions}.difference(shared):
        log.warning("%s: not predicted for all seeds, left out: %s", origin.predictions[0], ", ".join(sorted(some)))
    rows = []
    for variant in shared:
        scores = [e.scores(variant) for e in evaluations]
        f1 = [round(s["micro"].f1, 2) for s in scores]
        types = sorted({type for s in scores for type in s} - {"micro"})
        p_value = gain = None
        if (against := first.base_of(variant)) is not None:
            own, base = ([e.counts(v) for e in evaluations] for v in (variant, against))
            p_value = round(paired_randomisation(np.sum(own, axis=0), np.sum(base, axis=0)), 4)
            gain = paired_bootstrap(own, base) if len(own) >= ENOUGH_SEEDS else None
        rows.append(
            Result(
                dataset=origin.dataset,
                split=origin.split,
                task=origin.task,
                variant=variant,
                encoder=origin.encoder,
                seeds=tuple(e.seed for e in evaluations),
                f1=tuple(f1),
                mean=round(float(np.mean(f1)), 2),
                std=round(float(np.std(f1, ddof=1)), 2) if len(f1) > 1 else None,
                precision=round(float(np.mean([s["micro"].precision for s in scores])), 2),
                recall=round(float(np.mean([s["micro"].recall for s in scores])), 2),
                per_type={t: round(float(np.mean([s[t].f1 if t in s else 0.0 for s in scores])), 2) for t in types},
                accuracy=round(float(np.mean([e.accuracy(variant) for e in evaluations])), 2)
                if origin.task == "re"
                else None,
                calibration_error=round(float(np.mean([e.calibration_error for e in evaluations])), 4)
                if variant == MIXTURE
                else None,
                calibration_error_scaled=scaled_error(evaluations) if variant == MIXTURE else None,
                temperature=mean_temperature(evaluations) if variant == MIXTURE else None,
                p_value_vs_baseline=p_value,
                flips=mean_flips(evaluations, variant),
                p_value_over_seeds=round(gain.p_value, 4) if gain else None,
                gain_interval=(round(gain.low, 2), round(gain.high, 2)) if gain else None,
                k=origin.k.get(variant),
                command=origin.command,
                configuration=origin.configuration,
                predictions=origin.predictions,
            )
        )
    return rows
