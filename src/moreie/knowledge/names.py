"""Normal forms under which articles are found by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import regex

_PARENTHESIS = regex.compile(r"\s*\([^()]*\)\s*$")
_BETWEEN_WORDS = regex.compile(r"[^\p{L}\p{N}]+")


def normal_name(name: str) -> str:
    """Words in lower case without accents and punctuation, one space between them: `Beyoncé!` → `beyonce`."""
    folded = name.casefold() if name.isascii() else _bare(_bare(name).casefold())
    return _BETWEEN_WORDS.sub(" ", folded).strip()


def _bare(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def title_names(title: str) -> tuple[str, ...]:
    """Normal forms of a title: without what it says in a last parenthesis, and that written as one word, as a hashtag
    or a handle writes it. `Mercury (planet)` → mercury; `Kawhi Leonard` → kawhi leonard, kawhileonard."""
    name = normal_name(_PARENTHESIS.sub("", title)) or normal_name(title)
    if not name:
        return ()
    return (name, name.replace(" ", "")) if " " in name else (name,)


def distinct_names(names: Iterable[str]) -> tuple[str, ...]:
    """Normal forms in order, without those that `title_names` makes of another one of them."""
    known = set(names)
    return tuple(sorted(known - {name.replace(" ", "") for name in known if " " in name}))
