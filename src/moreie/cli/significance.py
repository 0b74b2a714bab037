"""`moreie significance`: two recorded systems against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors, console

if TYPE_CHECKING:
    from moreie.evaluation.contrast import Contrast

EXAMPLES = """[bold]Examples[/]

moreie significance twitter2017-minilm-two-heads twitter2017-minilm-four --split test

moreie significance mnre-minilm:text mnre-minilm-levitated:text

moreie significance "twitter2017-minilm-four:knowledge" "twitter2017-minilm-four:knowledge, no evidence"
"""
WIDEST = "84.99 ± 0.27"


def significance(
    first: Annotated[str, typer.Argument(help="RECIPE, its mixture being meant, or RECIPE:VARIANT.")],
    second: Annotated[str, typer.Argument(help="What it is set against, named likewise.")],
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    results: Annotated[Path, typer.Option(help="Folder with summary.json and predictions.")] = Path(
        "experiments/results"
    ),
) -> None:
    """Is one recorded system better than another, or was it luck? By the predictions of the seeds that both have."""
    with clear_errors():
        from moreie.evaluation.contrast import System, contrast

        systems = System.parse(first), System.parse(second)
        found = contrast(results, *systems, split)
        _print(found, [str(system) for system in systems], split)


def _print(found: Contrast, names: list[str], split: str) -> None:
    from rich.table import Table

    seeds = ", ".join(map(str, found.seeds))
    table = Table(title=f"{split}, {found.cases:,} posts or pairs, seeds {seeds}; F1", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", min_width=len(WIDEST))
    table.add_row("micro", *(_mean(f1) for f1 in (found.ours, found.theirs)), end_section=True)
    for type, both in found.per_type.items():
        table.add_row(type, *(f"{f1:.2f}" for f1 in both))
    table.add_section()
    table.add_row("right alone", *(f"{count:.1f}" for count in found.only))
    console().print(table)
    console().print(
        f"difference {found.difference:+.2f}; p = {found.p_value:.4f} (paired approximate randomisation over posts or "
        "pairs, seeds together)",
        soft_wrap=True,
    )
    if found.gain is None:
        console().print("too few common seeds to say whether others would differ as much")
    else:
        console().print(
            f"over posts or pairs and seeds: p = {found.gain.p_value:.4f}, 95 % between {found.gain.low:+.2f} and "
            f"{found.gain.high:+.2f} (paired bootstrap)",
            soft_wrap=True,
        )
    console().print("right alone: right answers that the other has not, means over seeds")


def _mean(f1: Sequence[float]) -> str:
    return f"{mean(f1):.2f}" + (f" ± {stdev(f1):.2f}" if len(f1) > 1 else "")
