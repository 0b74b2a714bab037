"""WikiDiverse: linked entities as named entities; words keep the text; damage named with file and entry."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.datasets import read_posts, read_wikidiverse, split_words
from moreie.errors import DataFormatError

ENTRY: list[Any] = [
    "The Lions won.",
    "https://example.org/a/Lions.jpg",
    "sports",
    [["Lions", "Organization", 4, 9, "url"]],
]


def test_linked_entities_become_mentions(data: Path) -> None:
    posts = read_posts(data / "wikidiverse-sample.json")
    assert [p.id for p in posts] == [f"wikidiverse-sample:{n}" for n in range(1, 6)]
    assert posts[0].text == "The Lions versus the Packers (2007)."
    assert posts[0].image_id == "DetroitLionsRunningPlay-2007.jpg"
    found = [[(p.surface(m), m.type) for m in p.mentions] for p in posts]
    assert found == [
        [("Lions", "Organization"), ("Packers", "Organization")],
        [("Baghdad", "Location"), ("Iraqi", "Country"), ("U.S.", "Country")],
        [("University of Texas at Austin", "Organization"), ("2006 Rose Bowl", "Event")],
        [("Angela Merkel", "Person")],
        [],
    ]


def test_pictures_are_found_as_the_authors_name_them(tmp_path: Path, data: Path) -> None:
    hashed = hashlib.md5(b"UT_tower.svg").hexdigest() + ".png"
    for name in (hashed, "Baghdad_protest_(2011).JPG", "Lighthouse.png"):
        (tmp_path / name).write_bytes(b"not read here")
    captions = {"Merkel.jpeg": "a woman at a lectern"}
    posts = read_posts(data / "wikidiverse-sample.json", images=tmp_path, captions=captions)
    names = [p.image and p.image.name for p in posts]
    assert names == [None, "Baghdad_protest_(2011).JPG", hashed, None, "Lighthouse.png"]
    assert posts[3].caption == "a woman at a lectern"


def changed(place: int, value: object) -> list[Any]:
    return [*ENTRY[:place], value, *ENTRY[place + 1 :]]


DAMAGE = [
    (ENTRY[:3], r"expected \[sentence, image_url, topic, entities\]"),
    ("Lions", r"expected \[sentence, image_url, topic, entities\]"),
    (changed(0, 7), "sentence: Input should be a valid string"),
    (changed(0, " "), "the sentence is empty"),
    (changed(3, [["Lions", "Organization", 4, 9]]), r"entities.0: .*expected \[surface, type, start, end, url\]"),
    (changed(3, [["Lions", "Organization", "x", 9, "url"]]), "entities.0.start: Input should be a valid integer"),
    (changed(3, [["Lions", "Organization", -4, 9, "url"]]), "entities.0.start: Input should be greater"),
    (changed(3, [["Tigers", "Organization", 4, 9, "url"]]), "mention 'Tigers' is not what stands at 4..9: 'Lions'"),
    (changed(3, [["n", "Organization", 4, 9, "url"]]), "mention 'n' is not what stands at 4..9: 'Lions'"),
    (changed(3, [["Lions", " ", 4, 9, "url"]]), "neither may be empty"),
    (["s", "u", "m", "Other", ["s"], [], "url", [], "topic", 0, 1], "the file with candidates"),
]


@pytest.mark.parametrize(("entry", "message"), DAMAGE)
def test_malformed_entries_are_named(tmp_path: Path, entry: object, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps([ENTRY, entry, ENTRY]))
    with pytest.raises(DataFormatError, match=rf"bad.json: entry 2: .*{message}"):
        read_wikidiverse(path)
    bad: list[DataFormatError] = []
    posts = read_wikidiverse(path, on_bad=bad.append)
    assert [p.id for p in posts] == ["bad:1", "bad:3"]
    assert len(bad) == 1


def test_a_file_that_is_no_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps([ENTRY, ENTRY], indent=1)[:-20])
    with pytest.raises(DataFormatError, match=r"bad.json:\d+: not JSON .*is the file whole\?"):
        read_posts(path)
    path.write_text("[" * 100_000)
    with pytest.raises(DataFormatError, match=r"nested too deep|not JSON"):
        read_posts(path)
    path.write_text('{"a": 1}')
    with pytest.raises(DataFormatError, match="expected a JSON array"):
        read_wikidiverse(path)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=40), st.data())
def test_a_mention_takes_the_words_it_touches(
    tmp_path_factory: pytest.TempPathFactory, text: str, draw: st.DataObject
) -> None:
    start = draw.draw(st.integers(0, len(text)))
    end = draw.draw(st.integers(start, len(text)))
    surface = text[start:end]
    path = tmp_path_factory.mktemp("any") / "any.json"
    path.write_text(json.dumps([[text, "u/x.jpg", None, [[surface, "Event", start, end, None]]]]))
    if not surface.strip():
        with pytest.raises(DataFormatError, match="empty"):
            read_wikidiverse(path)
        return
    (post,) = read_wikidiverse(path)
    (mention,) = post.mentions or ()
    first = start + len(surface) - len(surface.lstrip())
    last = start + len(surface.rstrip())
    touched = [w for w in split_words(text) if w.start < last and w.end > first]
    assert list(post.words[mention.first : mention.last + 1]) == touched
    assert surface.strip() in post.surface(mention)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(json_values, max_size=3))
def test_any_array_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, entries: list[object]) -> None:
    path = tmp_path_factory.mktemp("any") / "any.json"
    path.write_text(json.dumps(entries))
    bad: list[DataFormatError] = []
    assert len(read_wikidiverse(path, on_bad=bad.append)) + len(bad) == len(entries)
