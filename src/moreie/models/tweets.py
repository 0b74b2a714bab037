"""Words of tweets made plain, for encoders that were trained on other text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from moreie.retrieval.query import split_case

_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)


def plain_words(words: Sequence[str]) -> list[str]:
    """URLs as `http`; hashtags and handles, their sign apart or not, as the words they are made of; the rest as it is.

    Example:
        >>> plain_words(["RT", "@KingJames", ":", "#", "WorldCup2014", "https://t.co/x"])
        ['RT', '@ King James', ':', '#', 'World Cup 2014', 'http']
    """
    plain = []
    for before, word in zip(["", *words], words, strict=False):
        sign, name = (word[0], word[1:]) if len(word) > 1 and word[0] in "@#" else ("", word)
        if sign or before in ("@", "#"):
            plain.append(" ".join([sign, *split_case(name.replace("_", " "))]).strip() if name.strip("_") else word)
        else:
            plain.append(_URL.sub("http", word))
    return plain
