"""Two recorded systems against each other: is one better than the other, or was it luck?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moreie.errors import MoreieError
from moreie.evaluation.predictions import MIXTURE, Evaluation
from moreie.evaluation.recompute import load_evaluations
from moreie.evaluation.significance import Gain, paired_bootstrap, paired_randomisation
from moreie.evaluation.summary import ENOUGH_SEEDS, Result, read_summary


@dataclass(frozen=True)
class System:
    """A variant of a recipe, as results name both."""

    recipe: str
    variant: str = MIXTURE

    @classmethod
    def parse(cls, text: str) -> System:
        """`recipe`, whose mixture is meant, or `recipe:variant`."""
        recipe, _, variant = text.partition(":")
        return cls(recipe, variant or MIXTURE)

    def __str__(self) -> str:
        return f"{self.recipe}: {self.variant}"


@dataclass(frozen=True)
class Contrast:
    """`ours` and `theirs`: F1 of each of the `seeds` in percent, as results record it. `p_value`: paired approximate
    randomisation over cases; `gain`: paired bootstrap over cases and seeds, None where these are too few. `only`:
    right answers that one system alone has, means over seeds; `per_type`: mean F1 of both.
    """

    seeds: tuple[int, ...]
    cases: int
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    p_value: float
    gain: Gain | None
    only: tuple[float, float]
    per_type: dict[str, tuple[float, float]]

    @property
    def difference(self) -> float:
        return float(np.mean(self.ours) - np.mean(self.theirs))


def contrast(results: Path, first: System, second: System, split: str) -> Contrast:
    """`first` against `second` on a split, by the predictions of those seeds that both have.

    Raises:
        MoreieError: one is not there, they share no seed, or did not answer the same posts or pairs.
        DataFormatError: predictions are missing or damaged.
    """
    rows = read_summary(results)
    own_rows = [_row(rows, system, split) for system in (first, second)]
    loaded = [load_evaluations(results, own_rows[0])]
    loaded.append(loaded[0] if first.recipe == second.recipe else load_evaluations(results, own_rows[1]))
    by_seed: list[dict[int, Evaluation]] = [{e.seed: e for e in evaluations} for evaluations in loaded]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not seeds:
        said = " and ".join(", ".join(map(str, sorted(own))) for own in by_seed)
        raise MoreieError(f"{first} and {second} share no seed: {said}")
    ours, theirs = ([own[seed] for seed in seeds] for own in by_seed)
    for a, b in zip(ours, theirs, strict=True):
        if a.ids != b.ids or a.gold != b.gold:
            raise MoreieError(f"{first} and {second} did not answer the same {split} posts or pairs")
    counts = [[e.counts(first.variant) for e in ours], [e.counts(second.variant) for e in theirs]]
    scores = [[e.scores(first.variant) for e in ours], [e.scores(second.variant) for e in theirs]]
    types = sorted({type for own in scores for seed in own for type in seed} - {"micro"})
    means = [{t: float(np.mean([s[t].f1 if t in s else 0.0 for s in own])) for t in types} for own in scores]
    right = [
        list(zip(a.right(first.variant), b.right(second.variant), strict=True))
        for a, b in zip(ours, theirs, strict=True)
    ]
    return Contrast(
        seeds=tuple(seeds),
        cases=len(ours[0].ids),
        ours=tuple(round(s["micro"].f1, 2) for s in scores[0]),
        theirs=tuple(round(s["micro"].f1, 2) for s in scores[1]),
        p_value=paired_randomisation(np.sum(counts[0], axis=0), np.sum(counts[1], axis=0)),
        gain=paired_bootstrap(counts[0], counts[1]) if len(seeds) >= ENOUGH_SEEDS else None,
        only=(
            float(np.mean([sum(a and not b for a, b in pairs) for pairs in right])),
            float(np.mean([sum(b and not a for a, b in pairs) for pairs in right])),
        ),
        per_type={t: (means[0][t], means[1][t]) for t in types},
    )


def _row(rows: Sequence[Result], system: System, split: str) -> Result:
    own = [row for row in rows if row.recipe == system.recipe]
    for row in own:
        if (row.variant, row.split) == (system.variant, split):
            return row
    if not own:
        known = ", ".join(sorted({row.recipe for row in rows})) or "none"
        raise MoreieError(f"no results of {system.recipe}; there are those of {known}")
    here = [row.variant for row in own if row.split == split]
    if not here:
        raise MoreieError(f"{system.recipe} has no {split} results, but {', '.join(sorted({r.split for r in own}))}")
    raise MoreieError(f"{system.recipe} has no variant {system.variant!r} on {split}; there are {'; '.join(here)}")
