"""Posts as Hugging Face data sets (`datasets`), and data sets as posts.

>>> from moreie.integrations.huggingface import load_splits                               # doctest: +SKIP
>>> load_splits({"train": "twitter2017/train.txt", "validation": "twitter2017/valid.txt"})  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
from moreie.datasets import post_from_words, read_captions, read_posts
from moreie.datasets.tags import bio_tags, spans_from_tags
from moreie.errors import MoreieError
from moreie.schema import Mention, Post, Relation, Word

FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "text": datasets.Value("string"),
        "words": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.Value("string")),
        "mentions": datasets.List(
            {"first": datasets.Value("int32"), "last": datasets.Value("int32"), "type": datasets.Value("string")}
        ),
        "relations": datasets.List(
            {"head": datasets.Value("int32"), "tail": datasets.Value("int32"), "type": datasets.Value("string")}
        ),
        "image": datasets.Value("string"),
        "image_id": datasets.Value("string"),
        "caption": datasets.Value("string"),
    }
)


def load_splits(
    files: Mapping[str, str | Path],
    *,
    images: str | Path | None = None,
    captions: str | Path | None = None,
    caption_field: str = "caption",
) -> datasets.DatasetDict:
    """Files in any format that `read_posts` knows, as the splits of a data set.

    Raises:
        DataFormatError: no known format, or a malformed line.
    """
    texts = read_captions(Path(captions), caption_field) if captions else None
    folder = Path(images) if images else None
    return datasets.DatasetDict(
        {split: as_dataset(read_posts(Path(path), images=folder, captions=texts)) for split, path in files.items()}
    )


def as_dataset(posts: Sequence[Post]) -> datasets.Dataset:
    """A data set with a row a post (`FEATURES`). `ner_tags` are BIO; empty where a mention has no type."""
    return datasets.Dataset.from_list([_row(post) for post in posts], features=FEATURES)


def as_posts(rows: datasets.Dataset) -> Iterator[Post]:
    """Posts of a data set with at least `words` (or `tokens`); `mentions`, else string `ner_tags`, are their gold.

    Class labels are taken by their names, so that data sets such as CoNLL-2003 can be read.

    Raises:
        MoreieError: neither words nor tokens, or tags that are no tags.
    """
    words = next((name for name in ("words", "tokens") if name in rows.column_names), None)
    if words is None:
        raise MoreieError(f"the data set has neither words nor tokens, but {', '.join(rows.column_names)}")
    names = _tag_names(rows)
    for number, row in enumerate(rows):
        post = post_from_words(
            row[words],
            id=str(row.get("id") or number),
            image=Path(row["image"]) if isinstance(row.get("image"), str) else None,
            image_id=row.get("image_id"),
            caption=row.get("caption"),
        )
        post = _placed(post, row.get("text"))
        mentions, relations = _gold(post, row, names)
        yield replace(post, mentions=mentions, relations=relations)


def _placed(post: Post, text: str | None) -> Post:
    """The post over the text that its words were split from, where that is given and they stand in it."""
    if not text:
        return post
    placed, position = [], 0
    for word in post.words:
        start = text.find(word.text, position)
        if start < 0:
            return post
        position = start + len(word.text)
        placed.append(Word(word.text, start, position))
    return replace(post, text=text, words=tuple(placed))


def _gold(
    post: Post, row: Mapping[str, Any], names: Sequence[str] | None
) -> tuple[tuple[Mention, ...] | None, tuple[Relation, ...] | None]:
    if row.get("mentions") is not None:
        mentions = tuple(post.mention(m["type"], m["first"], m["last"]) for m in row["mentions"])
        given = row.get("relations")
        relations = None if given is None else tuple(Relation(r["head"], r["tail"], r["type"]) for r in given)
        return mentions, relations
    if row.get("ner_tags") is None:
        return None, None
    tags = [names[tag] if names else tag for tag in row["ner_tags"]]
    return tuple(post.mention(*span) for span in spans_from_tags(tags)), None


def _tag_names(rows: datasets.Dataset) -> list[str] | None:
    feature = rows.features.get("ner_tags")
    inner = getattr(feature, "feature", None)
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else None


def _row(post: Post) -> dict[str, Any]:
    mentions = post.mentions
    typed = mentions is not None and all(m.type for m in mentions)
    return {
        "id": post.id,
        "text": post.text,
        "words": [w.text for w in post.words],
        "ner_tags": bio_tags(mentions or (), len(post.words)) if typed else None,
        "mentions": None
        if mentions is None
        else [{"first": m.first, "last": m.last, "type": m.type} for m in mentions],
        "relations": None
        if post.relations is None
        else [{"head": r.head, "tail": r.tail, "type": r.type} for r in post.relations],
        "image": str(post.image) if post.image else None,
        "image_id": post.image_id,
        "caption": post.caption,
    }
