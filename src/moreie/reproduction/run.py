"""A table from its data: evidence, training, scores on validation and test, significance, record, analysis, page.

What a stage leaves behind is what the next attempt starts from: evidence files, experts (`training.run`), one file of
predictions a seed and split, and the rows of `summary.json`. All of it belongs to one configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moreie.errors import RecipeError
from moreie.evaluation.analysis.run import ensure_analysis
from moreie.evaluation.predictions import Evaluation, load_predictions, save_predictions
from moreie.evaluation.report import write_report
from moreie.evaluation.run import evaluate_seed
from moreie.evaluation.summary import Result, predictions_name, read_summary, record
from moreie.models.mixture import MIXTURE_FILE
from moreie.reproduction.evidence import ensure_evidence
from moreie.reproduction.recipes import with_data_folder, with_k, with_seeds, without_absent_test
from moreie.reproduction.sources import check_posts, explain_missing, missing_files
from moreie.training import configuration
from moreie.training.pictures import GatePictures
from moreie.training.recipe import Recipe, read_recipe
from moreie.training.run import seed_folder, train_recipe


@dataclass(frozen=True)
class Plan:
    """What is to be reproduced, and where its parts lie.

    `k`, `seeds` and `corpus` replace the recipe's; a corpus that is not there is built from `articles`. `command` is
    what results say of how to get them.
    """

    dataset: str
    recipe: Path
    data: Path
    results: Path
    page: Path
    command: str
    corpus: str | None = None
    articles: tuple[Path, ...] = ()
    k: int | None = None
    seeds: int | None = None
    any_size: bool = False

    @property
    def name(self) -> Path:
        """The recipe's path, with k in its name where k is not the recipe's own."""
        return self.recipe.with_stem(f"{self.recipe.stem}-k{self.k}") if self.k else self.recipe


def prepare(plan: Plan) -> Recipe:
    """The recipe as it is to be run.

    Raises:
        RecipeError: the recipe is wrong, or files are missing: it says which and where they are to be had.
    """
    recipe = with_data_folder(read_recipe(plan.recipe), plan.recipe.absolute().parent.parent / "data", plan.data)
    if plan.k:
        recipe = with_k(recipe, plan.k)
    if plan.seeds:
        recipe = with_seeds(recipe, plan.seeds)
    missing = missing_files(recipe)
    if not all(needed.optional for needed in missing):
        raise RecipeError(explain_missing(plan.dataset, plan.data, missing))
    return without_absent_test(recipe)


def reproduce(plans: Sequence[Plan], say: Callable[[str], None]) -> list[Path]:
    """Carry out plans of one results folder, one after the other; returns the page and plots written of all results.

    Raises:
        MoreieError: see `carry_out`.
    """
    for plan in plans:
        carry_out(plan, say)
    return write_report(plans[0].results, plans[0].page)


def carry_out(plan: Plan, say: Callable[[str], None]) -> None:
    """Train, score, record and analyse what the plan says, from wherever it was stopped before.

    The test split is scored once for each configuration: rows of the same one are kept.

    Raises:
        MoreieError: files are missing or damaged, or the run's folder holds experts of another configuration.
    """
    recipe = prepare(plan)
    counts = check_posts(recipe, any_size=plan.any_size)
    say(f"{plan.dataset}: " + ", ".join(f"{count:,} {split}" for split, count in counts.items()) + " posts")
    if "test" not in counts:
        say(f"{plan.dataset}: no test split there; scores are those of the validation split")
    corpus = plan.corpus or (recipe.retrieval.corpus if recipe.retrieval else None)
    ensure_evidence(recipe, corpus, plan.articles, say)
    splits = [s for s in ("validation", "test") if s in counts]
    open_splits = [s for s in splits if not _recorded(plan, recipe, s)]
    pictures = GatePictures(recipe)
    if open_splits:
        for seed in recipe.seeds:
            if not all(_predictions(plan, recipe, split, seed) for split in open_splits):
                _train(recipe, seed, pictures, say)
    for split in splits:
        if split not in open_splits:
            say(f"{plan.name.stem}, {split}: results of this configuration are there, kept")
        else:
            evaluations = [_evaluated(plan, recipe, split, seed, pictures, say) for seed in recipe.seeds]
            record(plan.results, plan.name, recipe, split, evaluations, plan.command)
            say(f"{plan.name.stem}, {split}: recorded in {plan.results}")
        if path := ensure_analysis(plan.results, plan.name.stem, recipe, split):
            say(f"{path}: analysed")


def _recorded(plan: Plan, recipe: Recipe, split: str) -> bool:
    rows = _rows(plan, recipe, split)
    return bool(rows) and all(
        r.seeds == recipe.seeds and all((plan.results / p).is_file() for p in r.predictions) for r in rows
    )


def _rows(plan: Plan, recipe: Recipe, split: str) -> list[Result]:
    """Those recorded of this configuration."""
    own = (plan.name.stem, split, _configuration(recipe, split))
    return [r for r in read_summary(plan.results) if (r.recipe, r.split, r.configuration) == own]


def _configuration(recipe: Recipe, split: str) -> str:
    return configuration.digest(configuration.configuration(recipe, split))


def _train(recipe: Recipe, seed: int, pictures: GatePictures, say: Callable[[str], None]) -> None:
    folder = seed_folder(recipe, seed)
    if (folder / MIXTURE_FILE).exists() and configuration.read(folder) == configuration.configuration(recipe):
        say(f"{folder}: trained before, kept")
    else:
        train_recipe(recipe.model_copy(update={"seeds": (seed,)}), say, pictures)


def _evaluated(
    plan: Plan, recipe: Recipe, split: str, seed: int, pictures: GatePictures, say: Callable[[str], None]
) -> Evaluation:
    """The seed's predictions, made or, where they are there already, read."""
    path = _predictions(plan, recipe, split, seed)
    if path is not None:
        say(f"{path}: predicted before, kept")
    else:
        path = _own_predictions(recipe, split, seed)
        save_predictions(evaluate_seed(recipe, split, seed, pictures), path)
        say(f"{path}: predicted")
    return load_predictions(path, recipe.task, seed)


def _predictions(plan: Plan, recipe: Recipe, split: str, seed: int) -> Path | None:
    """Where a seed's predictions of this configuration are: in the run's folder, or recorded with the results."""
    own = _own_predictions(recipe, split, seed)
    if own.is_file():
        return own
    recorded = plan.results / predictions_name(plan.name, split, seed)
    known = any(seed in row.seeds for row in _rows(plan, recipe, split))
    return recorded if known and recorded.is_file() else None


def _own_predictions(recipe: Recipe, split: str, seed: int) -> Path:
    return seed_folder(recipe, seed) / f"{split}-{_configuration(recipe, split)}.jsonl.zst"
