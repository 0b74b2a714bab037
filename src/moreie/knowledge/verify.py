"""Is a corpus whole? Every row of it is read, batch by batch, and checked against the others and the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.manifest import read_manifest
from moreie.knowledge.stores import in_cluster
from moreie.knowledge.stores.lance import lancedb
from moreie.knowledge.stores.store import IMAGES, INTRODUCTIONS, NAMES, PASSAGES, SENTENCES

# A vector kept in half precision has a length this near to 1.
LENGTH_TOLERANCE = 5e-3
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class _Keys:
    """Passage keys [N], sorted and distinct: of all passages, and of those that are introductions."""

    all: NDArray[np.int64]
    introductions: NDArray[np.int64]


def verify(corpus: Path | str, progress: Callable[[str], None] = lambda table: None) -> list[str]:
    """What is wrong with a corpus (a folder, or one in Milvus), in words; nothing when it is whole.

    Raises:
        KnowledgeCorpusError: no corpus there at all.
    """
    problems: list[str] = []
    if not in_cluster(corpus):
        problems = _damage(Path(corpus), read_manifest(Path(corpus)).tables)
        if any("cannot be read" in problem for problem in problems):
            return problems  # of tables that can be opened the rest makes sense only together
    opened = KnowledgeCorpus.open(corpus)
    try:
        progress(PASSAGES)
        keys, found = _check_passages(opened)
        problems += found
        progress(SENTENCES)
        problems += _check_sentences(opened, keys.all)
        checks = ((NAMES, _check_names), (IMAGES, _check_images), (INTRODUCTIONS, _check_introductions))
        for name, check in checks:
            if name in opened.manifest.tables:
                progress(name)
                problems += check(opened, keys)
    except KnowledgeCorpusError as problem:
        problems.append(str(problem))
    return problems


def _damage(folder: Path, tables: dict[str, int]) -> list[str]:
    """Tables of a corpus folder that cannot be opened or lack an index, in words."""
    problems = []
    database = lancedb.connect(folder)
    for name, version in tables.items():
        try:
            table = database.open_table(name)
            table.checkout(version)
            indexed = {column for index in table.list_indices() for column in index.columns}
        except (ValueError, OSError, RuntimeError) as problem:
            problems.append(f"table {name}, version {version}: cannot be read ({str(problem).splitlines()[0]})")
            continue
        for column in {PASSAGES: ("key",), SENTENCES: ("sentence", "introduction")}.get(name, ()):
            if column not in indexed:
                problems.append(f"table {name}: no index on {column}; compact the corpus or build it again")
    return problems


def _counted(what: str, said: int, found: int) -> list[str]:
    return [] if said == found else [f"the manifest says {said:,} {what}, there are {found:,}"]


def _check_passages(corpus: KnowledgeCorpus) -> tuple[_Keys, list[str]]:
    """Passage keys, and what is wrong."""
    articles: set[str] = set()
    batches: list[NDArray[np.int64]] = []
    introductions: list[NDArray[np.int64]] = []
    empty: list[int] = []
    for rows in corpus.scan(PASSAGES, ["key", "article", "text", "introduction"]):
        batches.append(_integers(rows, "key"))
        introductions.append(_integers(rows.filter(rows["introduction"]), "key"))
        articles.update(rows["article"].unique().to_pylist())
        texts = rows["text"].to_pylist()
        empty += [int(batches[-1][i]) for i, text in enumerate(texts) if not (text or "").strip()]
    every = _together(batches)
    keys = np.unique(every)
    problems = _counted("passages", corpus.manifest.passages, len(every))
    problems += _counted("articles", corpus.manifest.articles, len(articles))
    if len(keys) != len(every):
        problems.append(f"{len(every) - len(keys):,} passage keys occur twice")
    if empty:
        problems.append(f"{len(empty):,} passages without text, such as {empty[:EXAMPLES]}")
    return _Keys(keys, np.unique(_together(introductions))), problems


def _check_sentences(corpus: KnowledgeCorpus, keys: NDArray[np.int64]) -> list[str]:
    texts = _Texts(corpus)
    owners: list[NDArray[np.int64]] = []
    astray: list[int] = []
    count = 0
    for rows in corpus.scan(SENTENCES, ["passage", "sentence"]):
        passages = _integers(rows, "passage")
        count += len(passages)
        owners.append(np.unique(passages))
        own = texts.of(owners[-1])
        for key, sentence in zip(passages.tolist(), rows["sentence"].to_pylist(), strict=True):
            if key in own and sentence not in own[key]:
                astray.append(key)
    held = np.unique(_together(owners))
    lost, mute = np.setdiff1d(held, keys), np.setdiff1d(keys, held)
    problems = _counted("sentences", corpus.manifest.sentences, count)
    if len(lost):
        problems.append(f"sentences of {len(lost):,} passages that are not there, such as {_some(lost)}")
    if astray:
        problems.append(f"{len(astray):,} sentences that are not in their passage, such as in {astray[:EXAMPLES]}")
    if len(mute):
        problems.append(f"{len(mute):,} passages without a sentence, such as {_some(mute)}")
    return problems


class _Texts:
    """Texts of passages by key, for keys that are asked for in their order: only some lie in memory at a time."""

    def __init__(self, corpus: KnowledgeCorpus):
        self._corpus = corpus
        self._batches: Iterator[pa.Table] = corpus.scan(PASSAGES, ["key", "text"])
        self._held: dict[int, str] = {}
        self._read = -1

    def of(self, keys: NDArray[np.int64]) -> dict[int, str]:
        """Texts of these passages (sorted, distinct), less those that are not there."""
        first, last = int(keys[0]), int(keys[-1])
        self._held = {key: text for key, text in self._held.items() if key >= first}
        while self._read < last and (rows := next(self._batches, None)) is not None:
            if len(rows):
                self._held.update(zip(rows["key"].to_pylist(), rows["text"].to_pylist(), strict=True))
                self._read = max(self._read, *rows["key"].to_pylist())
        missing = [key for key in keys.tolist() if key not in self._held]
        further = {key: passage.text for key, passage in self._corpus.passages(missing).items()}
        return {**self._held, **further} if further else self._held


def _check_names(corpus: KnowledgeCorpus, keys: _Keys) -> list[str]:
    lost = [
        name
        for rows in corpus.scan(NAMES, ["name", "passage"])
        for name in rows["name"].filter(pa.array(~np.isin(_integers(rows, "passage"), keys.all))).to_pylist()
    ]
    return [f"{len(lost):,} names of articles that are not there, such as {lost[:EXAMPLES]}"] if lost else []


def _check_images(corpus: KnowledgeCorpus, keys: _Keys) -> list[str]:
    lost: list[str] = []
    wrong: list[str] = []
    count = 0
    for rows in corpus.scan(IMAGES, ["file", "passage", "vector"]):
        count += len(rows)
        lost += rows["file"].filter(pa.array(~np.isin(_integers(rows, "passage"), keys.all))).to_pylist()
        wrong += rows["file"].filter(pa.array(_not_unit(rows))).to_pylist()
    problems = _counted("images", corpus.manifest.images, count)
    if lost:
        problems.append(f"{len(lost):,} pictures of articles that are not there, such as {lost[:EXAMPLES]}")
    if wrong:
        problems.append(f"{len(wrong):,} embeddings that are no unit vectors, such as of {wrong[0]}")
    return problems


def _check_introductions(corpus: KnowledgeCorpus, keys: _Keys) -> list[str]:
    batches: list[NDArray[np.int64]] = []
    wrong: list[NDArray[np.int64]] = []
    for rows in corpus.scan(INTRODUCTIONS, ["passage", "vector"]):
        batches.append(_integers(rows, "passage"))
        wrong.append(batches[-1][_not_unit(rows)])
    every, bent = _together(batches), _together(wrong)
    held = np.unique(every)
    lost = np.setdiff1d(held, keys.all)
    other = np.setdiff1d(np.setdiff1d(held, keys.introductions), lost)
    problems = _counted("embedded introductions", corpus.manifest.introductions, len(every))
    if len(held) != len(every):
        problems.append(f"{len(every) - len(held):,} introductions are embedded twice")
    if len(lost):
        problems.append(f"embeddings of {len(lost):,} passages that are not there, such as {_some(lost)}")
    if len(other):
        problems.append(f"embeddings of {len(other):,} passages that are no introductions, such as {_some(other)}")
    if len(bent):
        problems.append(f"{len(bent):,} embeddings that are no unit vectors, such as of passage {bent[0]}")
    return problems


def _not_unit(rows: pa.Table) -> NDArray[np.bool_]:
    """Which rows [N] have a vector that is not of unit length."""
    values = np.asarray(rows["vector"].combine_chunks().flatten()).astype(np.float32)
    lengths = np.linalg.norm(values.reshape(len(rows), -1), axis=1)
    off: NDArray[np.bool_] = ~(np.abs(lengths - 1) < LENGTH_TOLERANCE)
    return off


def _integers(rows: pa.Table, column: str) -> NDArray[np.int64]:
    values: NDArray[np.int64] = rows[column].to_numpy().astype(np.int64)
    return values


def _together(batches: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(batches) if batches else np.empty(0, dtype=np.int64)


def _some(keys: NDArray[np.int64]) -> list[int]:
    some: list[int] = keys[:EXAMPLES].tolist()
    return some
