"""MediaWiki exports: what is kept, and what a damaged one gives."""

from __future__ import annotations

import bz2
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from moreie.errors import DataFormatError, KnowledgeCorpusError, SourceError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.sources import mediawiki
from moreie.knowledge.sources.mediawiki import cut_dump, multistream_index, read_dump
from moreie.knowledge.verify import verify
from moreie.knowledge.workers import LocalWorkers


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


def articles_of(corpus: Path) -> dict[str, str]:
    opened = KnowledgeCorpus.open(corpus)
    names = ["nashville", "tennessee", "tn", "volunteerstate", "usa", *(f"page {i}" for i in range(60))]
    return {name: found[0].title for name, found in (opened.named(names) or {}).items()}


def test_a_dump_becomes_a_corpus_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [*PAGES, *(page(100 + i, f"Page {i}", f"'''Page {i}''' lies in [[TN]]. " * 40) for i in range(60))]
    path = tmp_path / "dump.xml"
    path.write_text(export(pages))
    monkeypatch.setattr(mediawiki, "BLOCK", 1000)
    monkeypatch.setattr(mediawiki, "STRETCH_BYTES", 5000)
    stretches = list(cut_dump(path))
    assert len(stretches) > 10
    assert [s.first_page for s in stretches][:3] == [0, *[s.first_page for s in stretches][1:3]]
    report = build_corpus(tmp_path / "corpus", Sources(dumps=(path,)), workers=LocalWorkers(2))
    assert report.manifest.articles == 62
    assert verify(tmp_path / "corpus") == []
    found = articles_of(tmp_path / "corpus")
    assert found["tn"] == found["volunteerstate"] == "Tennessee", "redirects are names of their targets"
    assert "usa" not in found
    corpus = KnowledgeCorpus.open(tmp_path / "corpus")
    passage, _ = corpus.search_sentences(["Page 7"], 1)[0][0]
    assert {link.target for link in passage.links} == {"Tennessee"}, "a link to a redirect leads to its target"
    again = build_corpus(tmp_path / "again", Sources(dumps=(path,)), workers=LocalWorkers(1))
    assert again.manifest.digest == report.manifest.digest


def multistream(folder: Path, pages: list[str], per_stream: int = 2) -> Path:
    """A dump as the Wikimedia Foundation publishes it: bzip2 streams of pages, and an index of where they begin."""
    path = folder / "testwiki-20240101-pages-articles-multistream.xml.bz2"
    whole = export(pages)
    head, tail = whole[: whole.index("<page>")], "</mediawiki>"
    content, lines = bz2.compress(head.encode()), []
    for start in range(0, len(pages), per_stream):
        lines += [
            f"{len(content)}:{100 + i}:Title: with colon" for i, _ in enumerate(pages[start : start + per_stream])
        ]
        content += bz2.compress("\n".join(pages[start : start + per_stream]).encode())
    path.write_bytes(content + bz2.compress(tail.encode()))
    index = folder / "testwiki-20240101-pages-articles-multistream-index.txt.bz2"
    index.write_bytes(bz2.compress("\n".join(lines).encode()))
    return path


def test_a_multistream_dump_is_cut_by_its_index(tmp_path: Path) -> None:
    pages = [*PAGES, *(page(100 + i, f"Page {i}", f"'''Page {i}''' lies in [[TN]]. " * 9) for i in range(60))]
    path = multistream(tmp_path, pages)
    index = multistream_index(path)
    assert index is not None
    stretches = list(cut_dump(path))
    assert all(stretch.content is None for stretch in stretches), "nothing is decompressed to cut it"
    assert [s.first_page for s in stretches] == list(range(0, len(pages), 8))
    streams = build_corpus(tmp_path / "streams", Sources(dumps=(path,)), workers=LocalWorkers(2))
    index.unlink()
    whole = build_corpus(tmp_path / "whole", Sources(dumps=(path,)), workers=LocalWorkers(1))
    assert streams.manifest.digest == whole.manifest.digest
    index.write_bytes(bz2.compress(b"12:1:A\nabc"))
    with pytest.raises(SourceError, match="damaged index"):
        list(cut_dump(path))
    index.write_bytes(bz2.compress(b"99999999:1:A\n"))
    with pytest.raises(SourceError, match="not the index of"):
        list(cut_dump(path))


def test_a_damaged_stream_is_an_error_and_the_finished_parts_are_kept(tmp_path: Path) -> None:
    path = multistream(tmp_path, [page(i, f"Page {i}", f"'''Page {i}''' is a page. " * 9) for i in range(60)])
    good = path.read_bytes()
    middle = list(cut_dump(path))[3].span
    assert middle is not None
    path.write_bytes(good[: middle[0] + 20] + b"\0" * 30 + good[middle[0] + 50 :])
    with pytest.raises(DataFormatError, match="damaged between bytes"):
        build_corpus(tmp_path / "corpus", Sources(dumps=(path,)), workers=LocalWorkers(1))
    done = len(list((tmp_path / "corpus.partial" / "parts").glob("[0-9]*")))
    assert done == 4
    report = build_corpus(tmp_path / "corpus", Sources(dumps=(path,)), workers=LocalWorkers(1), skip_bad=True)
    assert report.resumed == done
    assert "damaged between bytes" in report.skipped[0]
    assert report.manifest.articles == 52, "a damaged stretch of eight pages costs no others"


def test_pages_that_are_strange_are_read_and_damaged_ones_named(tmp_path: Path) -> None:
    unclosed = "{{Infobox " * 2000 + "{| class=x\n" * 500 + "\n\nThe town lies on a river and has a mill."
    pages = [
        page(1, 'AC/DC "Live"', "'''AC/DC''' are a band from Sydney in Australia."),
        page(2, "Long", "'''Long''' is long. " + "A sentence that is not short at all. " * 300_000),
        page(3, "Unclosed", unclosed),
        page(4, "Ref", "'''Ref''' is an article.<ref>Never closed\n\nThe next paragraph is still there."),
        page(1, "Twice", "'''Twice''' has the id of another page."),
        page(5, "Bytes", "'''Bytes''' has bytes that are no text: XXXX."),
        page(6, "Last", "'''Last''' is the last of the articles."),
    ]
    path = tmp_path / "dump.xml"
    path.write_bytes(export(pages).encode().replace(b"XXXX", b"\xff\xfe"))
    with pytest.raises(DataFormatError, match=r"page number 6 \(Bytes\): damaged XML"):
        build_corpus(tmp_path / "corpus", Sources(dumps=(path,)))
    report = build_corpus(tmp_path / "corpus", Sources(dumps=(path,)), skip_bad=True)
    said = "\n".join(report.skipped)
    assert "page number 6 (Bytes)" in said
    assert "1 (Twice): stands in the sources twice" in said
    assert report.manifest.articles == 5
    corpus = KnowledgeCorpus.open(tmp_path / "corpus")
    names = ["ac dc live", "unclosed", "ref", "last"]
    assert {n: p[0].title for n, p in (corpus.named(names) or {}).items()} == {
        "ac dc live": 'AC/DC "Live"',
        "unclosed": "Unclosed",
        "ref": "Ref",
        "last": "Last",
    }
    texts = {p.text for row in corpus.search_sentences(["town river mill", "next paragraph still"], 3) for p, _ in row}
    assert "The town lies on a river and has a mill." in texts
    assert "The next paragraph is still there." in texts
    assert verify(tmp_path / "corpus") == []


def test_a_dump_cut_off_can_be_built_from_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(bz2.compress(export(PAGES).encode()[:-60]))
    with pytest.raises(SourceError, match="cut off behind page 5"):
        build_corpus(tmp_path / "corpus", Sources(dumps=(path,)))
    assert not (tmp_path / "corpus").exists()
    report = build_corpus(tmp_path / "corpus", Sources(dumps=(path,)), skip_bad=True)
    assert report.manifest.articles == 2
    path.write_bytes(b"BZh9" + b"\0" * 100)
    with pytest.raises((SourceError, KnowledgeCorpusError)):
        build_corpus(tmp_path / "other", Sources(dumps=(path,)), skip_bad=True)
