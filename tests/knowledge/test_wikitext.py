"""Wikitext to paragraphs and links."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.knowledge.sources.wikitext import parse_page

PAGE = """{{Short description|A city}}
{{Infobox settlement
| name = Nashville
| image = Nashville skyline.jpg
| caption = The ''skyline''
}}
'''Nashville''' is the capital of [[Tennessee]]<ref name="a">Census {{cite web|url=x}}</ref> and the seat of
[[Davidson County, Tennessee|Davidson County]].<!-- hidden --> It lies {{convert|80|km|mi}} from [[Clarksville]].

[[File:Ryman.jpg|thumb|left|The [[Ryman Auditorium]] in 2010]]
== Music ==
It is called [[Music City#Name|Music City]] (&nbsp;).
* The [[Grand Ole Opry]]
* The Ryman
{| class="wikitable"
| a || b
|}
== References ==
{{reflist}}
Something that is no prose at all.
== Later ==
The last paragraph stays here.
[[Category:Cities]] [[de:Nashville]]
"""


def test_a_page_becomes_paragraphs_links_and_images() -> None:
    page = parse_page(PAGE)
    texts = [p.text for p in page.paragraphs]
    assert texts[0] == (
        "Nashville is the capital of Tennessee and the seat of Davidson County. It lies 80 km from Clarksville."
    )
    assert [p.introduction for p in page.paragraphs] == [True, False, False]
    assert texts[1] == "It is called Music City.\n• The Grand Ole Opry\n• The Ryman"
    assert texts[2] == "The last paragraph stays here."
    linked = [(p.text[x.start : x.end], x.target) for p in page.paragraphs for x in p.links]
    assert ("Davidson County", "Davidson County, Tennessee") in linked
    assert ("Music City", "Music City") in linked
    assert ("Grand Ole Opry", "Grand Ole Opry") in linked
    images = {i.file: i.caption for i in page.images}
    assert images == {"Nashville skyline.jpg": "The skyline", "Ryman.jpg": "The Ryman Auditorium in 2010"}
    assert not page.disambiguation


def test_a_disambiguation_page_is_known() -> None:
    assert parse_page("'''Nash''' may refer to:\n* [[A]]\n{{disambiguation}}").disambiguation


def test_a_paragraph_that_recurs_is_kept_once() -> None:
    line = "The same sentence stands here twice."
    assert [p.text for p in parse_page(f"{line}\n\n{line}").paragraphs] == [line]


PIECES = [
    "[[",
    "]]",
    "{{",
    "}}",
    "'''",
    "<ref>",
    "</ref>",
    "|",
    "\n\n",
    "== H ==\n",
    "* ",
    "{|",
    "|}",
    "File:x.jpg",
    " ",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=25).map("".join))
def test_broken_markup_never_fails_and_links_stay_inside(wikitext: str) -> None:
    for paragraph in parse_page(wikitext).paragraphs:
        assert paragraph.text == paragraph.text.strip()
        for link in paragraph.links:
            assert 0 <= link.start < link.end <= len(paragraph.text)
