"""`moreie data …`: look at data files before hours of work depend on them."""

from __future__ import annotations

import typer

from moreie.cli import check

app = typer.Typer(help="Check data files.", no_args_is_help=True)
# The same command under its older name.
app.command("check", epilog=check.EXAMPLES)(check.check)
