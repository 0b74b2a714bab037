"""Living knowledge: articles and pictures added, replaced and removed, introductions embedded, while others search.

A change writes new versions of the tables and then the manifest that names them, in one rename. Readers keep the
state they opened; a change that is cut off is set back by the next one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from moreie.errors import CorpusBusyError, KnowledgeCorpusError
from moreie.knowledge.build import Progress, Sources, encoder_record, now, partial_folder, read_entries, source_record
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.embedding import BatchStore
from moreie.knowledge.introductions import TextBatch, embed_texts, text_batches, unembedded
from moreie.knowledge.manifest import Manifest, SourceRecord, read_manifest
from moreie.knowledge.passages import rows_of
from moreie.knowledge.pictures import IMAGES_PER_BATCH, PictureStore
from moreie.knowledge.sources.articles import read_articles
from moreie.knowledge.sources.mediawiki import read_dump
from moreie.knowledge.stores import in_cluster
from moreie.knowledge.stores.store import IMAGES, INTRODUCTIONS, PASSAGES, SENTENCES, Editor
from moreie.schema import Article

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder
    from moreie.knowledge.sources.images import ImageEntry
    from moreie.knowledge.workers import Workers

ARTICLES_PER_BATCH = 20_000
LOCK = ".lock"
NEVER = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Change:
    """What a change did; `skipped` says what it left alone and why."""

    added: int
    replaced: int
    removed: int
    images: int
    skipped: list[str]
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Embedding:
    """How many introductions were embedded, and how many batches of them were taken over from a run cut off."""

    introductions: int
    resumed: int
    manifest: Manifest


def add(
    corpus: Path | str,
    sources: Sources,
    *,
    image_encoder: ImageEncoder | None = None,
    skip_bad: bool = False,
    progress: Progress = lambda path, amount: None,
) -> Change:
    """Add articles and pictures. An article whose id is in the corpus is skipped and reported.

    Raises:
        KnowledgeCorpusError: no corpus there, another change under way, or another image encoder than the corpus'.
        SourceError, DataFormatError: a source cannot be read; the corpus stays as it was.
    """

    return _ingest(corpus, sources, image_encoder, skip_bad, progress, replacing=False)


def replace(
    corpus: Path | str,
    sources: Sources,
    *,
    image_encoder: ImageEncoder | None = None,
    skip_bad: bool = False,
    progress: Progress = lambda path, amount: None,
) -> Change:
    """Add articles, in place of those of the same id; pictures stay with their article unless they are given anew.

    Raises:
        KnowledgeCorpusError, SourceError, DataFormatError: as `add`.
    """

    return _ingest(corpus, sources, image_encoder, skip_bad, progress, replacing=True)


def remove(corpus: Path | str, articles: Sequence[str]) -> Change:
    """Remove articles by id, with their pictures. Ids that are not in the corpus are reported.

    Raises:
        KnowledgeCorpusError: no corpus there, another change under way, or nothing would be left.
    """
    with _change(corpus) as (manifest, editor):
        found = editor.keys(articles)
        skipped = [f"{article}: not in the corpus" for article in articles if article not in found]
        if not found:
            return Change(0, 0, 0, 0, skipped, manifest)
        editor.remove(key for keys in found.values() for key in keys)
        if not editor.counts()[PASSAGES]:
            raise KnowledgeCorpusError(f"{corpus}: this would leave nothing; delete the folder instead")
        changed = manifest.model_copy(
            update={
                "articles": manifest.articles - len(found),
                "next_key": _next_key(manifest),
                "digest": _digest(manifest, f"remove\0{sorted(found)}"),
            }
        )
        return Change(0, 0, len(found), 0, skipped, _commit(changed, editor))


def compact(corpus: Path | str, older_than: timedelta = timedelta(hours=1)) -> Manifest:
    """Rewrite what changes left scattered, and forget table versions `older_than` this.

    A reader that opened an older state has to open the corpus anew.
    """
    with _change(corpus) as (manifest, editor):
        editor.create_names()
        # A state must not be forgotten while the manifest still names it: rewriting ends first (one pass can leave
        # work for the next), then the manifest names the result, and only then old states go.
        tables = manifest.tables
        while (rewritten := editor.compact(NEVER)) != tables:
            tables = rewritten
        manifest = _commit(manifest, editor, tables)
        editor.compact(older_than)
        return manifest


def embed(
    corpus: Path | str,
    image_encoder: ImageEncoder,
    *,
    workers: Workers | None = None,
    progress: Callable[[int], None] = lambda introductions: None,
) -> Embedding:
    """Embed the introductions that have no embedding by the text tower of an image encoder: pictures find them then.

    Finished batches are kept until all are done: the same call after any crash or kill does none of them twice.
    `progress` hears how many introductions are done with, or were before.

    Raises:
        EncoderError: the encoder has no text tower.
        KnowledgeCorpusError: no corpus there, another change under way, or embeddings of another encoder in it.
    """
    image_encoder.need_text_tower()
    with _change(corpus) as (manifest, editor):
        _check_encoder(corpus, manifest, image_encoder)
        editor.create_introductions(image_encoder.dimension)
        before = editor.counts()[INTRODUCTIONS]
        store = BatchStore(_kept_folder(corpus, INTRODUCTIONS), image_encoder, workers)
        texts = unembedded(KnowledgeCorpus.open(corpus), editor)

        def batches() -> Iterator[TextBatch]:
            for batch in text_batches(texts, image_encoder.fingerprint):
                editor.hold()
                yield batch
                progress(len(batch.texts))

        keys = store.keep(embed_texts, batches())
        if not keys:
            _forget_kept(corpus, INTRODUCTIONS)
            return Embedding(0, 0, manifest)
        editor.add_introductions(store.load(key).rows for key in keys)
        added = editor.counts()[INTRODUCTIONS] - before
        change = f"embed\0{image_encoder.fingerprint}\0{added}"
        update = {"image_encoder": encoder_record(image_encoder), "digest": _digest(manifest, change)}
        changed = _commit(manifest.model_copy(update=update), editor)
        _forget_kept(corpus, INTRODUCTIONS)
        return Embedding(added, store.resumed, changed)


def _ingest(
    corpus: Path | str,
    sources: Sources,
    image_encoder: ImageEncoder | None,
    skip_bad: bool,
    progress: Progress,
    *,
    replacing: bool,
) -> Change:
    with _change(corpus) as (manifest, editor):
        if sources.images:
            _check_encoder(corpus, manifest, image_encoder)
            editor.create_images(image_encoder.dimension if image_encoder else 0)
        work = _Adding(editor, _next_key(manifest), skip_bad, progress, replacing)
        before = editor.counts().get(IMAGES, 0)
        records = work.add_texts(sources)
        editor.move_images({keys[0]: work.first[id] for id, keys in work.replaced.items()})
        for pair in sources.images:
            if image_encoder is not None:
                records.append(work.add_images(*pair, image_encoder, _kept_folder(corpus, "pictures")))
        images = editor.counts().get(IMAGES, 0)
        if not work.articles and not work.images:
            return Change(0, 0, 0, 0, work.skipped, manifest)
        update = {
            "articles": manifest.articles + work.articles - len(work.replaced),
            "next_key": work.next_key,
            "digest": _digest(manifest, work.digest.hexdigest()),
            "sources": _with(manifest.sources, records),
        }
        if image_encoder and images:
            update["image_encoder"] = encoder_record(image_encoder)
        changed = _commit(manifest.model_copy(update=update), editor)
        _forget_kept(corpus, "pictures")
        added = work.articles - len(work.replaced)
        return Change(added, len(work.replaced), 0, images - before, work.skipped, changed)


class _Adding:
    """Articles and pictures on their way into a corpus that is there already."""

    def __init__(self, editor: Editor, next_key: int, skip_bad: bool, progress: Progress, replacing: bool):
        self.editor, self.next_key, self.skip_bad = editor, next_key, skip_bad
        self.progress, self.replacing = progress, replacing
        self.articles = self.images = self.known = 0
        self.replaced: dict[str, list[int]] = {}
        self.first: dict[str, int] = {}
        self.skipped: list[str] = []
        self.digest = hashlib.sha256()

    def add_texts(self, sources: Sources) -> list[SourceRecord]:
        records = []
        for source in sources.texts():
            before, skipped = self.articles, len(self.skipped)
            read = read_dump if source.dump else read_articles
            on_bad = (lambda bad: self.skipped.append(str(bad))) if self.skip_bad else None
            articles = iter(read(source.path, on_bad, partial(self.progress, source.path)))
            while batch := list(islice(articles, ARTICLES_PER_BATCH)):
                self._add_batch(batch)
            kind: Literal["dump", "articles"] = "dump" if source.dump else "articles"
            records.append(source_record(kind, source.path, self.articles - before, len(self.skipped) - skipped))
        return records

    def _add_batch(self, batch: Sequence[Article]) -> None:
        once = []
        for article in batch:
            if article.id in self.first:
                said = "stands in the sources twice; the first was taken"
                self.skipped.append(f"{article.id} ({article.title}): {said}")
            elif any(paragraph.text.strip() for paragraph in article.paragraphs):
                self.first[article.id] = -1
                once.append(article)
        known = self.editor.keys(article.id for article in once)
        if self.replacing:
            self.editor.remove((key for keys in known.values() for key in keys), images=False)
            self.replaced.update(known)
        else:
            self.skipped += [
                f"{a.id} ({a.title}): already in the corpus; to change it, replace it" for a in once if a.id in known
            ]
            once = [article for article in once if article.id not in known]
        rows = rows_of(once, self.next_key)
        self.editor.add_passages(rows.passages, rows.sentences)
        self.editor.add_names(rows.names)
        self.editor.add_files(rows.files)
        self.next_key += len(rows.passages)
        self.articles += len(rows.articles)
        self.first.update(zip(rows.articles["id"].to_pylist(), rows.articles["passage"].to_pylist(), strict=True))
        for digest in rows.articles["digest"].to_pylist():
            self.digest.update(digest)

    def add_images(self, manifest: Path, place: Path, encoder: ImageEncoder, folder: Path) -> SourceRecord:
        before, skipped = self.images, len(self.skipped)

        def find(batch: Sequence[ImageEntry]) -> tuple[dict[str, int], dict[str, int]]:
            return self.editor.introductions([e.article_id for e in batch if e.article_id], [e.title for e in batch])

        progress = partial(self.progress, manifest)
        entries = read_entries(manifest, place, find, self.skipped, progress)
        for rows, _, said in PictureStore(folder, encoder).embed(self._unknown(entries)):
            self.skipped += said
            self.editor.add_images(rows)
            self.images += len(rows)
            for file, passage in zip(rows["file"].to_pylist(), rows["passage"].to_pylist(), strict=True):
                self.digest.update(f"{file}\0{passage}\0".encode())
        if self.known:
            self.skipped.append(
                f"{manifest}: {self.known:,} pictures are in the corpus already; to change them, replace them"
            )
            self.known = 0
        return source_record("images", manifest, self.images - before, len(self.skipped) - skipped)

    def _unknown(self, entries: Iterator[tuple[ImageEntry, int]]) -> Iterator[tuple[ImageEntry, int]]:
        """Pictures that the corpus does not have; when replacing, all."""
        while batch := list(islice(entries, IMAGES_PER_BATCH)):
            self.editor.hold()
            known = set() if self.replacing else self.editor.pictures(entry.file for entry, _ in batch)
            self.known += sum((entry.file, passage) in known for entry, passage in batch)
            yield from ((entry, passage) for entry, passage in batch if (entry.file, passage) not in known)


@contextmanager
def _change(corpus: Path | str) -> Iterator[tuple[Manifest, Editor]]:
    if in_cluster(corpus):
        from moreie.knowledge.stores.cluster import read_cluster_manifest
        from moreie.knowledge.stores.cluster_editor import ClusterEditor

        with ClusterEditor.alone(str(corpus)):
            manifest = read_cluster_manifest(str(corpus))
            yield manifest, ClusterEditor(str(corpus), manifest)
        return
    from moreie.knowledge.stores.embedded_editor import EmbeddedEditor

    folder = Path(corpus)
    read_manifest(folder)  # before the lock file is made: the folder may be no corpus
    try:
        with FileLock(folder / LOCK, timeout=0):
            manifest = read_manifest(folder)
            yield manifest, EmbeddedEditor(folder, manifest.tables)
    except Timeout:
        raise CorpusBusyError(f"{corpus}: another change is under way; try again when it is done") from None


def _commit(manifest: Manifest, editor: Editor, tables: dict[str, int] | None = None) -> Manifest:
    tables = editor.finish() if tables is None else tables
    counts = editor.counts()
    changed = manifest.model_copy(
        update={
            "revision": manifest.revision + 1,
            "created": now(),
            "passages": counts[PASSAGES],
            "sentences": counts[SENTENCES],
            "images": counts.get(IMAGES, 0),
            "introductions": counts.get(INTRODUCTIONS, 0),
            "tables": tables,
        }
    )
    editor.commit(changed)
    return changed


def _kept_folder(corpus: Path | str, what: str) -> Path:
    """Where what is embedded is kept until a change is complete."""
    if in_cluster(corpus):
        return partial_folder(corpus) / what
    return Path(corpus) / f".{what}"


def _forget_kept(corpus: Path | str, what: str) -> None:
    folder = _kept_folder(corpus, what)
    shutil.rmtree(folder, ignore_errors=True)
    if in_cluster(corpus):
        with suppress(OSError):  # not there, or a build's
            folder.parent.rmdir()


def _check_encoder(corpus: Path | str, manifest: Manifest, encoder: ImageEncoder | None) -> None:
    if encoder is None:
        raise KnowledgeCorpusError("image manifests need an image encoder")
    if problem := manifest.other_encoder(corpus, encoder.fingerprint):
        raise KnowledgeCorpusError(problem)


def _next_key(manifest: Manifest) -> int:
    return manifest.passages if manifest.next_key is None else manifest.next_key


def _digest(manifest: Manifest, change: str) -> str:
    return hashlib.sha256(f"{manifest.digest}\0{change}".encode()).hexdigest()[:12]


def _with(sources: tuple[SourceRecord, ...], records: Sequence[SourceRecord]) -> tuple[SourceRecord, ...]:
    """Sources and those of the records that brought something. What comes from the source of the last change again is
    counted there: the manifest of a corpus that is changed article by article stays small."""
    for record in records:
        last = sources[-1] if sources else None
        if record.items and last and (last.kind, last.name) == (record.kind, record.name):
            sums = {name: getattr(last, name) + getattr(record, name) for name in ("bytes", "items", "skipped")}
            sources = (*sources[:-1], last.model_copy(update=sums))
        elif record.items:
            sources = (*sources, record)
    return sources
