"""Pictures for posts of which only the texts are at hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from moreie.datasets import read_jsonl
from moreie.schema import Post
from moreie.shipped import DEMO_POSTS


def with_pictures(posts: Iterable[Post], folder: Path) -> list[Post]:
    """Each with a picture of its own: the demo's in turns, a narrow strip cut off, since a file is read once for all
    posts that have it."""
    demo = itertools.cycle([Path(p.image) for p in read_jsonl(DEMO_POSTS) if p.image])
    found = []
    for number, (post, path) in enumerate(zip(posts, demo, strict=False)):
        with Image.open(path) as picture:
            width, height = picture.size
            strip = picture.convert("RGB").crop((0, 0, width - 1 - number % (width // 4), height))
        strip.save(own := folder / f"{number}.jpg", quality=90)
        found.append(replace(post, image=own))
    return found
