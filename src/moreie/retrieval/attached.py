"""Evidence that is not retrieved: a text that belongs to the post, such as the caption of its picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from moreie.retrieval.retrieved import ranked
from moreie.schema import Evidence, Passage


def attached_evidence(texts: Sequence[str], name: str, title: str = "") -> list[tuple[Evidence, ...]]:
    """One row a text: the text as the only passage, found by a retriever called `name`; no passage where it is "".

    `title` is what experts read before each text.
    """
    return [ranked([(_passage(text, name, title), 1.0)], name) if text else () for text in texts]


def _passage(text: str, name: str, title: str) -> Passage:
    # The id is made of the content: posts of several files may share an id, and an expert tokenizes an id once.
    digest = hashlib.sha256(f"{title}\0{text}".encode()).hexdigest()[:16]
    id = f"{name}:{digest}"
    return Passage(id, id, title, text, True)
