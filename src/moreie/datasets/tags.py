"""Tag sequences (BIO, BIOES) ↔ mentions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moreie.errors import MoreieError
from moreie.schema import Mention

PREFIXES = frozenset("BIES")


def spans_from_tags(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """(type, first, last) of each mention, as `seqeval` reads tags by default: an `I-` with nothing before it starts
    a mention, so noisy annotation loses none.

    Raises:
        MoreieError: a tag that is neither `O` nor one of B-, I-, E-, S- with a type.
    """
    spans: list[tuple[str, int, int]] = []
    start, current, previous = 0, "", "O"
    for position, tag in enumerate([*tags, "O"]):
        prefix, _, type = tag.partition("-")
        if tag != "O" and (prefix not in PREFIXES or not type):
            raise MoreieError(f"tag {tag!r} is not O or one of B-, I-, E-, S- with a type")
        ended = previous != "O" and (previous in "ES" or prefix in ("B", "S", "O") or type != current)
        # conlleval also ends a chunk where E or S is followed by anything, and starts one behind E, S or O.
        if ended:
            spans.append((current, start, position - 1))
        if tag != "O" and (ended or previous == "O"):
            start = position
        previous, current = prefix, type
    return spans


def bio_tags(mentions: Iterable[Mention], words: int) -> list[str]:
    """BIO tags of `words` words; mentions must be typed and must not overlap."""
    tags = ["O"] * words
    for mention in mentions:
        if any(tag != "O" for tag in tags[mention.first : mention.last + 1]):
            raise MoreieError(f"mentions overlap at word {mention.first}")
        tags[mention.first] = f"B-{mention.type}"
        tags[mention.first + 1 : mention.last + 1] = [f"I-{mention.type}"] * (mention.last - mention.first)
    return tags
