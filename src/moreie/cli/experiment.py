"""`moreie train` and `moreie evaluate`: carry out a recipe and score what it made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors, console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moreie.evaluation.predictions import Evaluation
    from moreie.training.recipe import Recipe

TRAIN_EXAMPLES = """[bold]Examples[/]

moreie train experiments/recipes/twitter2017-minilm.yaml

A run that was stopped goes on when the same command is given again.
"""

EVALUATE_EXAMPLES = """[bold]Examples[/]

moreie evaluate experiments/recipes/twitter2017-minilm.yaml --split validation

moreie evaluate experiments/recipes/twitter2017-minilm.yaml --split test --results experiments/results
"""


REPORT_EXAMPLES = """[bold]Example[/]

moreie report experiments/results --page docs/results.md
"""

CALIBRATE_EXAMPLES = """[bold]Examples[/]

moreie calibrate recipes/ner.yaml --model my-model

moreie calibrate experiments/recipes/mnre-minilm.yaml --model runs/mnre-minilm/seed-1

`moreie train` does this for what it trains; do it again where the posts have changed.
"""

RECOMPUTE_EXAMPLES = """[bold]Examples[/]

moreie recompute

moreie recompute my-results --write
"""


def train(recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")]) -> None:
    """Train the experts and the gate of a recipe, for each of its seeds."""
    with clear_errors():
        from moreie.training.recipe import load_recipe
        from moreie.training.run import train_recipe

        loaded = load_recipe(recipe)
        train_recipe(loaded, lambda line: console(stderr=True).print(line, markup=False, soft_wrap=True))


def evaluate(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML) that has been trained.")],
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    results: Annotated[Path | None, typer.Option(help="Folder to keep predictions and summary.json in.")] = None,
) -> None:
    """Score every expert and the mixture on a split, over all seeds."""
    with clear_errors():
        from moreie.evaluation.predictions import mean_gate
        from moreie.evaluation.run import evaluate_seed
        from moreie.training.pictures import GatePictures
        from moreie.training.recipe import load_recipe

        loaded = load_recipe(recipe)
        pictures = GatePictures(loaded)
        evaluations = [evaluate_seed(loaded, split, seed, pictures) for seed in loaded.seeds]
        _print(loaded, split, evaluations)
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in mean_gate(evaluations).items())
        console().print(f"mean gate weights: {weights}", markup=False)
        if results is not None:
            from moreie.evaluation.summary import record

            record(results, recipe, loaded, split, evaluations)


def calibrate(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML) that the model was trained by; its validation posts.")],
    model: Annotated[Path, typer.Option(help="Model folder, or a seed's folder of a run.")],
) -> None:
    """Fit a model's confidences to validation posts; its answers stay."""
    with clear_errors():
        from moreie.evaluation.recalibration import mixture_folder, recalibrated
        from moreie.training.recipe import load_recipe

        loaded = load_recipe(recipe)
        done = recalibrated(loaded, mixture_folder(model, loaded.task))
        was = "none" if done.before is None else f"{done.before:.3f}"
        console().print(f"{done.folder}: temperature {done.after:.3f} (was {was})", markup=False, soft_wrap=True)
        console().print(
            f"expected calibration error {done.error:.4f} at 1, {done.scaled_error:.4f} at temperatures fitted without "
            "the post they are for",
            soft_wrap=True,
        )


def report(
    results: Annotated[Path, typer.Argument(help="Folder with summary.json.")] = Path("experiments/results"),
    page: Annotated[
        Path, typer.Option(help="Markdown page to write; pages of recipes and plots go into a folder of its name.")
    ] = Path("docs/results.md"),
) -> None:
    """Write tables and plots of all results."""
    with clear_errors():
        from moreie.evaluation.report import write_report
        from moreie.rendering.progress import tracked

        for path in write_report(results, page, tracked):
            console(stderr=True).print(f"wrote {path}", markup=False)


def recompute(
    results: Annotated[Path, typer.Argument(help="Folder with summary.json and predictions.")] = Path(
        "experiments/results"
    ),
    write: Annotated[bool, typer.Option(help="Put the figures computed in place of the recorded ones.")] = False,
) -> None:
    """Compute every figure again from the predictions; fail on any difference."""
    with clear_errors():
        from moreie.evaluation.recompute import recompute
        from moreie.evaluation.summary import write_summary

        rows, differences = recompute(results)
        for difference in differences:
            console().print(difference, markup=False, soft_wrap=True)
        if write:
            write_summary(results, rows)
        console(stderr=True).print(f"{results}: {len(rows)} rows computed again, {len(differences)} differences")
        if differences and not write:
            raise typer.Exit(1)


def _print(recipe: Recipe, split: str, evaluations: Sequence[Evaluation]) -> None:
    import numpy as np
    from rich.table import Table

    from moreie.evaluation.predictions import mean_flips

    first = evaluations[0]
    table = Table(title=f"{split}, {len(evaluations)} seed(s), F1", title_justify="left")
    shown = [t for t, _ in sorted(first.scores("mixture").items(), key=lambda item: -item[1].support)][:6]
    for heading in ("variant", "P", "R", *shown, "spoilt", "mended"):
        table.add_column(heading, justify="left" if heading == "variant" else "right", no_wrap=heading == "variant")
    for variant in first.predictions:
        scores = [e.scores(variant) for e in evaluations]
        cells = [f"{np.mean([s['micro'].precision for s in scores]):.2f}"]
        cells.append(f"{np.mean([s['micro'].recall for s in scores]):.2f}")
        for type in shown:
            values = [s[type].f1 for s in scores if type in s]
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 and type == "micro" else ""
            cells.append(f"{np.mean(values):.2f}{spread}" if values else "–")
        flips = mean_flips(evaluations, variant)
        table.add_row(variant, *cells, *(f"{count:g}" for count in flips or ()))
    console().print(table)
    console().print("spoilt, mended: answers the baseline had right and the variant has not, and the other way round")
    if recipe.task == "re":
        for variant in first.predictions:
            value = np.mean([e.accuracy(variant) for e in evaluations])
            console().print(f"accuracy with None, {variant}: {value:.2f}", markup=False)
