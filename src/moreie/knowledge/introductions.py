"""Introductions → vectors among those of pictures, by the text tower of the corpus' image encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa

from moreie.knowledge.embedding import EmbeddedBatch, vector_column
from moreie.knowledge.passages import titled
from moreie.knowledge.stores.schemas import introduction_rows
from moreie.knowledge.stores.store import PASSAGES, Editor

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder
    from moreie.knowledge.corpus import KnowledgeCorpus

# So many are kept together, and sorted by length.
TEXTS_PER_BATCH = 256


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Texts to embed, and the keys of their passages."""

    key: str
    passages: tuple[int, ...]
    texts: tuple[str, ...]


def unembedded(corpus: KnowledgeCorpus, editor: Editor) -> Iterator[tuple[int, str]]:
    """Keys and texts of the introductions of a corpus that have no embedding, in the order of their keys."""
    for rows in corpus.scan(PASSAGES, ["key", "title", "text", "introduction"]):
        rows = rows.filter(rows["introduction"])
        keys = rows["key"].to_pylist()
        known = editor.embedded(keys)
        for key, title, text in zip(keys, rows["title"].to_pylist(), rows["text"].to_pylist(), strict=True):
            if key not in known:
                yield key, titled(title, text)


def text_batches(texts: Iterable[tuple[int, str]], fingerprint: str) -> Iterator[TextBatch]:
    """Batches of (passage key, text), named by what they hold and by the encoder's fingerprint."""
    waiting = iter(texts)
    while batch := list(islice(waiting, TEXTS_PER_BATCH)):
        digest = hashlib.sha256(fingerprint.encode())
        for key, text in batch:
            digest.update(f"\0{key}\0{text}".encode())
        yield TextBatch(digest.hexdigest()[:32], tuple(key for key, _ in batch), tuple(text for _, text in batch))


def embed_texts(encoder: ImageEncoder, batch: TextBatch) -> EmbeddedBatch:
    """Rows of embedded introductions."""
    columns = {"passage": batch.passages, "vector": vector_column(encoder.encode_texts(batch.texts))}
    rows = pa.table(columns, schema=introduction_rows(encoder.dimension))
    return EmbeddedBatch(rows, tuple(range(len(rows))), (), encoder.fingerprint)
