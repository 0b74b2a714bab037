"""Building a corpus: sources → articles → passages and sentences, pictures → vectors, into a new store."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.ingest import Ingest, Progress, Sources
from moreie.knowledge.manifest import ImageEncoderRecord, Manifest, SourceRecord, write_manifest
from moreie.knowledge.stores.rows import StoreWriter

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did: the manifest, and each thing skipped with its reason."""

    manifest: Manifest
    skipped: list[str]


def build_corpus(
    destination: Path | str,
    sources: Sources,
    *,
    image_encoder: ImageEncoder | None = None,
    skip_bad: bool = False,
    progress: Progress = lambda path, amount: None,
) -> BuildReport:
    """Build a corpus folder, or with a destination that starts with `milvus:` collections in Milvus.

    A corpus is there only when it is complete; until then a folder is called `<name>.partial`, and collections have
    no manifest. Unreadable or unmatched pictures are always skipped and reported. A malformed article or page is an
    error, or with `skip_bad` is skipped and reported. `progress(source, amount)` hears bytes of text sources and
    pictures of image manifests as they are done.

    Raises:
        KnowledgeCorpusError: the destination exists, or nothing was found in the sources.
        SourceError, DataFormatError: a source cannot be read.
    """
    if sources.images and image_encoder is None:
        raise KnowledgeCorpusError("image manifests need an image encoder")
    dimension = image_encoder.dimension if image_encoder else None
    if str(destination).startswith("milvus:"):
        from moreie.knowledge.stores.cluster import ClusterWriter

        cluster = ClusterWriter(str(destination), dimension)
        report = _build(cluster, sources, image_encoder, skip_bad, progress)
        cluster.write_manifest(report.manifest)
        return report
    destination = Path(destination)
    if destination.exists():
        raise KnowledgeCorpusError(f"{destination}: already exists; remove it or choose another name")
    unfinished = destination.with_name(destination.name + ".partial")
    if unfinished.exists():
        log.warning("%s: left by a build that was cut off; starting over", unfinished)
        shutil.rmtree(unfinished)
    from moreie.knowledge.stores.embedded import EmbeddedWriter

    unfinished.mkdir(parents=True)
    with ExitStack() as on_error:
        on_error.callback(shutil.rmtree, unfinished)
        report = _build(EmbeddedWriter(unfinished, dimension), sources, image_encoder, skip_bad, progress)
        write_manifest(unfinished, report.manifest)
        os.replace(unfinished, destination)
        on_error.pop_all()
    return report


def _build(
    writer: StoreWriter, sources: Sources, image_encoder: ImageEncoder | None, skip_bad: bool, progress: Progress
) -> BuildReport:
    ingest = Ingest(writer, image_encoder, skip_bad, progress)
    records = ingest.run(sources)
    if not ingest.counts.passages:
        raise KnowledgeCorpusError("the sources hold no article with text; nothing was built")
    return BuildReport(_manifest(ingest, records, writer.finish()), ingest.skipped)


def _manifest(ingest: Ingest, records: Sequence[SourceRecord], tables: dict[str, int]) -> Manifest:
    counts = ingest.counts
    return Manifest(
        created=now(),
        digest=ingest.digest.hexdigest()[:12],
        articles=counts.articles,
        passages=counts.passages,
        sentences=counts.sentences,
        images=counts.images,
        sources=tuple(records),
        image_encoder=encoder_record(ingest.image_encoder) if ingest.image_encoder and counts.images else None,
        tables=tables,
    )


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
