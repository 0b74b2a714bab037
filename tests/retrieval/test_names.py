"""Names guessed from a post."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.datasets import post_from_text
from moreie.knowledge.names import normal_name, title_names
from moreie.retrieval.names import candidate_spans, known_names, unknown_names

KNOWN = {"kawhi leonard", "leonard", "new york times", "new york", "york", "concert", "jenniferlopez", "the hills"}


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("Kawhi Leonard wins the fan vote", ["kawhi leonard"], []),
        ("The New York Times on Zorblax Rovers", ["new york times"], ["zorblax rovers"]),
        ("Great concert by #JenniferLopez http://t.co/York", ["jenniferlopez"], ["jennifer lopez"]),
        ("kawhi leonard, again", ["kawhi leonard"], []),
        ("such a concert in the hills", [], []),
        ("", [], []),
    ],
)
def test_names_of_articles_and_other_names(text: str, known: list[str], unknown: list[str]) -> None:
    post = post_from_text(text, id="p")
    found = known_names(candidate_spans(post), KNOWN, 6)
    assert [span.name for span in found] == known
    others = [name.normal for name in unknown_names(post, found) if name.normal != "great"]
    assert others == unknown


def test_normal_forms() -> None:
    assert normal_name("Beyoncé!") == "beyonce"
    assert normal_name("AC/DC – Live") == "ac dc live"
    assert title_names("Mercury (planet)") == ("mercury",)
    assert title_names("Kawhi Leonard") == ("kawhi leonard", "kawhileonard")
    assert title_names("(!)") == ()
    assert title_names("東京") == ("東京",)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_has_names_that_lie_in_it(text: str) -> None:
    post = post_from_text(text, id="p")
    for span in candidate_spans(post):
        assert 0 <= span.first < span.last <= len(post.words)
        assert span.name == normal_name(span.name)
    for name in unknown_names(post, []):
        assert name.normal == normal_name(name.normal) == normal_name(name.written)
