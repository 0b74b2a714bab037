"""Benchmark files as Hugging Face data sets and back."""

from __future__ import annotations

from pathlib import Path

import pytest

import datasets
from moreie.datasets import read_posts
from moreie.errors import DataFormatError, MoreieError
from moreie.integrations.huggingface import FEATURES, as_dataset, as_posts, load_splits


@pytest.mark.parametrize(
    "file", ["twitter2017-sample.txt", "mnre-sample.txt", "posts.jsonl", "wikidiverse-sample.json"]
)
def test_posts_survive_the_way_there_and_back(data: Path, tmp_path: Path, file: str) -> None:
    posts = read_posts(data / file)
    as_dataset(posts).save_to_disk(tmp_path / "kept")
    back = list(as_posts(datasets.load_from_disk(tmp_path / "kept")))
    for post, other in zip(posts, back, strict=True):
        assert (other.id, other.text, other.words) == (post.id, post.text, post.words)
        assert (other.mentions, other.relations or None) == (post.mentions, post.relations or None)
        assert (other.image, other.image_id, other.caption) == (post.image, post.image_id, post.caption)


def test_splits_are_loaded_in_one_call(data: Path) -> None:
    loaded = load_splits({"train": data / "twitter2017-sample.txt", "validation": str(data / "snap-sample.txt")})
    assert set(loaded) == {"train", "validation"}
    assert loaded["train"].features == FEATURES
    row = loaded["train"][0]
    assert len(row["words"]) == len(row["ner_tags"])
    with pytest.raises(DataFormatError, match="no such file"):
        load_splits({"train": data / "nothing.txt"})


def test_data_sets_of_others_are_read(data: Path) -> None:
    labels = datasets.ClassLabel(names=["O", "B-PER", "I-PER"])
    rows = datasets.Dataset.from_dict(
        {"tokens": [["Taylor", "Swift", "sings"]], "ner_tags": [[1, 2, 0]]},
        features=datasets.Features(
            {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(labels)}
        ),
    )
    (post,) = as_posts(rows)
    assert [(m.type, post.surface(m)) for m in post.mentions or ()] == [("PER", "Taylor Swift")]
    with pytest.raises(MoreieError, match="neither words nor tokens, but sentence"):
        list(as_posts(datasets.Dataset.from_dict({"sentence": ["a"]})))
