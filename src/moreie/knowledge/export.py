"""A corpus back as article JSONL, which `moreie corpus build` takes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import lancedb
import zstandard

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.manifest import read_manifest
from moreie.knowledge.stores.rows import FILES, IMAGES, PASSAGES

KEYS_PER_READ = 50_000


def export(corpus: Path, target: Path, progress: Callable[[int], None] = lambda articles: None) -> int:
    """Write the articles of a corpus folder to a `.jsonl`, `.jsonl.gz` or `.jsonl.zst` file; returns their number.

    Pictures are named with their captions; their files are not in a corpus. The file is there when it is complete.
    """
    manifest = read_manifest(corpus)
    database = lancedb.connect(corpus)
    passages = database.open_table(PASSAGES)
    passages.checkout(manifest.tables[PASSAGES])
    pictures: dict[int, list[dict[str, str]]] = {}
    if IMAGES in manifest.tables:
        images = database.open_table(IMAGES)
        images.checkout(manifest.tables[IMAGES])
        for row in images.search().select(["file", "caption", "passage"]).limit(None).to_arrow().to_pylist():
            pictures.setdefault(row["passage"], []).append({"file": row["file"], "caption": row["caption"]})
    unfinished = target.with_name(f".{target.name}.partial")
    count = 0
    with _opened(unfinished, target.suffix) as out:
        last = manifest.passages if manifest.next_key is None else manifest.next_key
        for _, rows in groupby(_rows(passages, last), key=lambda row: row["article"]):
            out.write((json.dumps(_article(list(rows), pictures), ensure_ascii=False) + "\n").encode())
            count += 1
            progress(1)
    unfinished.replace(target)
    return count


def export_pictures(corpus: Path, target: Path) -> tuple[int, int]:
    """Write an image manifest of the pictures that the articles of a corpus folder show: file, article, section,
    caption. Those whose files are in the corpus already are left out. Returns the numbers written and left out.

    Raises:
        KnowledgeCorpusError: no corpus there, or one whose sources named no pictures.
    """
    manifest = read_manifest(corpus)
    database = lancedb.connect(corpus)
    if not manifest.tables.get(FILES):
        raise KnowledgeCorpusError(f"{corpus}: its sources named no pictures (dumps do, article files may)")
    opened = {}
    for name in (FILES, PASSAGES, *([IMAGES] if IMAGES in manifest.tables else [])):
        opened[name] = database.open_table(name)
        opened[name].checkout(manifest.tables[name])
    have: set[tuple[str, int]] = set()
    if IMAGES in opened:
        rows = opened[IMAGES].search().select(["file", "passage"]).limit(None).to_arrow()
        have.update(zip(rows["file"].to_pylist(), rows["passage"].to_pylist(), strict=True))
    unfinished = target.with_name(f".{target.name}.partial")
    written = left = 0
    with _opened(unfinished, target.suffix) as out:
        files = opened[FILES].search().limit(None).to_batches(KEYS_PER_READ)
        for batch in files:
            rows = batch.to_pylist()
            articles = _articles(opened[PASSAGES], {row["passage"] for row in rows})
            for row in rows:
                if (row["file"], row["passage"]) in have:
                    left += 1
                    continue
                line = {"file": row["file"], **articles[row["passage"]], "section": row["section"]}
                out.write((json.dumps({**line, "caption": row["caption"]}, ensure_ascii=False) + "\n").encode())
                written += 1
    unfinished.replace(target)
    return written, left


def _articles(passages: Any, keys: set[int]) -> dict[int, dict[str, str]]:
    listed = sorted(keys)
    found: dict[int, dict[str, str]] = {}
    for start in range(0, len(listed), 5_000):
        part = ",".join(map(str, listed[start : start + 5_000]))
        rows = passages.search().where(f"key IN ({part})").select(["key", "article", "title"]).limit(None).to_arrow()
        found.update({row["key"]: {"title": row["title"], "article_id": row["article"]} for row in rows.to_pylist()})
    return found


def _rows(passages: Any, last: int) -> Iterator[dict[str, Any]]:
    """Passages by key: those of one article follow each other."""
    for start in range(0, last, KEYS_PER_READ):
        within = f"key >= {start} AND key < {start + KEYS_PER_READ}"
        yield from passages.search().where(within).limit(None).to_arrow().sort_by("key").to_pylist()


def _article(rows: list[dict[str, Any]], pictures: dict[int, list[dict[str, str]]]) -> dict[str, Any]:
    article = {"id": rows[0]["article"], "title": rows[0]["title"]}
    if rows[0]["url"]:
        article["url"] = rows[0]["url"]
    paragraphs = [{"text": r["text"], "introduction": r["introduction"], "links": r["links"] or []} for r in rows]
    own = [picture for r in rows for picture in pictures.get(r["key"], [])]
    return {**article, "paragraphs": paragraphs, **({"images": own} if own else {})}


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
