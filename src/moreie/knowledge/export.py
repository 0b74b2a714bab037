"""A corpus back as article JSONL, which `moreie corpus build` takes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import zstandard

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.names import distinct_names
from moreie.knowledge.sources.articles import article_row
from moreie.knowledge.stores.schemas import NAME_ROWS
from moreie.knowledge.stores.store import FILES, IMAGES, NAMES, PASSAGES, passage_of
from moreie.schema import Article, ArticleImage, Paragraph

PASSAGE_COLUMNS = ("key", "article", "title", "url", "text", "introduction", "links")


def export(corpus: Path | str, target: Path, progress: Callable[[int], None] = lambda articles: None) -> int:
    """Write the articles of a corpus to a `.jsonl`, `.jsonl.gz` or `.jsonl.zst` file; returns their number.

    Pictures are named with their captions; their files are not in a corpus. Redirects are in the form they are kept in
    (`knowledge.names`), which finds the same articles. The file is there when it is complete.
    """
    opened = KnowledgeCorpus.open(corpus)
    redirects = _redirects(opened)
    pictures: dict[int, list[ArticleImage]] = {}
    for row in _rows(opened, IMAGES, ("file", "caption", "passage")):
        pictures.setdefault(row["passage"], []).append(ArticleImage(row["file"], row["caption"]))
    unfinished = target.with_name(f".{target.name}.partial")
    count = 0
    with _opened(unfinished, target.suffix) as out:
        # Passages come by key: those of one article follow each other.
        for _, rows in groupby(_rows(opened, PASSAGES, PASSAGE_COLUMNS), key=lambda row: row["article"]):
            article = article_row(_article(list(rows), redirects, pictures))
            out.write((json.dumps(article, ensure_ascii=False) + "\n").encode())
            count += 1
            progress(1)
    unfinished.replace(target)
    return count


def export_pictures(corpus: Path | str, target: Path) -> tuple[int, int]:
    """Write an image manifest of the pictures that the articles of a corpus show: file, article, section, caption.
    Those whose files are in the corpus already are left out. Returns the numbers written and left out.

    Raises:
        KnowledgeCorpusError: no corpus there, or one whose sources named no pictures.
    """
    opened = KnowledgeCorpus.open(corpus)
    if FILES not in opened.manifest.tables:
        raise KnowledgeCorpusError(f"{corpus}: its sources named no pictures (dumps do, article files may)")
    have = {(row["file"], row["passage"]) for row in _rows(opened, IMAGES, ("file", "passage"))}
    unfinished = target.with_name(f".{target.name}.partial")
    written = left = 0
    with _opened(unfinished, target.suffix) as out:
        for batch in opened.scan(FILES, ("file", "passage", "section", "caption")):
            rows = batch.to_pylist()
            articles = opened.passages(sorted({row["passage"] for row in rows}))
            for row in rows:
                if (row["file"], row["passage"]) in have:
                    left += 1
                    continue
                passage = articles[row["passage"]]
                line = {"file": row["file"], "title": passage.title, "article_id": passage.article_id}
                line |= {"section": row["section"], "caption": row["caption"]}
                out.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
                written += 1
    unfinished.replace(target)
    return written, left


def _rows(corpus: KnowledgeCorpus, table: str, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows of a table, none if the corpus has no such table."""
    if table in corpus.manifest.tables:
        for batch in corpus.scan(table, columns):
            yield from batch.to_pylist()


def _redirects(corpus: KnowledgeCorpus) -> Callable[[int], tuple[str, ...]]:
    """Finds an article's redirects by the key of its first passage."""
    if NAMES not in corpus.manifest.tables:
        return lambda key: ()
    batches = [batch.filter(batch["redirect"]) for batch in corpus.scan(NAMES, ("name", "passage", "redirect"))]
    rows = pa.concat_tables(batches or [NAME_ROWS.empty_table()]).sort_by(
        [("passage", "ascending"), ("name", "ascending")]
    )
    keys, names = rows["passage"].to_numpy(), rows["name"]

    def found(key: int) -> tuple[str, ...]:
        first, end = np.searchsorted(keys, [key, key + 1])
        return distinct_names(names.slice(first, end - first).to_pylist())

    return found


def _article(
    rows: list[dict[str, Any]], redirects: Callable[[int], tuple[str, ...]], pictures: dict[int, list[ArticleImage]]
) -> Article:
    passages = [passage_of(row) for row in rows]
    return Article(
        passages[0].article_id,
        passages[0].title,
        tuple(Paragraph(p.text, p.introduction, links=p.links) for p in passages),
        passages[0].url,
        redirects=redirects(rows[0]["key"]),
        images=tuple(picture for row in rows for picture in pictures.get(row["key"], [])),
    )


@contextmanager
def _opened(path: Path, suffix: str) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb") as out:
                yield out  # type: ignore[misc]
        elif suffix == ".zst":
            with zstandard.ZstdCompressor(10).stream_writer(file) as packed:
                yield packed  # type: ignore[misc]
        else:
            yield file
