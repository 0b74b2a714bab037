"""`moreie check`: problems of data and recipes, found before hours of training depend on them."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors, console

if TYPE_CHECKING:
    from moreie.checking.findings import Finding, Report

RECIPES = (".yaml", ".yml")
COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}

EXAMPLES = """[bold]Examples[/]

moreie check train.jsonl valid.jsonl test.jsonl

moreie check train.txt valid.txt --images pictures/ --encoder xlm-roberta-base

moreie check recipe.yaml

moreie check posts.jsonl --json | jq '.findings[] | select(.level == "error")'
"""


def check(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Files of posts (JSONL, CoNLL with IMGID, MNRE, WikiDiverse), or one recipe (YAML)."),
    ],
    images: Annotated[Path | None, typer.Option(help="Folder of the posts' pictures, named by image id.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Hub id or folder of the encoder that is to read the posts \\[default: the shipped one]."),
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="With a recipe: train on a few batches to estimate the time it takes.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is wrong with data or a recipe: exit status 1 if something would end training or lose data."""
    with clear_errors():
        from moreie.checking.run import check_files, check_recipe
        from moreie.errors import MoreieError
        from moreie.rendering.progress import tracked

        recipes = [path for path in paths if path.suffix in RECIPES]
        if recipes and (len(paths) > 1 or images or encoder):
            raise MoreieError("a recipe is checked by itself: it names its files, pictures and encoder")
        if recipes:
            report = check_recipe(recipes[0], each=tracked, measure=measure)
        else:
            from moreie.encoders.text import TextEncoder
            from moreie.shipped import TEXT_ENCODER

            loaded = TextEncoder.from_pretrained(encoder or TEXT_ENCODER)
            report = check_files(paths, images=images, encoder=loaded, each=tracked)
    if json:
        typer.echo(json_module.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    else:
        _print(report)
    if report.failed:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(padding=0)
    for heading in ("file", "posts", "published", "words", "mentions", "relations", "pictures", "bad lines"):
        table.add_column(heading, overflow="fold", no_wrap=heading not in ("file", "mentions", "relations"))
    for file in report.files:
        row = file.to_dict()
        published = row["published"]
        table.add_row(
            escape(f"{file.split}: {file.path}" if file.split else str(file.path)),
            f"{row['posts']:,}",
            "" if published is None else f"{published:,} {'✓' if published == row['posts'] else '✗'}",
            f"{row['words']:,}",
            escape(_summary(row["mentions"])),
            escape(_summary(row["relations"])),
            f"{row['pictures']:,}",
            f"{row['bad_lines']:,}",
        )
    out.print(table)
    for finding in report.sorted_findings:
        _print_finding(finding)
    counts = {level: sum(f.level == level for f in report.findings) for level in COLOURS}
    out.print(", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items()))
    if report.costs:
        _print_costs(report)


def _print_finding(finding: Finding) -> None:
    out = console()
    out.print(f"\n[{COLOURS[finding.level]}]{finding.level}[/] {finding.kind}:", end=" ", soft_wrap=True)
    out.print(f"{finding.where}: {finding.said}", markup=False, soft_wrap=True)
    for example in finding.examples:
        out.print(f"    {example}", markup=False, soft_wrap=True)
    if finding.count > len(finding.examples) > 0:
        out.print(f"    … {finding.count:,} in all", style="dim")
    if finding.remedy:
        out.print(f"  → {finding.remedy}", markup=False, soft_wrap=True)


def _print_costs(report: Report) -> None:
    from rich.table import Table

    table = Table(title="what training takes, each seed", title_justify="left")
    for heading in ("expert", "epochs", "sub-tokens an epoch", "longest input", "passages without room", "time"):
        table.add_column(heading, justify="left" if heading == "expert" else "right")
    for cost in report.costs:
        counted = (cost.epochs, cost.tokens, cost.longest, cost.dropped)
        table.add_row(cost.expert, *(f"{n:,}" for n in counted), _duration(cost.seconds))
    out = console()
    out.print()
    out.print(table)
    if all(c.seconds is not None for c in report.costs):
        total = report.runs * sum(c.seconds or 0.0 for c in report.costs)
        out.print(
            f"in all about {_duration(total)} on this machine, for {report.runs} run(s) of each expert (seeds and "
            "folds); without the gate, and less where training stops early"
        )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _summary(counts: dict[str, int]) -> str:
    listed = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {count:,}" for name, count in listed[:5])
    return shown + (f", {len(listed) - 5} more" if len(listed) > 5 else "")
