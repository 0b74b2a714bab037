"""The commands of seconds, by themselves: to import and describe all others takes a twentieth of their time."""

from __future__ import annotations

from typing import Annotated

import typer

from moreie.cli import extract

SHORT = ("extract", "demo")


def _version(wanted: bool) -> None:
    if wanted:
        from moreie import __version__

        typer.echo(__version__)
        raise typer.Exit


def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def new_app() -> typer.Typer:
    """The application without any command."""
    app = typer.Typer(
        name="moreie",
        help="Named entities and relations in posts that carry a picture, found with retrieved evidence.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    return app


def add_short_commands(app: typer.Typer) -> None:
    """Add those named in `SHORT`."""
    app.command("extract", epilog=extract.EXAMPLES)(extract.extract)
    app.command("demo", epilog=extract.DEMO_EXAMPLES)(extract.demo)


def short_app() -> typer.Typer:
    """The application with these commands alone."""
    app = new_app()
    add_short_commands(app)
    return app
