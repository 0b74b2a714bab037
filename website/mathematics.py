"""Formulas as MathML, made when the site is built: they are shown without scripts, fonts or a network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **_: Any) -> str:
    return FORMULA.sub(lambda found: mathml(html.unescape(found["tex"]), found["open"] == "["), content)


def mathml(tex: str, display: bool) -> str:
    """A formula in LaTeX as a MathML element; `display`: on a line of its own."""
    made = convert(tex.strip(), display="block" if display else "inline")
    return f'<div class="formula">{made}</div>' if display else made
