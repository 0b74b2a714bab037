"""The typer application."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from moreie.cli import (
    analyse,
    attach,
    check,
    corpus,
    data,
    doctor,
    experiment,
    extract,
    init,
    reproduce,
    retrieve,
    serve,
    significance,
)

app = typer.Typer(
    name="moreie",
    help="Named entities and relations in posts that carry a picture, found with retrieved evidence.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(corpus.app, name="corpus")
app.add_typer(data.app, name="data")
app.command("init", epilog=init.EXAMPLES)(init.init)
app.command("check", epilog=check.EXAMPLES)(check.check)
app.command("retrieve", epilog=retrieve.EXAMPLES)(retrieve.retrieve)
app.command("attach", epilog=attach.EXAMPLES)(attach.attach)
app.command("evidence", epilog=retrieve.EVIDENCE_EXAMPLES)(retrieve.evidence)
app.command("train", epilog=experiment.TRAIN_EXAMPLES)(experiment.train)
app.command("evaluate", epilog=experiment.EVALUATE_EXAMPLES)(experiment.evaluate)
app.command("calibrate", epilog=experiment.CALIBRATE_EXAMPLES)(experiment.calibrate)
app.command("analyse", epilog=analyse.EXAMPLES)(analyse.analyse)
app.command("reproduce", epilog=reproduce.EXAMPLES)(reproduce.reproduce)
app.command("recompute", epilog=experiment.RECOMPUTE_EXAMPLES)(experiment.recompute)
app.command("significance", epilog=significance.EXAMPLES)(significance.significance)
app.command("report", epilog=experiment.REPORT_EXAMPLES)(experiment.report)
app.command("extract", epilog=extract.EXAMPLES)(extract.extract)
app.command("demo", epilog=extract.DEMO_EXAMPLES)(extract.demo)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.command("serve", epilog=serve.EXAMPLES)(serve.serve)

# Commands of seconds, which have written all there is to write when they return.
SHORT = (["extract"], ["demo"])


def run() -> None:
    """The command line as a process of its own.

    Python takes apart a million objects before it ends, a sixth of a short command's time; they go with the process.
    """
    try:
        app()
    except SystemExit as end:
        if sys.argv[1:2] not in SHORT or not isinstance(end.code, int | None):
            raise
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # nobody reads any more: Python says so in its own way
            raise end from None
        logging.shutdown()
        os._exit(end.code or 0)


def _version(wanted: bool) -> None:
    if wanted:
        from moreie import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
