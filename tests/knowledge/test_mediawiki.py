"""MediaWiki exports: what is kept, and what a damaged one gives."""

from __future__ import annotations

import bz2
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from moreie.errors import DataFormatError, SourceError
from moreie.knowledge.sources.mediawiki import read_dump


def page(id: int, title: str, text: str, ns: int = 0, redirect: str | None = None) -> str:
    target = f'<redirect title="{redirect}" />' if redirect else ""
    return (
        f"<page><title>{title}</title><ns>{ns}</ns><id>{id}</id>{target}"
        f"<revision><id>9</id><text>{escape(text)}</text></revision></page>"
    )


PAGES = [
    page(1, "Nashville", "'''Nashville''' is the capital of [[TN]], a state of the [[USA]]."),
    page(2, "TN", "#REDIRECT [[Tennessee]]", redirect="Tennessee"),
    page(3, "Tennessee", "'''Tennessee''' is a state with the capital [[Nashville]]."),
    page(4, "Talk:Tennessee", "What a long and fruitless discussion this is.", ns=1),
    page(5, "TN (disambiguation)", "'''TN''' may refer to many different things.\n{{disambiguation}}"),
    page(6, "Volunteer State", "#redirect [[TN]]"),
]


def export(pages: list[str]) -> str:
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo/>' + "\n".join(pages) + "</mediawiki>"
    )


@pytest.mark.parametrize("suffix", [".xml", ".xml.bz2"])
def test_articles_alone_are_kept_and_redirects_resolved(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"dump{suffix}"
    text = export(PAGES).encode()
    path.write_bytes(bz2.compress(text) if suffix.endswith("bz2") else text)
    articles = list(read_dump(path))
    assert [(a.id, a.title) for a in articles] == [("1", "Nashville"), ("3", "Tennessee")]
    assert {x.target for x in articles[0].paragraphs[0].links} == {"Tennessee", "USA"}
    assert articles[1].redirects == ("TN", "Volunteer State")


def test_a_dump_that_is_cut_off_is_an_error_naming_the_place(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    text = export(PAGES)
    path.write_text(text[: text.index("<id>4</id>")])
    with pytest.raises(SourceError, match="cut off behind page 3"):
        list(read_dump(path))
    packed = tmp_path / "dump.xml.bz2"
    packed.write_bytes(bz2.compress(text.encode())[:-40])
    with pytest.raises(SourceError, match="cut off"):
        list(read_dump(packed))


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    path.write_text("<html><body>Not found</body></html>")
    with pytest.raises(SourceError, match="no <page>"):
        list(read_dump(path))
    path.write_text('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><mediawiki>&b;</mediawiki>')
    with pytest.raises(SourceError, match="document type"):
        list(read_dump(path))


def test_a_page_without_text_is_named_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    path.write_text(export([page(8, "Empty", ""), PAGES[2]]))
    with pytest.raises(DataFormatError, match=r"page 8 \(Empty\)"):
        list(read_dump(path))
    bad: list[DataFormatError] = []
    assert [a.title for a in read_dump(path, bad.append)] == ["Tennessee"]
    assert len(bad) == 1
