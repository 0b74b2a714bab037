"""Log lines as JSON or plain text. None holds a text that a client sent: of an error its type and place are said."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import datetime, timezone
from typing import Literal

LogFormat = Literal["json", "text"]
ACCESS = logging.getLogger("moreie.serving.access")
_FIELDS = ("method", "route", "status", "ms", "request_id", "error", "at")


def error_fields(problem: BaseException) -> dict[str, object]:
    """Type and place of an error. Its message may quote what a client sent, so it is left out."""
    while isinstance(inner := getattr(problem, "exceptions", (None,))[0], BaseException):
        problem = inner
    frames = traceback.extract_tb(problem.__traceback__)[-5:]
    places = [f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": type(problem).__name__, "at": places}


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        row |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[1]:
            row |= error_fields(record.exc_info[1])
        return json.dumps(row, ensure_ascii=False)


class PlainLines(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        said = " ".join(f"{name}={getattr(record, name)}" for name in _FIELDS if hasattr(record, name))
        if record.exc_info and record.exc_info[1]:
            said += " ".join(f"{name}={value}" for name, value in error_fields(record.exc_info[1]).items())
        time = datetime.fromtimestamp(record.created, timezone.utc).strftime("%H:%M:%S")
        return f"{time} {record.levelname.lower()} {record.getMessage()} {said}".rstrip()


def log_to_stderr(format: LogFormat) -> None:
    """Send what the service and its server say to stderr, in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if format == "json" else PlainLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("moreie", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
