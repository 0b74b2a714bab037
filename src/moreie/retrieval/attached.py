"""Evidence that is not retrieved: a text that belongs to the post, such as the caption of its picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moreie.datasets.texts import Matched, match_texts, read_texts
from moreie.digests import file_digest
from moreie.errors import MoreieError
from moreie.retrieval.cache import EvidenceHeader, TextSource, posts_digest
from moreie.retrieval.retrieved import ranked
from moreie.schema import Evidence, Passage, Post


@dataclass(frozen=True)
class Attachment:
    """What an evidence file of attached texts holds, and which text went to which post."""

    header: EvidenceHeader
    rows: list[tuple[Evidence, ...]]
    matched: Matched


def attach_texts(
    posts: Sequence[Post], texts: Path, name: str, *, title: str = "", field: str | None = None
) -> Attachment:
    """Give posts the texts of a file (`datasets.texts`) as evidence of a retriever called `name`.

    Raises:
        DataFormatError: a malformed line of the file.
        MoreieError: none of its texts belongs to a post.
    """
    matched = match_file(posts, texts, field)
    header = EvidenceHeader(
        retriever=name,
        query=matched.key,
        k=1,
        posts=len(posts),
        digest=posts_digest(posts),
        source=TextSource(file=texts.name, digest=file_digest(texts), field=field, title=title),
    )
    return Attachment(header, attached_evidence(matched.texts, name, title), matched)


def match_file(posts: Sequence[Post], texts: Path, field: str | None = None) -> Matched:
    """Give posts the texts of a file (`datasets.texts`).

    Raises:
        DataFormatError: a malformed line of the file.
        MoreieError: none of its texts belongs to a post.
    """
    found = read_texts(texts, field)
    matched = match_texts(posts, found)
    if not any(matched.texts):
        raise MoreieError(
            f"{texts}: none of its {len(found):,} texts belongs to a post of the {len(posts):,}, "
            f"by {matched.key or 'text'}"
        )
    return matched


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
