"""The words of the text index, and how they are written for an engine that splits text in its own way."""

from __future__ import annotations

import re
from pathlib import Path

import lancedb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lancedb.index import FTS
from lancedb.query import MatchQuery

from moreie.knowledge.stores.words import ANALYSIS, plain_words, words

NASTY = [
    "Don't stop: O'Neil’s well-known snake_case, U.S.A. & AT&T",
    "Beyoncé, naïve cafe\u0301, Straße, Æon, ﬁre, Ångström, İstanbul, ΣΊΣΥΦΟΣ",
    "3.14 is 1,000 x² ½ Ⅳ ① 10%",
    "😀hi😀there ❤️ #KawhiLeonard @user",
    "東京都は日本の首都です。中国，北京 서울 กรุงเทพ",
    "हिन्दी नमस्ते ﷺ العربية Москва́",
    f"{'a' * 39} {'b' * 40} {'é' * 19} {'é' * 20}",
    "a\u200db a\u00adb a\u0000b queen Qatar q",
]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Don't STOP well-known snake_case U.S.A. 3.14", "don t stop well known snake case u s a 3 14"),
        ("Beyoncé Straße Æon ﬁre", "beyonce strasse aeon fire"),
        ("東京 queen", "qe69db1e4baacq q71queen"),
        ("... 😀 —", ""),
        (f"{'a' * 39} {'a' * 40}", "a" * 39),
    ],
)
def test_words_are_written_in_ascii_letters_and_digits(text: str, expected: str) -> None:
    assert plain_words(text) == expected


@given(st.text())
def test_no_analyzer_has_anything_to_split(text: str) -> None:
    written = plain_words(text).split(" ") if plain_words(text) else []
    assert len(written) == len(words(text))
    assert all(re.fullmatch("[a-z0-9]+", word) for word in written)
    # The same word is written the same way, and no other word is.
    assert len(set(zip(words(text), written, strict=True))) == len(set(words(text))) == len(set(written))


def test_the_embedded_engine_indexes_these_words(tmp_path: Path) -> None:
    table = lancedb.connect(tmp_path).create_table("texts", [{"row": i, "text": t} for i, t in enumerate(NASTY)])
    table.create_index("text", config=FTS(with_position=False, **ANALYSIS))
    split = [set(words(text)) for text in NASTY]
    for word in sorted(set().union(*split)):
        # A word in which folding left signs cannot be asked for by itself.
        if words(word) == [word]:
            found = table.search(MatchQuery(word, "text"), query_type="fts").limit(len(NASTY)).to_list()
            assert {row["row"] for row in found} == {i for i, own in enumerate(split) if word in own}
    for i, text in enumerate(NASTY):
        found = table.search(MatchQuery(text, "text"), query_type="fts").limit(1).to_list()
        assert found[0]["row"] == i
