"""Readers: genuine excerpts read right, every kind of damage named with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.datasets import (
    post_from_words,
    read_captions,
    read_conll,
    read_jsonl,
    read_mnre,
    read_posts,
    read_relation_labels,
    write_conll,
    write_jsonl,
    write_mnre,
)
from moreie.datasets.published import published_count
from moreie.errors import DataFormatError


def test_twitter_2017(data: Path) -> None:
    posts = read_posts(data / "twitter2017-sample.txt")
    assert read_posts(str(data / "twitter2017-sample.txt")) == posts
    assert len(posts) == 10
    fourth = posts[3]
    assert (fourth.id, fourth.image_id) == ("twitter2017-sample:4", "O_4784")
    found = [(fourth.surface(m), m.type) for m in fourth.mentions]
    assert found[:2] == [("Donald Trump", "PER"), ("CNN", "ORG")]


def test_paths_may_be_text(data: Path, tmp_path: Path) -> None:
    conll, relations = data / "twitter2017-sample.txt", data / "mnre-sample.txt"
    for read, file in ((read_conll, conll), (read_mnre, relations)):
        assert read(str(file), images=str(tmp_path)) == read(file, images=tmp_path)
    assert read_jsonl(str(data / "posts.jsonl")) == read_jsonl(data / "posts.jsonl")
    assert read_relation_labels(str(data / "rel2id.json")) == read_relation_labels(data / "rel2id.json")
    for write, read, file in (
        (write_conll, read_conll, conll),
        (write_jsonl, read_jsonl, conll),
        (write_mnre, read_mnre, relations),
    ):
        posts = read_posts(file)
        write(posts, str(tmp_path / "written"))
        assert [post.words for post in read(str(tmp_path / "written"))] == [post.words for post in posts]
    (tmp_path / "captions").write_text('{"image_id": "1", "caption": "a"}\n', encoding="utf-8")
    assert read_captions(str(tmp_path / "captions"), "caption") == {"1": "a"}
    with pytest.raises(DataFormatError, match="no such file"):
        read_conll(str(tmp_path / "none"))


def test_snap(data: Path) -> None:
    posts = read_posts(data / "snap-sample.txt")
    assert [p.image_id for p in posts] == ["O_1926", "16_05_01_367", "17_06_4821", "O_77"]
    found = [[(p.surface(m), m.type) for m in p.mentions] for p in posts]
    assert found[0] == [("Golden Gate Bridge", "LOC"), ("Emma", "PER")]
    assert found[2] == []
    assert posts[1].words[6].text == " ", "a word that is a lone space keeps its place"


def test_mnre(data: Path) -> None:
    labels = read_relation_labels(data / "rel2id.json")
    assert len(labels) == 23
    assert labels[0] == "None"
    posts = read_posts(data / "mnre-sample.txt", labels=labels)
    assert len(posts) == 12
    head, tail = posts[0].mentions
    assert (posts[0].surface(head), posts[0].surface(tail)) == ("UN", "Libya")
    assert posts[0].relations[0].type == "None"


def test_images_and_captions_are_joined_by_image_id(data: Path, tmp_path: Path) -> None:
    ids = [p.image_id for p in read_conll(data / "twitter2017-sample.txt")]
    (tmp_path / f"{ids[0]}.jpg").write_bytes(b"not read here")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"image_id": ids[1], "caption": "a stage"}) + "\n")
    captions = read_captions(tmp_path / "captions.jsonl", "caption")
    posts = read_conll(data / "twitter2017-sample.txt", images=tmp_path, captions=captions)
    assert posts[0].image == tmp_path / f"{ids[0]}.jpg"
    assert posts[1].image is None
    assert posts[1].caption == "a stage"
    with pytest.raises(DataFormatError, match=r"captions.jsonl:1: no field 'blip'; fields are image_id, caption"):
        read_captions(tmp_path / "captions.jsonl", "blip")


CONLL_DAMAGE = [
    ("word\tO\n", 1, "before the first IMGID"),
    ("IMGID:1\nword O\n", 2, "expected word<TAB>tag"),
    ("IMGID:1\nword\tO\textra\n", 2, "expected word<TAB>tag"),
    ("IMGID:1\nword\tB-\n", 1, "is not O or one of"),
    ("IMGID:1\n\nIMGID:2\nword\tO\n", 1, "has no words"),
    ("IMGID:\nword\tO\n", 1, "without an id"),
]


@pytest.mark.parametrize(("content", "line", "message"), CONLL_DAMAGE)
def test_malformed_conll_is_named(tmp_path: Path, content: str, line: int, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(content)
    with pytest.raises(DataFormatError, match=rf"bad.txt:{line}: .*{message}"):
        read_conll(path)
    bad: list[DataFormatError] = []
    read_conll(path, on_bad=bad.append)
    assert [b.line for b in bad] == [line]


GOOD = "{'token': ['A', 'b'], 'h': {'name': 'A', 'pos': [0, 1]}, 't': {'name': 'b', 'pos': [1, 2]}, 'img_id': 'i', 'relation': 'None'}"  # noqa: E501
MNRE_DAMAGE = [
    (GOOD.replace("'None'}", "'None'"), "not a Python literal"),
    (GOOD.replace("'relation': 'None'", "'relatio': 'None'"), "relation: Field required"),
    (GOOD.replace("'pos': [1, 2]", "'pos': [1, 3]"), "lies outside"),
    (GOOD.replace("'name': 'b'", "'name': 'c'"), "tail 'c' is not what stands"),
    (GOOD.replace("'None'}", "'/per/unknown'}"), "'/per/unknown' is unknown"),
    ("__import__('os').system('true')", "not a Python literal"),
]


@pytest.mark.parametrize(("line", "message"), MNRE_DAMAGE)
def test_malformed_mnre_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(DataFormatError, match=r"bad.txt:3: ") as caught:
        read_mnre(path, labels=("None",))
    assert message in str(caught.value)
    bad: list[DataFormatError] = []
    assert len(read_mnre(path, labels=("None",), on_bad=bad.append)) == 2
    assert len(bad) == 1


JSONL_DAMAGE = [
    ('{"text": "a', "Invalid JSON"),
    ('{"id": "x"}', "give either text or words"),
    ('{"text": "a", "imgae": "b.jpg"}', "imgae: Extra inputs are not permitted"),
    ('{"text": "Paris rocks", "mentions": [{"start": 1, "end": 5}]}', "does not begin and end with a word"),
    ('{"text": "Paris", "mentions": [{"start": 0, "end": 5, "text": "Rome"}]}', "differs from 'Paris'"),
    ('{"text": "Paris", "relations": [{"head": 0, "tail": 1, "type": "x"}]}', "does not join two"),
    ('{"id": "first", "text": "again"}', "already stands in line 1"),
]


@pytest.mark.parametrize(("line", "message"), JSONL_DAMAGE)
def test_malformed_jsonl_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "first", "text": "fine"}\n' + line + "\n")
    with pytest.raises(DataFormatError, match=r"bad.jsonl:2: ") as caught:
        read_jsonl(path)
    assert message in str(caught.value)
    bad: list[DataFormatError] = []
    assert len(read_jsonl(path, on_bad=bad.append)) == 1
    assert len(bad) == 1


def test_a_file_of_no_known_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello world\n")
    with pytest.raises(DataFormatError, match="unknown format"):
        read_posts(tmp_path / "x.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataFormatError, match="the file is empty"):
        read_posts(tmp_path / "empty.txt")
    with pytest.raises(DataFormatError, match="no such file"):
        read_posts(tmp_path / "absent.txt")
    (tmp_path / "bytes.txt").write_bytes(b"IMGID:1\n\xff\xfe\tO\n")
    with pytest.raises(DataFormatError, match="not UTF-8"):
        read_posts(tmp_path / "bytes.txt")


def test_published_counts_go_by_folder_and_file() -> None:
    assert published_count(Path("data/twitter-2017/test.txt")) == 723
    assert published_count(Path("data/mnre/val.txt")) == 1624
    assert published_count(Path("data/SNAP/dev.txt")) == 1432
    assert published_count(Path("data/wikidiverse/test.json")) == 757
    assert published_count(Path("mine/train.txt")) is None


words = st.lists(
    st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp", "Zs")), min_size=1, max_size=8),
    min_size=2,
    max_size=8,
)


@settings(max_examples=50, deadline=None)
@given(words, st.data())
def test_writers_and_readers_agree(tmp_path_factory: pytest.TempPathFactory, tokens: list[str], draw) -> None:
    folder = tmp_path_factory.mktemp("round")
    from dataclasses import replace

    from moreie.schema import Relation

    post = post_from_words(tokens, id="p", image_id="img_1")
    first = draw.draw(st.integers(0, len(tokens) - 2))
    mentions = (post.mention("PER", 0, first), post.mention("LOC", first + 1, len(tokens) - 1))
    gold = replace(post, mentions=mentions, relations=(Relation(0, 1, "/per/loc/x"),))
    write_conll([gold], folder / "a.txt")
    (again,) = read_conll(folder / "a.txt")
    assert (again.text, again.words, again.mentions) == (gold.text, gold.words, gold.mentions)
    write_jsonl([gold], folder / "a.jsonl")
    (again,) = read_jsonl(folder / "a.jsonl")
    assert again == gold
    write_mnre([gold], folder / "m.txt")
    (again,) = read_mnre(folder / "m.txt")
    assert [(m.first, m.last) for m in again.mentions] == [(m.first, m.last) for m in mentions]
    assert again.relations == gold.relations
