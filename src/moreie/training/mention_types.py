"""Types for mentions that a data set gives without them (MNRE), from a trained NER model.

Never from the gold relation: a name like `/per/org/member_of` says the types, and markers that repeated them would tell
an expert the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from moreie.encoders.precision import default_device
from moreie.errors import CheckpointError
from moreie.models.expert import CONFIG_FILE, EncoderPool, load_expert, read_config, weights_fingerprint
from moreie.models.mixture import MIXTURE_FILE, read_spec
from moreie.models.ner import NerExpert
from moreie.models.span_types import with_types
from moreie.schema import Post


def typing_expert(folder: Path) -> Path:
    """The folder of the NER expert that gives the types: of a mixture the first one that reads no evidence.

    Raises:
        CheckpointError: `folder` is neither a mixture nor an expert, or has no such expert.
    """
    if (folder / MIXTURE_FILE).is_file():
        experts = [folder / name for name in read_spec(folder).experts]
    elif (folder / CONFIG_FILE).is_file():
        experts = [folder]
    else:
        raise CheckpointError(
            f"{folder}: no {MIXTURE_FILE} and no {CONFIG_FILE}, so no NER model that could give types; name the folder "
            "of a mixture or of an expert (of a whole model its `ner`)"
        )
    for expert in experts:
        spec = read_config(expert)
        if spec.task == "ner" and spec.view.retriever is None:
            return expert
    raise CheckpointError(f"{folder}: no NER expert that reads no evidence; types are given by such a one")


def typed_posts(folder: Path, posts: Sequence[Post], limit: int) -> tuple[Post, ...]:
    """The posts with a type for each mention without one (see `models.span_types`); kept for the life of the process.

    Raises:
        CheckpointError: no NER expert without evidence under `folder`, or a damaged one.
    """
    expert = typing_expert(folder)
    return _typed_posts(expert, weights_fingerprint(expert), tuple(posts), limit)


# Training, evaluation and costs load the same three splits.
@lru_cache(maxsize=4)
def _typed_posts(folder: Path, fingerprint: str, posts: tuple[Post, ...], limit: int) -> tuple[Post, ...]:
    return tuple(with_types(load_expert(NerExpert, folder, EncoderPool(default_device())), posts, limit))


def types_given(before: Sequence[Post], after: Sequence[Post]) -> str:
    """How many mentions got a type, and which: "3 of 4 mentions without a type got one: PER 2, LOC 1"."""
    pairs = [
        (a.type, b.type)
        for old, new in zip(before, after, strict=True)
        for a, b in zip(old.mentions or (), new.mentions or (), strict=True)
    ]
    given = Counter(b for a, b in pairs if a is None and b is not None)
    listed = ", ".join(f"{type} {count:,}" for type, count in given.most_common())
    without = sum(a is None for a, _ in pairs)
    return f"{given.total():,} of {without:,} mentions without a type got one" + (f": {listed}" if listed else "")
