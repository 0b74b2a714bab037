"""Is a corpus whole? Every row of it is read and checked against the others and the manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

from moreie.knowledge.manifest import Manifest, read_manifest
from moreie.knowledge.stores.rows import IMAGES, PASSAGES, SENTENCES

# A vector kept in half precision has a length this near to 1.
LENGTH_TOLERANCE = 5e-3
EXAMPLES = 3


def verify(corpus: Path, progress: Callable[[str], None] = lambda table: None) -> list[str]:
    """What is wrong with a corpus folder, in words; nothing when it is whole.

    Raises:
        KnowledgeCorpusError: no corpus there at all.
    """
    manifest = read_manifest(corpus)
    tables: dict[str, pa.Table] = {}
    problems: list[str] = []
    database = lancedb.connect(corpus)
    for name, version in manifest.tables.items():
        progress(name)
        try:
            table = database.open_table(name)
            table.checkout(version)
            tables[name] = table.search().limit(None).to_arrow()
            indexed = {column for index in table.list_indices() for column in index.columns}
        except (ValueError, OSError, RuntimeError) as problem:
            problems.append(f"table {name}, version {version}: cannot be read ({str(problem).splitlines()[0]})")
            continue
        for column in {PASSAGES: ("key",), SENTENCES: ("sentence", "introduction")}.get(name, ()):
            if column not in indexed:
                problems.append(f"table {name}: no index on {column}; compact the corpus or build it again")
    if PASSAGES in tables:
        problems += _check_passages(manifest, tables[PASSAGES])
        if SENTENCES in tables:
            problems += _check_sentences(manifest, tables[SENTENCES], tables[PASSAGES])
        if IMAGES in tables:
            problems += _check_images(manifest, tables[IMAGES], tables[PASSAGES])
    return problems


def _counted(what: str, said: int, found: int) -> list[str]:
    return [] if said == found else [f"the manifest says {said:,} {what}, there are {found:,}"]


def _check_passages(manifest: Manifest, passages: pa.Table) -> list[str]:
    keys = passages["key"].to_pylist()
    problems = _counted("passages", manifest.passages, len(keys))
    problems += _counted("articles", manifest.articles, len(set(passages["article"].to_pylist())))
    if len(set(keys)) != len(keys):
        problems.append(f"{len(keys) - len(set(keys)):,} passage keys occur twice")
    empty = [k for k, text in zip(keys, passages["text"].to_pylist(), strict=True) if not (text or "").strip()]
    if empty:
        problems.append(f"{len(empty):,} passages without text, such as {empty[:EXAMPLES]}")
    return problems


def _check_sentences(manifest: Manifest, sentences: pa.Table, passages: pa.Table) -> list[str]:
    problems = _counted("sentences", manifest.sentences, len(sentences))
    texts = dict(zip(passages["key"].to_pylist(), passages["text"].to_pylist(), strict=True))
    owners, found = sentences["passage"].to_pylist(), sentences["sentence"].to_pylist()
    lost = sorted({key for key in owners if key not in texts})
    if lost:
        problems.append(f"sentences of {len(lost):,} passages that are not there, such as {lost[:EXAMPLES]}")
    astray = [key for key, text in zip(owners, found, strict=True) if key in texts and text not in texts[key]]
    if astray:
        problems.append(f"{len(astray):,} sentences that are not in their passage, such as in {astray[:EXAMPLES]}")
    mute = sorted(texts.keys() - set(owners))
    if mute:
        problems.append(f"{len(mute):,} passages without a sentence, such as {mute[:EXAMPLES]}")
    return problems


def _check_images(manifest: Manifest, images: pa.Table, passages: pa.Table) -> list[str]:
    problems = _counted("images", manifest.images, len(images))
    if not len(images):
        return problems
    keys = set(passages["key"].to_pylist())
    files = images["file"].to_pylist()
    lost = [f for f, key in zip(files, images["passage"].to_pylist(), strict=True) if key not in keys]
    if lost:
        problems.append(f"{len(lost):,} pictures of articles that are not there, such as {lost[:EXAMPLES]}")
    vectors = np.asarray(images["vector"].combine_chunks().flatten()).astype(np.float32).reshape(len(files), -1)
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < LENGTH_TOLERANCE))
    if len(wrong):
        problems.append(f"{len(wrong):,} embeddings that are no unit vectors, such as of {files[int(wrong[0])]}")
    return problems
