"""Every figure of `summary.json` computed again from the predictions it was computed from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from moreie.errors import DataFormatError, MoreieError
from moreie.evaluation.predictions import Evaluation, load_predictions
from moreie.evaluation.summary import FILE, Origin, Result, read_summary, results


def load_evaluations(folder: Path, row: Result) -> list[Evaluation]:
    """The predictions of a row, one evaluation a seed.

    Raises:
        DataFormatError: a file is missing or damaged.
    """
    if len(row.predictions) != len(row.seeds):
        raise DataFormatError(
            f"{row.variant}: {len(row.predictions)} predictions of {len(row.seeds)} seeds", folder / FILE
        )
    pairs = zip(row.predictions, row.seeds, strict=True)
    return [load_predictions(folder / path, row.task, seed) for path, seed in pairs]


def recompute(folder: Path) -> tuple[list[Result], list[str]]:
    """(rows as the predictions in `folder` give them, every difference from the rows of its summary).

    Raises:
        DataFormatError: summary or predictions are missing or damaged.
        MoreieError: there are no results.
    """
    recorded = read_summary(folder)
    if not recorded:
        raise MoreieError(f"{folder / FILE}: no results to compute again")
    found: list[Result] = []
    differences: list[str] = []
    for _, group in groupby(recorded, key=lambda row: (row.dataset, row.split, row.encoder, row.predictions)):
        own = list(group)
        again = results(_origin(own), load_evaluations(folder, own[0]))
        found += again
        differences += _differences(own, again)
    return found, differences


def _origin(rows: Sequence[Result]) -> Origin:
    row = rows[0]
    k = {r.variant: r.k for r in rows}
    return Origin(row.dataset, row.split, row.task, row.encoder, k, row.command, row.configuration, row.predictions)


def _differences(recorded: Sequence[Result], again: Sequence[Result]) -> list[str]:
    name = f"{recorded[0].recipe}, {recorded[0].split}"
    theirs = {row.variant: row for row in again}
    found = [f"{name}: no row for {v!r}, which the predictions hold" for v in theirs if v not in _variants(recorded)]
    for row in recorded:
        if row.variant not in theirs:
            found.append(f"{name}: the predictions hold no {row.variant!r}")
            continue
        now: dict[str, Any] = theirs[row.variant].model_dump()
        for field, value in row.model_dump().items():
            if value != now[field]:
                found.append(f"{name}, {row.variant}: {field} {_shown(value, now[field])}")
    return found


def _variants(rows: Sequence[Result]) -> set[str]:
    return {row.variant for row in rows}


def _shown(recorded: Any, again: Any) -> str:
    if isinstance(recorded, dict) and isinstance(again, dict):
        keys = [key for key in sorted({*recorded, *again}) if recorded.get(key) != again.get(key)]
        return ", ".join(f"{key} {_shown(recorded.get(key), again.get(key))}" for key in keys)
    return f"is {recorded}, the predictions give {again}"
