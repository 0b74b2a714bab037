"""`moreie doctor`: does everything work here, and if not, what is to be done?"""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from typing import Annotated

import typer

from moreie.cli.console import clear_errors, console

EXAMPLES = """[bold]Examples[/]

moreie doctor

moreie doctor --corpus milvus://localhost:19530/wiki

moreie doctor --json > environment.json
"""
SHOWN = {"well": "[green]✓[/]", "absent": "[yellow]–[/]", "broken": "[bold red]✗[/]"}


def doctor(
    corpus: Annotated[str | None, typer.Option(help="A corpus of yours to try too: folder or URI.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try every part of the installation: exit status 1 if something that is needed is broken."""
    with clear_errors():
        from rich.markup import escape
        from rich.table import Table

        from moreie.environment import parts

        found = list(parts(corpus))
        if json:
            rows = [asdict(part) for part in found]
            typer.echo(json_module.dumps(rows, ensure_ascii=False, indent=2))
        else:
            table = Table(show_header=False, box=None, padding=(0, 1))
            for _ in range(3):
                table.add_column(overflow="fold")
            for part in found:
                table.add_row(SHOWN[part.state], escape(part.name), escape(part.said))
                if part.remedy:
                    table.add_row("", "", f"→ {escape(part.remedy)}")
            console().print(table)
        if any(part.state == "broken" for part in found):
            raise typer.Exit(1)
