"""The command line as a process of its own: `moreie`, `python -m moreie`."""

from __future__ import annotations

import logging
import os
import sys

from moreie.starting import uncollected


def run() -> None:
    """Do what the arguments say.

    Commands of seconds have written all there is to write when they return: Python would take apart a million objects
    before it ends, a sixth of their time, which go with the process.
    """
    with uncollected():
        from moreie.cli.short import SHORT, short_app

        short = any(sys.argv[1:2] == [name] for name in SHORT)
        if short:
            app = short_app()
        else:
            from moreie.cli.app import app
    try:
        app()
    except SystemExit as end:
        if not short or not isinstance(end.code, int | None):
            raise
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # nobody reads any more: Python says so in its own way
            raise end from None
        logging.shutdown()
        os._exit(end.code or 0)


if __name__ == "__main__":
    run()
