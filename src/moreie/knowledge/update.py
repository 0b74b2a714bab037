"""Living knowledge: articles and pictures added, replaced and removed while others search.

A change writes new versions of the tables and then the manifest that names them, in one rename. Readers keep the
state they opened; a change that is cut off is set back by the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.build import encoder_record, now
from moreie.knowledge.ingest import Ingest, Progress, Sources
from moreie.knowledge.manifest import Manifest, SourceRecord, read_manifest, write_manifest
from moreie.knowledge.stores.embedded import IMAGES, PASSAGES, SENTENCES, EmbeddedEditor
from moreie.schema import Article

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder
    from moreie.knowledge.sources.images import ImageEntry

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


def add(
    corpus: Path,
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
    corpus: Path,
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


def remove(corpus: Path, articles: Sequence[str]) -> Change:
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
        return Change(0, 0, len(found), 0, skipped, _commit(corpus, changed, editor, editor.finish()))


def compact(corpus: Path, older_than: timedelta = timedelta(hours=1)) -> Manifest:
    """Rewrite what changes left scattered, and forget table versions `older_than` this.

    A reader that opened an older state has to open the corpus anew.
    """
    with _change(corpus) as (manifest, editor):
        # A state must not be forgotten while the manifest still names it: rewriting ends first (one pass can leave
        # work for the next), then the manifest names the result, and only then old states go.
        tables = manifest.tables
        while (rewritten := editor.compact(NEVER)) != tables:
            tables = rewritten
        manifest = _commit(corpus, manifest, editor, tables)
        editor.compact(older_than)
        return manifest


def _ingest(
    corpus: Path,
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
        repeated: list[str] = []
        seen: set[str] = set()
        replaced: dict[str, list[int]] = {}

        def admitted(batch: list[Article]) -> list[Article]:
            once = []
            for article in batch:
                if article.id in seen:
                    repeated.append(f"{article.id} ({article.title}): stands in the sources twice; the first was taken")
                elif any(paragraph.text.strip() for paragraph in article.paragraphs):
                    seen.add(article.id)
                    once.append(article)
            known = editor.keys(article.id for article in once)
            if replacing:
                editor.remove((key for keys in known.values() for key in keys), images=False)
                replaced.update(known)
                return once
            repeated.extend(
                f"{a.id} ({a.title}): already in the corpus; to change it, replace it" for a in once if a.id in known
            )
            return [article for article in once if article.id not in known]

        def find(entries: Sequence[ImageEntry]) -> dict[str, int]:
            return editor.introductions((e.article_id or "" for e in entries), (e.title for e in entries))

        ingest = Ingest(
            editor,
            image_encoder,
            skip_bad,
            progress,
            first_key=_next_key(manifest),
            admit=admitted,
            find=find,
        )
        before = editor.counts().get(IMAGES, 0)
        records = ingest.run(sources)
        editor.move_images({keys[0]: ingest.introductions[f"id:{id}"] for id, keys in replaced.items()})
        counts = ingest.counts
        skipped = [*ingest.skipped, *repeated]
        images = editor.counts().get(IMAGES, 0)
        if not counts.articles and not counts.images:
            return Change(0, 0, 0, 0, skipped, manifest)
        update = {
            "articles": manifest.articles + counts.articles - len(replaced),
            "next_key": ingest.next_key,
            "digest": _digest(manifest, ingest.digest.hexdigest()),
            "sources": (*manifest.sources, *_used(records)),
        }
        if image_encoder and images:
            update["image_encoder"] = encoder_record(image_encoder)
        changed = _commit(corpus, manifest.model_copy(update=update), editor, editor.finish())
        return Change(counts.articles - len(replaced), len(replaced), 0, images - before, skipped, changed)


@contextmanager
def _change(corpus: Path) -> Iterator[tuple[Manifest, EmbeddedEditor]]:
    if str(corpus).startswith("milvus"):
        raise KnowledgeCorpusError(f"{corpus}: a corpus in Milvus cannot be changed in place yet; build it again")
    read_manifest(corpus)  # before the lock file is made: the folder may be no corpus
    try:
        with FileLock(corpus / LOCK, timeout=0):
            manifest = read_manifest(corpus)
            yield manifest, EmbeddedEditor(corpus, manifest.tables)
    except Timeout:
        raise KnowledgeCorpusError(f"{corpus}: another change is under way; try again when it is done") from None


def _commit(corpus: Path, manifest: Manifest, editor: EmbeddedEditor, tables: dict[str, int]) -> Manifest:
    counts = editor.counts()
    changed = manifest.model_copy(
        update={
            "revision": manifest.revision + 1,
            "created": now(),
            "passages": counts[PASSAGES],
            "sentences": counts[SENTENCES],
            "images": counts.get(IMAGES, 0),
            "tables": tables,
        }
    )
    write_manifest(corpus, changed)
    return changed


def _check_encoder(corpus: Path, manifest: Manifest, encoder: ImageEncoder | None) -> None:
    if encoder is None:
        raise KnowledgeCorpusError("image manifests need an image encoder")
    record = manifest.image_encoder
    if record is not None and record.fingerprint != encoder.fingerprint:
        raise KnowledgeCorpusError(
            f"{corpus}: its images were embedded by {record.name} ({record.fingerprint}), not by {encoder.name} "
            f"({encoder.fingerprint}); use that encoder"
        )


def _next_key(manifest: Manifest) -> int:
    return manifest.passages if manifest.next_key is None else manifest.next_key


def _digest(manifest: Manifest, change: str) -> str:
    return hashlib.sha256(f"{manifest.digest}\0{change}".encode()).hexdigest()[:12]


def _used(records: Sequence[SourceRecord]) -> list[SourceRecord]:
    return [record for record in records if record.items]
