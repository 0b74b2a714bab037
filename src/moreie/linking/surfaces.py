"""Under which names a mention is looked up."""

from __future__ import annotations

import regex

from moreie.knowledge.names import normal_name
from moreie.retrieval.query import split_case

_SIGNS = regex.compile(r"^[#@\s]+")
_POSSESSIVE = regex.compile(r"\s?['’]s?$")
_THE = regex.compile(r"^the\s+", regex.IGNORECASE)


def surface_names(surface: str) -> tuple[str, ...]:
    """Normal forms (`knowledge.names`) of a mention's text, the likeliest first: as it is written, without a final
    `'s`, without a leading `the`, and a hashtag's or handle's words apart (`#KawhiLeonard` → kawhi leonard). Empty
    where it holds no letter or digit."""
    bare = _SIGNS.sub("", surface).replace("_", " ").strip()
    owner = _POSSESSIVE.sub("", bare)
    apart = [" ".join(split_case(form)) for form in (bare, owner) if form and " " not in form]
    written = [bare, owner, _THE.sub("", owner), *apart]
    return tuple(name for name in dict.fromkeys(map(normal_name, written)) if name)
