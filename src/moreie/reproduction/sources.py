"""The data sets of the paper: where their files come from, and what is missing of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moreie.datasets import read_posts, read_relation_labels
from moreie.datasets.published import published_count
from moreie.errors import DataFormatError, MoreieError
from moreie.training.recipe import Recipe

# Where each data set of the paper is to be had.
SOURCES = {
    "twitter2015": "Twitter-2015 (Zhang et al., 2018): the usual releases of multimodal NER work (UMT, HVPNeT)",
    "twitter2017": "Twitter-2017 (Lu et al., 2018): the usual releases of multimodal NER work (UMT, HVPNeT)",
    "mnre": "MNRE (Zheng et al., 2021): the authors' release",
    "snap": "SNAP (Lu et al., 2018): the authors' release",
    "wikidiverse": "WikiDiverse (Wang et al., 2022): the authors' release",
}


@dataclass(frozen=True, slots=True)
class Needed:
    """A file or folder that a recipe reads, and what it is; `optional`: the rest can be done without it."""

    path: Path
    what: str
    optional: bool = False


def missing_files(recipe: Recipe) -> list[Needed]:
    """What has to be put in place by hand: posts, labels, and what evidence files that are not there are made of.

    Only the test split may be left out.
    """
    needed = [Needed(recipe.data.labels, "the relation labels")] if recipe.data.labels else []
    modes = {name: s.mode for name, s in recipe.retrieval.evidence.items()} if recipe.retrieval else {}
    attached = recipe.retrieval.attached if recipe.retrieval else {}
    for split, files in recipe.splits.items():
        count = published_count(files.posts)
        what = f"{split} posts" + (f", {count:,} published" if count else "")
        if split == "test" and not files.posts.exists():
            needed.append(Needed(files.posts, f"{what} (may be left out)", optional=True))
            continue
        needed.append(Needed(files.posts, what))
        unmade = {modes.get(name) for name, path in files.evidence.items() if not path.is_file()}
        if files.captions:
            needed.append(Needed(files.captions, f"captions of the pictures, field {files.caption_field!r}"))
        for name, path in files.evidence.items():
            if name in attached and split in attached[name].texts and not path.is_file():
                needed.append(Needed(attached[name].texts[split], f"the {name} of its posts"))
        if files.images and ("pictures" in unmade or recipe.gate.reads_pictures):
            needed.append(Needed(files.images, "folder of the posts' pictures"))
    return [n for n in dict.fromkeys(needed) if not n.path.exists()]


def explain_missing(dataset: str, data: Path, missing: Sequence[Needed]) -> str:
    """What to put where, and where from."""
    lines = [f"{dataset}: {len(missing)} of its files are not there. Put"]
    lines += [f"  {n.path}    {n.what}" for n in missing]
    lines.append(f"From: {SOURCES[dataset]}." if dataset in SOURCES else "")
    lines.append(f"Another folder than {data} is named with --data.")
    return "\n".join(line for line in lines if line)


def check_posts(recipe: Recipe, *, any_size: bool = False) -> dict[str, int]:
    """Posts of each split, every line read.

    Raises:
        DataFormatError: a malformed line; a number of posts other than the published one, unless `any_size`.
    """
    labels = read_relation_labels(recipe.data.labels) if recipe.data.labels else None
    counts = {}
    for split, files in recipe.splits.items():
        counts[split] = len(read_posts(files.posts, labels=labels))
        published = published_count(files.posts)
        if not any_size and published not in (None, counts[split]):
            raise DataFormatError(
                f"{counts[split]:,} posts, {published:,} are published; --any-size goes on all the same", files.posts
            )
    if not all(counts.values()):
        raise MoreieError(f"a split without posts: {counts}")
    return counts
