"""Pictures: not there, unreadable, too large."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from moreie.checking.findings import EXAMPLES, CheckedFile, Finding
from moreie.encoders.images import load_image
from moreie.errors import ImageError
from moreie.rendering.progress import Each


def picture_findings(file: CheckedFile, folder: Path | None, each: Each[Path]) -> Iterator[Finding]:
    """Every picture is opened as an extractor would open it; `folder`: where pictures named by id are sought."""
    pictures: dict[Path, str] = {}
    for post in file.posts:
        if post.image is not None:
            pictures.setdefault(post.image, post.id)
    bad: dict[str, list[str]] = defaultdict(list)
    for path in each(list(pictures), f"pictures of {file.path.name}"):
        try:
            load_image(path)
        except ImageError as problem:
            kind = "missing-pictures" if not path.exists() else "unreadable-pictures"
            bad[kind].append(f"{pictures[path]}: {problem}")
    said = {
        "missing-pictures": "pictures that posts name and that are not there",
        "unreadable-pictures": "pictures that cannot be read (damaged, no picture, or too large)",
    }
    for kind, examples in sorted(bad.items()):
        yield Finding(
            "warning",
            kind,
            file.where,
            f"{said[kind]}, so that their posts are read without one: {len(examples):,} of {len(pictures):,}",
            len(examples),
            tuple(examples[:EXAMPLES]),
            "put them there, or take them out of the posts",
        )
    lost = [p.image_id for p in file.posts if p.image is None and p.image_id]
    if folder is not None and lost:
        yield Finding(
            "warning",
            "missing-pictures",
            file.where,
            f"{len(lost):,} posts have no picture of their id in {folder}",
            len(lost),
            tuple(lost[:EXAMPLES]),
        )
    none = sum(p.image is None and not p.image_id for p in file.posts)
    if 0 < none < len(file.posts):
        yield Finding("note", "no-picture", file.where, f"{none:,} of {len(file.posts):,} posts have no picture", none)
