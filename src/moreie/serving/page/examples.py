"""Examples of the page: the posts of the demo, with what is to be said of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from moreie.datasets import read_jsonl
from moreie.shipped import DEMO_NOTES, DEMO_POSTS


@dataclass(frozen=True, slots=True)
class Example:
    """A post to try; `note`: where it comes from and what it shows; `picture`: its photograph's file."""

    id: str
    text: str
    note: str
    picture: Path | None

    def to_dict(self) -> dict[str, str | None]:
        """Its JSON form; the picture as an address of the service."""
        address = f"/page/examples/{self.picture.name}" if self.picture else None
        return {"id": self.id, "text": self.text, "note": self.note, "picture": address}


def examples() -> list[Example]:
    """The posts that ship, in their order."""
    notes: dict[str, str] = json.loads(DEMO_NOTES.read_text())
    return [Example(post.id, post.text, notes.get(post.id, ""), post.image) for post in read_jsonl(DEMO_POSTS)]
