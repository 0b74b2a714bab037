"""Articles → rows: passages, their sentences, the names and the picture files of the articles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from moreie.knowledge.names import title_names
from moreie.knowledge.sentences import split_sentences
from moreie.knowledge.stores.schemas import FILE_ROWS, NAME_ROWS, PASSAGE_ROWS, SENTENCE_ROWS
from moreie.schema import Article

# One row an article: where its passages begin, what its text hashes to.
ARTICLE_ROWS = pa.schema(
    [("id", pa.string()), ("title", pa.string()), ("passage", pa.int64()), ("digest", pa.binary())]
)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of some articles; passage keys count from the first one."""

    articles: pa.Table
    passages: pa.Table
    sentences: pa.Table
    names: pa.Table
    files: pa.Table


def rows_of(articles: Iterable[Article], first_key: int = 0) -> Rows:
    """Rows of the articles that have text, their passages numbered from `first_key`."""
    columns: dict[str, dict[str, list[Any]]] = {
        name: {field: [] for field in schema.names}
        for name, schema in (
            ("articles", ARTICLE_ROWS),
            ("passages", PASSAGE_ROWS),
            ("sentences", SENTENCE_ROWS),
            ("names", NAME_ROWS),
            ("files", FILE_ROWS),
        )
    }
    key = first_key
    for article in articles:
        key = _add(article, key, **columns)
    return Rows(
        pa.table(columns["articles"], schema=ARTICLE_ROWS),
        pa.table(columns["passages"], schema=PASSAGE_ROWS),
        pa.table(columns["sentences"], schema=SENTENCE_ROWS),
        pa.table(columns["names"], schema=NAME_ROWS),
        pa.table(columns["files"], schema=FILE_ROWS),
    )


def titled(title: str, text: str) -> str:
    """What an encoder reads of a passage: a paragraph alone often does not name what it is about."""
    return f"{title}. {text}"


def _add(
    article: Article,
    first: int,
    articles: dict[str, list[Any]],
    passages: dict[str, list[Any]],
    sentences: dict[str, list[Any]],
    names: dict[str, list[Any]],
    files: dict[str, list[Any]],
) -> int:
    key = first
    digest = hashlib.sha256(f"{article.id}\0{article.title}\0".encode())
    for paragraph in article.paragraphs:
        if not paragraph.text.strip():
            continue
        passages["key"].append(key)
        passages["article"].append(article.id)
        passages["title"].append(article.title)
        passages["text"].append(paragraph.text)
        passages["introduction"].append(paragraph.introduction)
        passages["links"].append([{"start": x.start, "end": x.end, "target": x.target} for x in paragraph.links])
        passages["url"].append(article.url)
        spans = split_sentences(paragraph.text)
        sentences["passage"] += [key] * len(spans)
        sentences["sentence"] += [paragraph.text[start:end].strip() for start, end in spans]
        sentences["introduction"] += [paragraph.introduction] * len(spans)
        digest.update(paragraph.text.encode())
        key += 1
    if key == first:
        return key
    articles["id"].append(article.id)
    articles["title"].append(article.title)
    articles["passage"].append(first)
    articles["digest"].append(digest.digest())
    for redirect, title in ((False, article.title), *((True, redirect) for redirect in article.redirects)):
        for name in title_names(title):
            names["name"].append(name)
            names["passage"].append(first)
            names["redirect"].append(redirect)
    for image in article.images:
        files["file"].append(image.file)
        files["caption"].append(image.caption)
        files["section"].append(image.section)
        files["passage"].append(first)
    return key
