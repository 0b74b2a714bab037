"""The typer application."""

from __future__ import annotations

from moreie.cli import (
    analyse,
    attach,
    check,
    corpus,
    data,
    doctor,
    experiment,
    init,
    reproduce,
    retrieve,
    serve,
    significance,
)
from moreie.cli.short import add_short_commands, new_app

app = new_app()
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
add_short_commands(app)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.command("serve", epilog=serve.EXAMPLES)(serve.serve)
