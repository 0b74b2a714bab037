"""Building a corpus: sources → parts (in parallel, each kept once done) → one store, with its pictures."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from moreie.errors import KnowledgeCorpusError, SourceError
from moreie.knowledge.manifest import ImageEncoderRecord, Manifest, SourceRecord, write_manifest
from moreie.knowledge.merge import Ledger, Merger
from moreie.knowledge.parts import Part, PartStore, TextSource, read_part
from moreie.knowledge.pictures import PictureStore
from moreie.knowledge.stores import in_cluster
from moreie.knowledge.stores.store import StoreWriter
from moreie.knowledge.workers import LocalWorkers, Workers, available_cores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from moreie.encoders.images import ImageEncoder
    from moreie.knowledge.sources.images import ImageEntry

log = logging.getLogger(__name__)
Progress = Callable[[Path, int], None]


@dataclass(frozen=True, slots=True)
class Sources:
    """What goes into a corpus. Each image manifest comes with the folder or archive that holds its files."""

    articles: tuple[Path, ...] = ()
    dumps: tuple[Path, ...] = ()
    images: tuple[tuple[Path, Path], ...] = ()

    def texts(self) -> list[TextSource]:
        return [*(TextSource(p, False) for p in self.articles), *(TextSource(p, True) for p in self.dumps)]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did: the manifest, each thing skipped with its reason, parts taken over from a build cut off."""

    manifest: Manifest
    skipped: list[str]
    resumed: int = 0


@dataclass(slots=True)
class _Build:
    """State of one build."""

    sources: Sources
    folder: Path
    encoder: ImageEncoder | None
    skip_bad: bool
    workers: Workers
    progress: Progress
    skipped: list[str] = field(default_factory=list)
    records: list[SourceRecord] = field(default_factory=list)
    images: int = 0


def build_corpus(
    destination: Path | str,
    sources: Sources,
    *,
    image_encoder: ImageEncoder | None = None,
    skip_bad: bool = False,
    workers: Workers | None = None,
    progress: Progress = lambda path, amount: None,
) -> BuildReport:
    """Build a corpus folder, or with a destination that starts with `milvus:` collections in Milvus.

    A corpus is there only when it is complete. Until then finished work lies in `<name>.partial`: the same build
    begun again does none of it twice. Unreadable or unmatched pictures are always skipped and reported. A malformed
    article or page, or a source that is cut off, is an error, or with `skip_bad` is skipped and reported.
    `progress(source, amount)` hears bytes of text sources and pictures of image manifests as they are begun.
    `workers`: all cores of this machine unless given.

    Raises:
        KnowledgeCorpusError: the destination exists, another build of it is under way, or nothing was found.
        SourceError, DataFormatError: a source cannot be read; what was finished is kept for the next attempt.
    """
    if sources.images and image_encoder is None:
        raise KnowledgeCorpusError("image manifests need an image encoder")
    texts = sources.texts()
    for path in [source.path for source in texts] + [manifest for manifest, _ in sources.images]:
        if not path.is_file():
            raise SourceError(f"{path}: no such file")
    milvus = in_cluster(destination)
    if milvus:
        from moreie.knowledge.stores.cluster import free_location

        free_location(str(destination))  # before the sources are read, which may take hours
    elif Path(destination).exists():
        raise KnowledgeCorpusError(f"{destination}: already exists; remove it or choose another name")
    folder = partial_folder(destination)
    with _alone(folder):
        store = PartStore.open(folder / "parts", texts)
        if store.resumed:
            log.warning("%s: %d parts of a build that was cut off are taken over", folder, store.resumed)
        state = _Build(sources, folder, image_encoder, skip_bad, workers or LocalWorkers(available_cores()), progress)
        _read_parts(state, store, texts)
        dimension = image_encoder.dimension if image_encoder else None
        if milvus:
            from moreie.knowledge.stores.cluster import ClusterWriter

            cluster = ClusterWriter(str(destination), dimension)
            manifest = _merge(state, store, texts, cluster)
            cluster.write_manifest(manifest)
        else:
            from moreie.knowledge.stores.embedded import EmbeddedWriter

            unfinished = folder / "store"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            manifest = _merge(state, store, texts, EmbeddedWriter(unfinished, dimension))
            write_manifest(unfinished, manifest)
            os.replace(unfinished, destination)
        shutil.rmtree(folder)
        return BuildReport(manifest, state.skipped, store.resumed)


def partial_folder(destination: Path | str) -> Path:
    """Where the finished work of a build lies until the corpus is complete."""
    if in_cluster(destination):
        return Path(str(destination).rpartition("/")[2].removesuffix(".db") + ".partial").absolute()
    return Path(destination).with_name(Path(destination).name + ".partial")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a build's folder; without anything finished in it, an error leaves nothing behind."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise KnowledgeCorpusError(f"{folder}: another build is under way there; wait for it or stop it") from None
    except (KnowledgeCorpusError, SourceError):
        if not any((folder / "parts").glob("[0-9]*")):
            shutil.rmtree(folder)
        raise


def _read_parts(state: _Build, store: PartStore, texts: Sequence[TextSource]) -> None:
    for number, source in enumerate(texts):
        damage: list[SourceError] = []

        def missing(number: int, source: TextSource, damage: list[SourceError]) -> Iterator[Part]:
            try:
                for part in source.parts(number, partial(state.progress, source.path)):
                    if not store.has(part):
                        yield part
            except SourceError as problem:  # what stands before the damage is worth keeping
                damage.append(problem)

        # Closed before anything is removed: workers write into the folder.
        with closing(state.workers.each(read_part, store.save, partial(missing, number, source, damage))) as parts:
            for part in parts:
                bad = [] if state.skip_bad else store.bad(part.name, source.path)
                if bad:
                    raise bad[0]
        if damage:
            if not (state.skip_bad and store.names(number)):
                raise damage[-1]
            state.skipped.append(str(damage[-1]))


def _merge(state: _Build, store: PartStore, texts: Sequence[TextSource], writer: StoreWriter) -> Manifest:
    ledger = Ledger(state.folder / "ledger.db")
    try:
        merger = Merger(writer, ledger)
        names = [store.names(number) for number in range(len(texts))]
        for source, parts in zip(texts, names, strict=True):
            for name in parts if source.dump else ():
                ledger.add_redirects(store.redirects(name))
        for source, parts in zip(texts, names, strict=True):
            _merge_source(state, store, source, parts, merger)
        if not merger.passages:
            shutil.rmtree(store.folder)  # nothing worth taking over
            raise KnowledgeCorpusError("the sources hold no article with text; nothing was built")
        merger.add_redirect_names()
        for manifest, place in state.sources.images:
            _add_images(state, manifest, place, ledger, merger, writer)
        encoder = state.encoder
        return Manifest(
            created=now(),
            digest=merger.digest,
            articles=merger.articles,
            passages=merger.passages,
            sentences=merger.sentences,
            images=state.images,
            sources=tuple(state.records),
            image_encoder=encoder_record(encoder) if encoder and state.images else None,
            tables=writer.finish(),
        )
    finally:
        ledger.close()


def _merge_source(state: _Build, store: PartStore, source: TextSource, parts: Sequence[str], merger: Merger) -> None:
    before, skipped = merger.articles, len(state.skipped)
    for name in parts:
        for bad in store.bad(name, source.path):
            if not state.skip_bad:
                raise bad
            state.skipped.append(str(bad))
        state.skipped += merger.add(store.rows(name), source.dump)
    kind: Literal["dump", "articles"] = "dump" if source.dump else "articles"
    state.records.append(source_record(kind, source.path, merger.articles - before, len(state.skipped) - skipped))


def _add_images(
    state: _Build, manifest: Path, place: Path, ledger: Ledger, merger: Merger, writer: StoreWriter
) -> None:
    if state.encoder is None:
        return
    before, skipped = state.images, len(state.skipped)
    pictures = PictureStore(state.folder / "pictures", state.encoder, state.workers)

    def find(batch: Sequence[ImageEntry]) -> tuple[dict[str, int], dict[str, int]]:
        return ledger.passages([e.article_id for e in batch if e.article_id], [e.title for e in batch])

    entries = read_entries(manifest, place, find, state.skipped, partial(state.progress, manifest))
    for rows, _, said in pictures.embed(entries):
        state.skipped += said
        writer.add_images(rows)
        state.images += len(rows)
        for file, passage in zip(rows["file"].to_pylist(), rows["passage"].to_pylist(), strict=True):
            merger.include(f"{file}\0{passage}\0")
    state.records.append(source_record("images", manifest, state.images - before, len(state.skipped) - skipped))


def read_entries(
    manifest: Path,
    place: Path,
    find: Callable[[Sequence[ImageEntry]], tuple[dict[str, int], dict[str, int]]],
    skipped: list[str],
    progress: Callable[[int], None],
) -> Iterator[tuple[ImageEntry, int]]:
    """Pictures of a manifest with the first passages of their articles; `find` looks those up by id and by title."""
    from moreie.knowledge.sources.images import read_images

    for batch in _batches(read_images(manifest, place, lambda bad: skipped.append(str(bad)))):
        by_id, by_title = find(batch)
        for entry in batch:
            passage = by_id.get(entry.article_id or "", by_title.get(entry.title))
            if passage is None:
                skipped.append(f"{entry.file}: no article {entry.title!r} in the corpus")
            else:
                yield entry, passage
        progress(len(batch))


def _batches(entries: Iterable[ImageEntry], size: int = 64) -> Iterator[list[ImageEntry]]:
    batch: list[ImageEntry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def source_record(kind: Literal["articles", "dump", "images"], path: Path, items: int, skipped: int) -> SourceRecord:
    """How a manifest names a source."""
    return SourceRecord(kind=kind, name=path.name, bytes=path.stat().st_size, items=items, skipped=skipped)


def encoder_record(encoder: ImageEncoder) -> ImageEncoderRecord:
    """How a manifest names an encoder."""
    return ImageEncoderRecord(
        # Where the folder lies means nothing to another machine; the fingerprint tells encoders apart.
        name=Path(encoder.name).name if Path(encoder.name).is_dir() else encoder.name,
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
    )


def now() -> str:
    """UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
