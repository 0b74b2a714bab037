"""Examples of errors as one HTML page, everything a user wrote escaped."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from moreie.evaluation.analysis.examples import ErrorExample


def errors_page(examples: Sequence[ErrorExample], *, title: str) -> str:
    """The page's HTML, categories one after the other."""
    environment = Environment(
        loader=PackageLoader("moreie.rendering"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("errors.html.j2").render(title=title, examples=list(examples))
