"""A knowledge corpus open for reading: sentences searched, paragraphs given back; photographs searched, articles
given back (paper, §3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.manifest import Manifest, read_manifest
from moreie.knowledge.names import distinct_names
from moreie.knowledge.stores import in_cluster
from moreie.knowledge.stores.store import IMAGES, INTRODUCTIONS
from moreie.schema import Article, ArticleImage, Paragraph, Passage
from moreie.starting import collecting_later

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moreie.knowledge.stores.apart import ReadingProcess
    from moreie.knowledge.stores.store import StoreReader

# A paragraph often matches with several sentences: so many more sentences than paragraphs are asked for at first.
OVERSAMPLING = 3


class KnowledgeCorpus:
    """One state of a corpus, read-only. `KnowledgeCorpus.open` picks the engine.

    Example:
        >>> corpus = KnowledgeCorpus.open("my-corpus")              # doctest: +SKIP
        >>> corpus.search_sentences(["Kawhi Leonard"], k=3)         # doctest: +SKIP
    """

    def __init__(self, location: str, manifest: Manifest, store: StoreReader):
        self.location, self.manifest, self._store = location, manifest, store

    @classmethod
    def open(cls, location: str | Path) -> KnowledgeCorpus:
        """Open a corpus folder, or `milvus://host:port/name` (a corpus in a Milvus server).

        Raises:
            KnowledgeCorpusError: nothing there, an unfinished build, or damage.
        """
        if in_cluster(location):
            from moreie.knowledge.stores.cluster import read_cluster_manifest
            from moreie.knowledge.stores.cluster_reader import ClusterReader

            manifest = read_cluster_manifest(str(location))
            return cls(str(location), manifest, ClusterReader(str(location), manifest.revision))
        with collecting_later():
            from moreie.knowledge.stores.embedded import EmbeddedReader

        manifest = read_manifest(Path(location))
        return cls(str(location), manifest, EmbeddedReader(Path(location), manifest.tables))

    @classmethod
    def open_apart(cls, location: str | Path, process: ReadingProcess | None = None) -> KnowledgeCorpus:
        """`open` for few questions: where there is a core for it a folder is read by a process of its own, this one if
        it has been begun before. Whoever asks can do something else until the engine is there (1.5 s). Damaged tables
        are then said when the first question is asked.

        Raises:
            KnowledgeCorpusError: nothing there, or an unfinished build.
        """
        from moreie.knowledge.stores.apart import ApartReader, begun

        process = process or begun(location)
        if process is None:
            return cls.open(location)
        manifest = read_manifest(Path(location))
        reader = ApartReader(process, Path(location), manifest.tables)
        return cls(str(location), manifest, cast("StoreReader", reader))

    @property
    def version(self) -> str:
        return self.manifest.version

    def latest(self) -> KnowledgeCorpus:
        """This corpus if nobody has changed it since it was opened, else its newest state."""
        if in_cluster(self.location):
            from moreie.knowledge.stores.cluster import read_cluster_manifest

            current = read_cluster_manifest(self.location)
        else:
            current = read_manifest(Path(self.location))
        return self if current == self.manifest else KnowledgeCorpus.open(self.location)

    def search_sentences(
        self, queries: Sequence[str], k: int, *, introductions_only: bool = False, all_words: bool = False
    ) -> list[list[tuple[Passage, float]]]:
        """The k best distinct paragraphs for each query by their best sentence's BM25 score, best first.

        `passage.sentence` is that sentence. Of equal scores the passage that comes first in the corpus is the better
        (among 3 k sentences). Fewer than k where the corpus has no more matches; an empty query finds nothing. With
        `all_words` a sentence must hold every word of the query.
        """
        flags = {"introductions_only": introductions_only, "all_words": all_words}
        rows = self._store.search_sentences(queries, OVERSAMPLING * k, **flags)
        found = [_best_per_passage(_untied(hits), k) for hits in rows]
        # Fewer sentences than asked for are all there are; else their paragraphs were too few.
        short = [i for i, hits in enumerate(found) if len(hits) < k and len(rows[i]) == OVERSAMPLING * k]
        if short:
            more = self._store.search_sentences([queries[i] for i in short], 10 * OVERSAMPLING * k, **flags)
            for i, hits in zip(short, more, strict=True):
                found[i] = _best_per_passage(_untied(hits), k)
        passages = self._store.passages([hit.passage for hits in found for hit in hits])
        return [[(replace(passages[h.passage], sentence=h.sentence), h.score) for h in hits] for hits in found]

    def matching_sentences(self, queries: Sequence[str], k: int) -> list[list[SentenceHit]]:
        """The k best sentences for each query that hold every word of it, by their BM25 score, best first. Their
        paragraphs are not read: `passages` gives those that are wanted."""
        return self._store.search_sentences(queries, k, introductions_only=False, all_words=True)

    def search_images(
        self, vectors: NDArray[np.float32], k: int, *, encoder_fingerprint: str
    ) -> list[list[tuple[Passage, float]]]:
        """The introductions of the k articles whose pictures are nearest to each row of `vectors` [Q, D], unit length.

        `passage.image` is the matched picture's file name; the score is the cosine similarity.

        Raises:
            KnowledgeCorpusError: the corpus keeps no images, or embeddings of another encoder.
        """
        if self.manifest.image_encoder is None or IMAGES not in self.manifest.tables:
            raise KnowledgeCorpusError(f"{self.location}: holds no images; build it with an image manifest")
        self._check_encoder(encoder_fingerprint)
        hits = [_best_per_passage(row, k) for row in self._store.search_images(vectors, OVERSAMPLING * k)]
        passages = self._store.passages([hit.passage for row in hits for hit in row])
        return [[(replace(passages[h.passage], image=h.file), h.score) for h in row] for row in hits]

    def search_introductions(
        self, vectors: NDArray[np.float32], k: int, *, encoder_fingerprint: str
    ) -> list[list[tuple[Passage, float]]]:
        """The k introductions whose title and text are nearest to each row of `vectors` [Q, D], unit length; the score
        is the cosine similarity.

        Raises:
            KnowledgeCorpusError: the introductions are not embedded, or by another encoder.
        """
        if INTRODUCTIONS not in self.manifest.tables:
            raise KnowledgeCorpusError(
                f"{self.location}: its introductions are not embedded; `moreie corpus embed` does that"
            )
        self._check_encoder(encoder_fingerprint)
        hits = self._store.search_introductions(vectors, k)
        passages = self._store.passages([key for row in hits for key, _ in row])
        return [[(passages[key], score) for key, score in row] for row in hits]

    @cached_property
    def unembedded(self) -> int:
        """Introductions that are not embedded: `search_introductions` does not find them."""
        return self._store.count_introductions() - self.manifest.introductions

    def _check_encoder(self, fingerprint: str) -> None:
        if problem := self.manifest.other_encoder(self.location, fingerprint):
            raise KnowledgeCorpusError(problem)

    def named(self, names: Sequence[str]) -> dict[str, list[Passage]] | None:
        """Introductions of the articles that bear these normal forms (`knowledge.names`), titles before redirects;
        None where the corpus was built before names were kept (`compact` adds them)."""
        found = self.named_keys(names)
        if found is None:
            return None
        passages = self._store.passages([key for keys in found.values() for key in keys])
        return {name: [passages[key] for key in keys if key in passages] for name, keys in found.items()}

    def named_keys(self, names: Sequence[str]) -> dict[str, list[int]] | None:
        """As `named`, but the keys of those introductions: nothing of them is read."""
        return self._store.names(names)

    def passages(self, keys: Sequence[int]) -> dict[int, Passage]:
        """Passages by their keys (the number behind `#` in a passage's id); unknown keys are left out."""
        return self._store.passages(keys)

    def article(self, id: str) -> Article | None:
        """An article as the corpus keeps it: paragraphs with links, URL, redirects as the normal forms that are kept of
        them, the pictures that are embedded. Sections are not kept, nor paragraphs without text. None where it is not
        there."""
        passages = self._store.article(id)
        if not passages:
            return None
        first = next(iter(passages.values()))
        return Article(
            id,
            first.title,
            tuple(Paragraph(p.text, p.introduction, links=p.links) for p in passages.values()),
            first.url,
            redirects=distinct_names(self._store.redirects(min(passages))),
            images=tuple(ArticleImage(file, caption) for file, caption in self._store.pictures(list(passages))),
        )

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Every row of a table (`knowledge.stores.schemas`), in batches; passages in the order of their keys.

        Raises:
            KnowledgeCorpusError: the corpus has no such table, or damage.
        """
        if table not in self.manifest.tables:
            raise KnowledgeCorpusError(f"{self.location}: keeps no {table}")
        try:
            yield from self._store.scan(table, columns)
        except (ValueError, OSError, RuntimeError) as problem:
            said = str(problem).splitlines()[0]
            raise KnowledgeCorpusError(f"{self.location}: table {table} is damaged ({said})") from problem

    def thumbnails(self, files: Sequence[str]) -> dict[str, bytes]:
        """JPEG thumbnails of article pictures by file name; names unknown to the corpus are left out."""
        return self._store.thumbnails(files)


def _untied(hits: Sequence[SentenceHit]) -> list[SentenceHit]:
    # Engines leave equal scores in an order of their own; beyond these digits they are noise of single precision.
    return sorted(hits, key=lambda hit: (-round(hit.score, 4), hit.passage, hit.sentence))


def _best_per_passage(hits: Sequence[_Hit], k: int) -> list[_Hit]:
    best: dict[int, _Hit] = {}
    for hit in hits:
        best.setdefault(hit.passage, hit)
    return list(best.values())[:k]


if TYPE_CHECKING:
    from typing import TypeVar

    from moreie.knowledge.stores.store import ImageHit, SentenceHit

    _Hit = TypeVar("_Hit", SentenceHit, ImageHit)
