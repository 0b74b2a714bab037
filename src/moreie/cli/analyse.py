"""`moreie analyse`: what lies behind a recipe's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moreie.cli.console import clear_errors, console

EXAMPLES = """[bold]Examples[/]

moreie analyse experiments/recipes/twitter2017-minilm.yaml --split validation

moreie analyse experiments/recipes/twitter2017-minilm.yaml --split test --examples errors.html

Recorded predictions and the data files are enough; costs are measured where the recipe has been trained.
"""


def analyse(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    results: Annotated[Path, typer.Option(help="Folder with summary.json and predictions; the figures go there.")] = (
        Path("experiments/results")
    ),
    examples: Annotated[
        Path | None, typer.Option(help="HTML page of posts with errors to write, for reading here only.")
    ] = None,
) -> None:
    """Sort errors, break scores down by kinds of posts and mentions, and measure what each variant costs."""
    with clear_errors():
        from moreie.evaluation.analysis.examples import error_examples
        from moreie.evaluation.analysis.figures import write_analysis
        from moreie.evaluation.analysis.run import analysed, first_scored, recorded_or_made
        from moreie.evaluation.analysis.tables import analysis_section
        from moreie.rendering.error_examples import errors_page
        from moreie.training.recipe import read_recipe

        loaded = read_recipe(recipe)
        evaluations = recorded_or_made(results, recipe.stem, loaded, split)
        scored = first_scored(loaded, split, evaluations)
        analysis = analysed(recipe.stem, loaded, split, evaluations, scored)
        console().print(analysis_section(analysis), markup=False, soft_wrap=True)
        said = console(stderr=True)
        if analysis.costs is None:
            said.print("no costs: the recipe's experts or evidence files are not there", markup=False)
        said.print(f"wrote {write_analysis(analysis, results)}", markup=False, soft_wrap=True)
        if examples is not None:
            title = f"Errors of {recipe.stem} on the {split} split, seed {evaluations[0].seed}"
            page = errors_page(error_examples(evaluations[0], scored), title=title)
            examples.write_text(page, encoding="utf-8")
            said.print(f"wrote {examples}: texts of posts, not to be passed on", markup=False, soft_wrap=True)
