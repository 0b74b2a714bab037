"""What is in a user's data: splits, labels, pictures, captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moreie.datasets import read_posts
from moreie.errors import MoreieError
from moreie.schema import Post
from moreie.training.data import Split, hold_out

Task = Literal["ner", "re"]
SplitName = Literal["train", "validation", "test"]
# Share of the posts that have a picture or a caption from which an expert of its own is worth its training.
WORTHWHILE = 0.1
# Share kept for validation where none is given: of few posts more, lest chance decide.
FEW, SHARE_OF_FEW, SHARE = 1000, 0.2, 0.1
LEAST = 2


@dataclass(frozen=True)
class Survey:
    """The posts of each split, the file each came from, and what can be learnt from them.

    `split_off`: the validation posts were taken from the training file. `labels`: by task how often each occurs in the
    training posts.
    """

    posts: Mapping[SplitName, tuple[Post, ...]]
    files: Mapping[SplitName, Path]
    split_off: bool
    labels: Mapping[Task, Counter[str]]

    @property
    def has_pictures(self) -> bool:
        return self._share("image") >= WORTHWHILE

    @property
    def has_captions(self) -> bool:
        """Enough of them, and some in each split: an expert is trained on one, chosen and weighed on another."""
        everywhere = all(any(p.caption for p in own) for own in self.posts.values())
        return everywhere and self._share("caption") >= WORTHWHILE

    def count(self, what: Literal["image", "caption"]) -> int:
        """Posts of all splits with a picture that is there, or with a caption."""
        posts = [p for own in self.posts.values() for p in own]
        if what == "image":
            return sum(p.image is not None and p.image.is_file() for p in posts)
        return sum(bool(p.caption) for p in posts)

    def _share(self, what: Literal["image", "caption"]) -> float:
        return self.count(what) / max(1, sum(map(len, self.posts.values())))


def survey(
    data: Path,
    validation: Path | None = None,
    test: Path | None = None,
    *,
    task: Task | None = None,
    images: Path | None = None,
) -> Survey:
    """Read a user's files. Without `validation` some posts of `data` are taken: always the same ones, by their text,
    and posts of one text go to one side.

    Raises:
        DataFormatError: a malformed line.
        MoreieError: nothing to learn, or too little to take validation posts from.
    """
    named: dict[SplitName, Path | None] = {"train": data, "validation": validation, "test": test}
    files: dict[SplitName, Path] = {split: path for split, path in named.items() if path is not None}
    posts: dict[SplitName, tuple[Post, ...]] = {s: tuple(read_posts(p, images=images)) for s, p in files.items()}
    if validation is None:
        share = SHARE_OF_FEW if len(posts["train"]) < FEW else SHARE
        rest, held = hold_out(Split(posts["train"], {}), share)
        if min(len(rest.posts), len(held.posts)) < LEAST:
            raise MoreieError(
                f"{data}: {len(posts['train']):,} posts are too few to keep some for validation; give them with "
                "--validation"
            )
        posts = {"train": rest.posts, "validation": held.posts, **({"test": posts["test"]} if test else {})}
        files["validation"] = data
    labels = {t: own for t in _tasks(task) if (own := _labels(posts["train"], t))}
    if not labels:
        wanted = {"ner": "typed mentions", "re": "relations"}
        what = wanted[task] if task else "typed mentions or relations"
        raise MoreieError(f"{data}: no post has {what}, so there is nothing to learn; see docs/data-formats.md")
    return Survey(posts, files, validation is None, labels)


def _tasks(task: Task | None) -> tuple[Task, ...]:
    return ("ner", "re") if task is None else (task,)


def _labels(posts: Sequence[Post], task: Task) -> Counter[str]:
    if task == "ner":
        return Counter(m.type for p in posts for m in p.mentions or () if m.type)
    return Counter(r.type for p in posts for r in p.relations or ())
