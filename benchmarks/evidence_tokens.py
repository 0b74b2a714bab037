"""What evidence is worth by how much of it is kept: F1 and seconds of a trained expert against the sub-tokens it reads.

The expert of each seed of a recipe that was trained (`moreie train`) reads the validation split with its passages cut
to so many sub-tokens, and without any; nothing is trained again. The last row is the smallest cut whose F1 is within
half a point of the best. The curve is drawn into docs/evidence-tokens.svg.

python benchmarks/evidence_tokens.py --recipe experiments/recipes/twitter2015-minilm-two-heads.yaml --expert knowledge
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from machine import threads
from matplotlib.figure import Figure
from rows import Row, save

from moreie.evaluation.ner import mention_scores
from moreie.evaluation.run import answers_of
from moreie.models.expert import Expert
from moreie.training.data import Split, cases, load_split, within_limit
from moreie.training.experts import load_experts
from moreie.training.recipe import Recipe, read_recipe
from moreie.training.run import seed_folder

PLOT = Path(__file__).parents[1] / "docs" / "evidence-tokens.svg"
LIMITS = (0, 8, 16, 32, 56, 80, 110)
WITHIN = 0.5


@dataclass(frozen=True, slots=True)
class Point:
    """Scores of the seeds with passages cut to `limit` sub-tokens, inputs' mean length, seconds for 100 posts."""

    limit: int
    f1: tuple[float, ...]
    tokens: float
    seconds: float

    @property
    def mean(self) -> float:
        return statistics.mean(self.f1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--expert", required=True)
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe)
    split = load_split(recipe.data.validation)
    experts = [load_experts(recipe, seed_folder(recipe, seed), [arguments.expert])[0] for seed in recipe.seeds]
    points = [measured(recipe, split, experts, limit) for limit in LIMITS]
    best = max(p.mean for p in points)
    enough = next(p for p in points if p.mean >= best - WITHIN)
    what = f"{arguments.expert} of {arguments.recipe.stem}, validation, {len(recipe.seeds)} seeds"
    rows = [
        Row(
            f"F1 with evidence cut to {p.limit} sub-tokens",
            f"{what}: {', '.join(f'{x:.2f}' for x in p.f1)}; inputs of {p.tokens:.0f}, {p.seconds:.2f} s for 100 posts "
            f"({threads()})",
            p.mean,
            "F1",
        )
        for p in points
    ]
    worth = f"within {WITHIN} F1 of the best; {points[-1].seconds / enough.seconds:.2f} times as fast as with all"
    rows.append(Row("evidence that is enough", f"{what}: {worth}", enough.limit, "sub-tokens"))
    draw(points, what)
    save("evidence_tokens", rows)


def measured(recipe: Recipe, split: Split, experts: Sequence[Expert], limit: int) -> Point:
    scores, tokens, seconds = [], [], []
    for expert in experts:
        view = replace(expert.spec.view, passage_limit=limit or None)
        expert.spec = expert.spec.model_copy(update={"view": view})
        posts, evidence, gold = cases(recipe.task, within_limit(split, expert.encoder))
        inputs = expert.assemble(posts, evidence[view.retriever] if limit else [()] * len(posts))
        start = time.perf_counter()
        said = expert.log_probabilities(inputs)
        seconds.append(100 * (time.perf_counter() - start) / len(posts))
        tokens.append(statistics.mean(len(x.input_ids) for x in inputs))
        scores.append(mention_scores(gold, answers_of(expert, said))["micro"].f1)
    return Point(limit, tuple(scores), statistics.mean(tokens), statistics.median(seconds))


def draw(points: list[Point], what: str) -> None:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    lengths = [p.tokens for p in points]
    spread = [statistics.stdev(p.f1) if len(p.f1) > 1 else 0.0 for p in points]
    axes.errorbar(lengths, [p.mean for p in points], spread, marker="o", capsize=3, color="#4878a8")
    for p in points:
        axes.annotate(str(p.limit), (p.tokens, p.mean), textcoords="offset points", xytext=(4, -10), fontsize=8)
    axes.set_xlabel("sub-tokens of an input (at the points: of evidence at most)")
    axes.set_ylabel("F1", color="#4878a8")
    axes.set_title(what, fontsize=9)
    clock = axes.twinx()
    clock.plot(lengths, [p.seconds for p in points], linestyle=":", color="#b5651d")
    clock.set_ylim(bottom=0)
    clock.set_ylabel("seconds for 100 posts", color="#b5651d")
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
