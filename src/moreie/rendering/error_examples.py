"""Examples of errors as one HTML page, everything a user wrote escaped."""

from __future__ import annotations

from collections.abc import Sequence

from moreie.evaluation.analysis.examples import ErrorExample
from moreie.rendering.pages import rendered


def errors_page(examples: Sequence[ErrorExample], *, title: str) -> str:
    """The page's HTML, categories one after the other."""
    return rendered("error_examples.html.j2", title=title, examples=list(examples))
