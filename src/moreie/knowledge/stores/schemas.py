"""Tables of passages, sentences, names, picture files, images and embedded introductions: the columns of each."""

from __future__ import annotations

import pyarrow as pa

_LINKS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("target", pa.string())]))
# `key` is the passage's number in the corpus; passages of an article follow each other.
PASSAGE_ROWS = pa.schema(
    [
        ("key", pa.int64()),
        ("article", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("introduction", pa.bool_()),
        ("links", _LINKS),
        ("url", pa.string()),
    ]
)
# `passage` is the key of the paragraph that holds the sentence.
SENTENCE_ROWS = pa.schema([("passage", pa.int64()), ("sentence", pa.string()), ("introduction", pa.bool_())])
# Normal forms (`knowledge.names`) of titles and redirects; `passage` is the key of the article's first passage.
NAME_ROWS = pa.schema([("name", pa.string()), ("passage", pa.int64()), ("redirect", pa.bool_())])
# Pictures that articles show, whether their files are at hand or not.
FILE_ROWS = pa.schema(
    [("file", pa.string()), ("caption", pa.string()), ("section", pa.string()), ("passage", pa.int64())]
)


def image_rows(dimension: int) -> pa.Schema:
    """Article images with unit vectors of this dimension; `passage` is the key of the article's first passage."""
    return pa.schema(
        [
            ("file", pa.string()),
            ("passage", pa.int64()),
            ("caption", pa.string()),
            ("attribution", pa.string()),
            ("thumbnail", pa.binary()),
            ("vector", pa.list_(pa.float16(), dimension)),
        ]
    )


def introduction_rows(dimension: int) -> pa.Schema:
    """Unit vectors of this dimension; `passage` is the key of the introduction, which has one at most."""
    return pa.schema([("passage", pa.int64()), ("vector", pa.list_(pa.float16(), dimension))])
