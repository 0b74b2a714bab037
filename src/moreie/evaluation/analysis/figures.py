"""`<recipe>/<split>-analysis.json`: figures only, for the posts themselves may not be passed on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from moreie.errors import DataFormatError
from moreie.evaluation.predictions import Evaluation
from moreie.whole_files import replace_file


class Figures(BaseModel):
    """Means over seeds, unless said otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BucketScores(Figures):
    """Micro scores of a variant on the gold and predicted items of a bucket, in percent."""

    precision: float
    recall: float
    f1: float


class Bucket(Figures):
    """`support`: gold items in it. `scores`: by variant."""

    name: str
    support: float
    scores: dict[str, BucketScores]


class Breakdown(Figures):
    """One way to sort the items into buckets."""

    name: str
    buckets: tuple[Bucket, ...]


class Flip(Figures):
    """Items of category `before` under the baseline that are `after` under the mixture."""

    before: str
    after: str
    count: float


class Decided(Figures):
    """Gold items that an evidence expert has right and the baseline wrong (`mended`), and the reverse (`spoilt`).

    `alone`: of the mended ones those that no other expert of the mixture has right. `kept`: those that the mixture has
    right. Posts (pairs, for relations) with at least one such item are counted beside them.
    """

    expert: str
    mended: float
    mended_cases: float
    spoilt: float
    spoilt_cases: float
    alone: float
    kept: float


class Cost(Figures):
    """What a variant costs a post, with one seed's experts. `peak_mib`: memory of the process, or on the GPU."""

    variant: str
    gflops: float
    seconds_per_100: float
    tokens: float
    peak_mib: float


class Costs(Figures):
    """`cases`: posts (pairs) it was measured on; `device`: cpu or cuda."""

    cases: int
    device: str
    threads: int
    rows: tuple[Cost, ...]


class Analysis(Figures):
    """All of a recipe on a split. `made_from` names the predictions the figures follow from."""

    recipe: str
    split: str
    task: str
    seeds: tuple[int, ...]
    made_from: str
    errors: dict[str, dict[str, float]]
    flips: tuple[Flip, ...]
    decided: tuple[Decided, ...]
    breakdowns: tuple[Breakdown, ...]
    costs: Costs | None = None
    format: int = 1


def analysis_path(results: Path, recipe: str, split: str) -> Path:
    """Beside the predictions it is made from."""
    return results / recipe / f"{split}-analysis.json"


def write_analysis(analysis: Analysis, results: Path) -> Path:
    """Replace the file in one step."""
    path = analysis_path(results, analysis.recipe, analysis.split)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (analysis.model_dump_json(indent=1) + "\n").encode())
    return path


def read_analysis(results: Path, recipe: str, split: str) -> Analysis | None:
    """None where there is none. Raises `DataFormatError` on a damaged one."""
    path = analysis_path(results, recipe, split)
    if not path.is_file():
        return None
    try:
        return Analysis.model_validate_json(path.read_bytes())
    except ValidationError as problem:
        raise DataFormatError(f"no analysis ({problem.errors()[0]['msg']})", path) from problem


def predictions_digest(evaluations: Sequence[Evaluation]) -> str:
    """A short name of what was said of which cases, in memory as on disk."""
    said = [
        (e.task, e.seed, e.ids, e.gold, e.predictions, e.names, [[round(w, 4) for w in row] for row in e.gate.tolist()])
        for e in evaluations
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
