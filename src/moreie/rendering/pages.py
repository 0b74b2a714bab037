"""Templates of this folder filled in, everything in them escaped."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def rendered(template: str, **values: object) -> str:
    """The HTML of a template in `templates/`; a value that it asks for and does not get is an error."""
    environment = Environment(
        loader=PackageLoader("moreie.rendering"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(values)
