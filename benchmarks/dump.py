"""Dump → passages: pages a second a core beside mwparserfromhell alone, and two processes beside one.

python benchmarks/dump.py enwiki-pages-articles.xml.bz2 [more dumps …]

The peer does less: it parses the wikitext of each page and throws the tree away. Ours reads the XML, parses, resolves
redirects, splits sentences and writes the rows of every part.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

import mwparserfromhell
from rows import compare, save

from moreie.errors import SourceError
from moreie.knowledge.parts import Part, PartStore, read_part
from moreie.knowledge.sources.mediawiki import RawPage, _raw_pages, cut_dump
from moreie.knowledge.workers import LocalWorkers


def pages_of(dumps: list[Path]) -> list[RawPage]:
    pages: list[RawPage] = []
    for path in dumps:
        try:
            for stretch in cut_dump(path):
                pages += [p for p in _raw_pages(stretch, []) if p.namespace == "0" and not p.redirect]
        except SourceError as problem:
            print(problem, file=sys.stderr)
    return [page for page in pages if page.wikitext.strip()]


def write_dump(path: Path, pages: list[RawPage], times: int) -> None:
    """The pages again and again, each time under other ids and titles."""
    with path.open("w", encoding="utf-8") as out:
        out.write("<mediawiki>")
        for round in range(times):
            for number, page in enumerate(pages):
                title, text = escape(f"{page.title} {round}"), escape(page.wikitext)
                out.write(f"<page><title>{title}</title><ns>0</ns><id>{round}.{number}</id>")
                out.write(f"<revision><text>{text}</text></revision></page>\n")
        out.write("</mediawiki>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dumps", type=Path, nargs="+")
    arguments = parser.parse_args()
    pages = pages_of(arguments.dumps)
    characters = sum(len(page.wikitext) for page in pages)
    work = f"{len(pages)} article pages, {characters / 1e6:.1f} million characters"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "dump.xml"
        write_dump(dump, pages, 1)
        parts = [Part(0, i, stretch) for i, stretch in enumerate(cut_dump(dump))]
        rows.append(
            compare(
                "dump → passages, one core",
                work,
                lambda: [read_part(part) for part in parts],
                lambda: [mwparserfromhell.parse(page.wikitext) for page in pages],
                "mwparserfromhell.parse alone",
                amount=len(pages),
                unit="pages/s",
                target=3.0,
            )
        )
        write_dump(dump, pages, 8)
        many = [Part(0, i, stretch) for i, stretch in enumerate(cut_dump(dump))]

        def work_with(processes: int) -> object:
            with tempfile.TemporaryDirectory() as parts:
                keep = PartStore(Path(parts)).save
                return sum(1 for _ in LocalWorkers(processes).each(read_part, keep, lambda: many))

        rows.append(
            compare(
                "dump → passages, two processes",
                f"{work}, 8 times",
                lambda: work_with(2),
                lambda: work_with(1),
                "one process",
                amount=8 * len(pages),
                unit="pages/s",
                target=1.8,
                repeats=5,
            )
        )
    save("dump", rows)


if __name__ == "__main__":
    main()
