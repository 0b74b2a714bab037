"""`moreie reproduce`: a table of the paper from its data, in one command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from moreie.cli.console import clear_errors, console

EXAMPLES = """[bold]Examples[/]

moreie reproduce twitter2017 --corpus wiki --articles experiments/data/wikipedia-408k.jsonl.zst

moreie reproduce mnre --corpus wiki --recipe experiments/recipes/mnre-xlm-roberta-large.yaml

moreie reproduce twitter2017 --corpus wiki -k 1 -k 3 -k 10

Stopped, it goes on when the same command is given again.
"""
RECIPES = Path("experiments/recipes")


def reproduce(
    dataset: Annotated[str, typer.Argument(help="twitter2017, twitter2015, mnre, snap or wikidiverse.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe \\[default: experiments/recipes/DATASET-minilm.yaml, which needs no hub]."),
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")] = Path("experiments/data"),
    corpus: Annotated[
        str | None,
        typer.Option(help="Corpus to retrieve from, where evidence has to be made \\[default: the recipe's]."),
    ] = None,
    articles: Annotated[
        list[Path] | None, typer.Option(help="Article files to build the corpus from if it is not there (repeatable).")
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", "--k", min=1, help="Passages an expert reads \\[default: the recipe's] (repeatable)."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds \\[default: the recipe's].")] = None,
    results: Annotated[Path, typer.Option(help="Folder for summary.json and predictions.")] = Path(
        "experiments/results"
    ),
    page: Annotated[
        Path, typer.Option(help="Markdown page to write; pages of recipes and plots go into a folder of its name.")
    ] = Path("docs/results.md"),
    any_size: Annotated[bool, typer.Option(help="Take files of other than the published number of posts.")] = False,
) -> None:
    """Retrieve, train, evaluate, test significance, record and report: one command a table."""
    with clear_errors():
        from moreie.errors import RecipeError
        from moreie.reproduction.run import Plan
        from moreie.reproduction.run import reproduce as run_all
        from moreie.reproduction.sources import SOURCES

        chosen = recipe or RECIPES / f"{dataset}-minilm.yaml"
        if dataset not in SOURCES:
            raise RecipeError(f"{dataset}: unknown data set; known are {', '.join(SOURCES)}")
        if chosen.stem.partition("-")[0] != dataset:
            raise RecipeError(f"{chosen}: a recipe for {dataset} is named {dataset}-….yaml")
        passages: list[int | None] = [*k] if k else [None]
        plans = [
            Plan(
                dataset=dataset,
                recipe=chosen,
                data=data,
                results=results,
                page=page,
                command=_command(dataset, recipe=recipe, corpus=corpus, k=own, seeds=seeds),
                corpus=corpus,
                articles=tuple(articles or ()),
                k=own,
                seeds=seeds,
                any_size=any_size,
            )
            for own in passages
        ]
        for path in run_all(plans, lambda line: console(stderr=True).print(line, markup=False, soft_wrap=True)):
            console(stderr=True).print(f"wrote {path}", markup=False, soft_wrap=True)


def _command(dataset: str, **options: object) -> str:
    """The command as results keep it: what decides the figures, not where files lie."""
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return shlex.join(["moreie", "reproduce", dataset, *given])
