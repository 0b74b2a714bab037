"""`moreie corpus …`: build, describe, change, check and export knowledge corpora."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors, console, progress_bar
from moreie.cli.corpus_sources import (
    ArticleFiles,
    Dumps,
    EncoderName,
    ImageRoot,
    Manifests,
    SkipBad,
    say_skipped,
    source_bars,
    sources_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from moreie.knowledge.update import Change

app = typer.Typer(help="Build, describe, change, check and export knowledge corpora.", no_args_is_help=True)

CorpusName = Annotated[str, typer.Argument(help="Corpus folder, or milvus://host:port/name.")]
WorkersName = Annotated[
    str | None, typer.Option(help="Processes, or `ray`, or ray://host:port \\[default: one a core].", metavar="N|ray")
]

BUILD_EXAMPLES = """[bold]Examples[/]

moreie corpus build wiki --articles articles.jsonl.zst

moreie corpus build wiki --dump enwiki-pages-articles.xml.bz2 --skip-bad

moreie corpus build art --articles art.jsonl --images manifest.jsonl --image-root pictures/

moreie corpus build wiki --dump enwiki-pages-articles-multistream.xml.bz2 --workers 16

moreie corpus build milvus://localhost:19530/wiki --articles articles.jsonl.zst --workers ray://head:10001
"""


@app.command(epilog=BUILD_EXAMPLES)
def build(
    destination: Annotated[
        str, typer.Argument(help="Folder to make (there when the build is complete), or milvus://host:port/name.")
    ],
    articles: ArticleFiles = None,
    dump: Dumps = None,
    images: Manifests = None,
    image_root: ImageRoot = None,
    image_encoder: EncoderName = None,
    skip_bad: SkipBad = False,
    workers: WorkersName = None,
) -> None:
    """Build a corpus from articles, dumps and pictures."""
    with clear_errors():
        import time

        from moreie.knowledge.build import build_corpus
        from moreie.knowledge.workers import workers_of

        sources, encoder = sources_of(articles, dump, images, image_root, image_encoder)
        started = time.perf_counter()
        hands = workers_of(workers)
        with source_bars(sources) as progress:
            report = build_corpus(
                destination, sources, image_encoder=encoder, skip_bad=skip_bad, workers=hands, progress=progress
            )
        say_skipped(report.skipped, destination)
        console(stderr=True).print(f"built in {time.perf_counter() - started:.1f} s", markup=False)
    info(destination, json=False)


ADD_EXAMPLES = """[bold]Examples[/]

moreie corpus add wiki --articles new.jsonl

moreie corpus add art --images more-pictures.jsonl --image-root pictures/
"""


@app.command(epilog=ADD_EXAMPLES)
def add(
    corpus: CorpusName,
    articles: ArticleFiles = None,
    dump: Dumps = None,
    images: Manifests = None,
    image_root: ImageRoot = None,
    image_encoder: EncoderName = None,
    skip_bad: SkipBad = False,
) -> None:
    """Add articles and pictures; those who are searching see all of it or nothing."""
    from moreie.knowledge.update import add as change

    _ingest(change, corpus, articles, dump, images, image_root, image_encoder, skip_bad)


@app.command(epilog="[bold]Example[/]\n\nmoreie corpus replace wiki --articles corrected.jsonl")
def replace(
    corpus: CorpusName,
    articles: ArticleFiles = None,
    dump: Dumps = None,
    images: Manifests = None,
    image_root: ImageRoot = None,
    image_encoder: EncoderName = None,
    skip_bad: SkipBad = False,
) -> None:
    """Put articles in place of those of the same id (and add those that are new)."""
    from moreie.knowledge.update import replace as change

    _ingest(change, corpus, articles, dump, images, image_root, image_encoder, skip_bad)


def _ingest(
    change: Callable[..., Change],
    corpus: str,
    articles: list[Path] | None,
    dump: list[Path] | None,
    images: list[Path] | None,
    image_root: Path | None,
    image_encoder: str | None,
    skip_bad: bool,
) -> None:
    with clear_errors():
        sources, encoder = sources_of(articles, dump, images, image_root, image_encoder)
        with source_bars(sources) as progress:
            done = change(corpus, sources, image_encoder=encoder, skip_bad=skip_bad, progress=progress)
        _say_change(corpus, done)


def _say_change(corpus: str, done: Change) -> None:
    say_skipped(done.skipped, corpus)
    console(stderr=True).print(
        f"{corpus}: {done.added:,} articles added, {done.replaced:,} replaced, {done.removed:,} removed, "
        f"{done.images:,} pictures added; now {done.manifest.version} with {done.manifest.articles:,} articles",
        markup=False,
        soft_wrap=True,
    )
    if done.manifest.introductions:
        from moreie.knowledge.corpus import KnowledgeCorpus

        if left := KnowledgeCorpus.open(corpus).unembedded:
            out = console(stderr=True)
            out.print(f"{left:,} introductions are not embedded; `moreie corpus embed` does that", markup=False)


@app.command(epilog="[bold]Example[/]\n\nmoreie corpus remove wiki 12345 67890")
def remove(corpus: CorpusName, articles: Annotated[list[str], typer.Argument(help="Ids of articles.")]) -> None:
    """Remove articles with their pictures."""
    with clear_errors():
        from moreie.knowledge.update import remove as change

        _say_change(corpus, change(corpus, articles))


EMBED_EXAMPLES = """[bold]Examples[/]

moreie corpus embed wiki --image-encoder openai/clip-vit-base-patch32

moreie retrieve --image photo.jpg --search texts --corpus wiki --image-encoder openai/clip-vit-base-patch32
"""


@app.command(epilog=EMBED_EXAMPLES)
def embed(
    corpus: CorpusName,
    image_encoder: Annotated[
        str, typer.Option(help="Hub id or folder of CLIP or its kind; the one that embedded the corpus' pictures.")
    ],
    workers: Annotated[
        str | None, typer.Option(help="`ray`, or ray://host:port \\[default: this process].", metavar="ray")
    ] = None,
) -> None:
    """Embed the introductions of articles, so that photographs find them; again after articles were added."""
    with clear_errors():
        from moreie.encoders.images import ImageEncoder
        from moreie.knowledge.corpus import KnowledgeCorpus
        from moreie.knowledge.update import embed as change
        from moreie.knowledge.workers import workers_of

        total = KnowledgeCorpus.open(corpus).unembedded
        encoder = ImageEncoder.from_pretrained(image_encoder)
        with progress_bar() as bar:
            task = bar.add_task("introductions", total=total)
            done = change(corpus, encoder, workers=workers_of(workers), progress=lambda n: bar.advance(task, n))
        out = console(stderr=True)
        if done.resumed:
            out.print(f"{done.resumed:,} batches of a run that was cut off were taken over", markup=False)
        out.print(
            f"{corpus}: {done.introductions:,} introductions embedded; now {done.manifest.version} with "
            f"{done.manifest.introductions:,} embedded introductions",
            markup=False,
            soft_wrap=True,
        )


@app.command(epilog="[bold]Example[/]\n\nmoreie corpus compact wiki --older-than 24")
def compact(
    corpus: CorpusName,
    older_than: Annotated[float, typer.Option(min=0, help="Forget states older than so many hours.")] = 1.0,
) -> None:
    """Tidy up after many changes: smaller, faster, the same content."""
    with clear_errors():
        from datetime import timedelta

        from moreie.knowledge.update import compact as change

        before = _size(corpus)
        manifest = change(corpus, timedelta(hours=older_than))
        sizes = f"{before / 1e6:,.1f} MB → {_size(corpus) / 1e6:,.1f} MB, " if before else ""
        console(stderr=True).print(f"{corpus}: {sizes}now {manifest.version}", markup=False)


@app.command(epilog="[bold]Example[/]\n\nmoreie corpus verify wiki")
def verify(corpus: CorpusName) -> None:
    """Read everything and report any damage (exit status 1)."""
    with clear_errors():
        from moreie.knowledge.verify import verify as check

        problems = check(corpus, lambda table: console(stderr=True).print(f"checking {table}", markup=False))
        for problem in problems:
            console().print(problem, markup=False, soft_wrap=True)
        if problems:
            raise typer.Exit(1)
        console().print(f"{corpus}: whole", markup=False)


@app.command(epilog="[bold]Example[/]\n\nmoreie corpus export wiki articles.jsonl.zst")
def export(
    corpus: CorpusName, target: Annotated[Path, typer.Argument(help="File: .jsonl, .jsonl.gz or .jsonl.zst.")]
) -> None:
    """Write a corpus' articles to a file that `corpus build` takes."""
    with clear_errors():
        from moreie.knowledge.corpus import KnowledgeCorpus
        from moreie.knowledge.export import export as write

        with progress_bar() as bar:
            task = bar.add_task(target.name, total=KnowledgeCorpus.open(corpus).manifest.articles)
            count = write(corpus, target, lambda articles: bar.advance(task, articles))
        console(stderr=True).print(f"{target}: {count:,} articles", markup=False)


ANCHORS_EXAMPLES = """[bold]Example[/]

moreie corpus anchors wiki
"""


@app.command(epilog=ANCHORS_EXAMPLES)
def anchors(corpus: CorpusName) -> None:
    """Count where the links of a corpus lead, for `moreie extract --link`, and keep that with it."""
    with clear_errors():
        from moreie.knowledge.corpus import KnowledgeCorpus
        from moreie.linking.anchors import anchors_folder
        from moreie.linking.counting import keep_anchors

        opened = KnowledgeCorpus.open(corpus)
        with progress_bar() as bar:
            task = bar.add_task("passages", total=opened.manifest.passages)
            counted = keep_anchors(opened, lambda passages: bar.advance(task, passages))
        out = console(stderr=True)
        out.print(
            f"{anchors_folder(corpus)}: {counted.links:,} links of {counted.names:,} anchor texts counted, "
            f"{counted.outside:,} of them to articles that the corpus does not have",
            markup=False,
            soft_wrap=True,
        )
        if not counted.links:
            out.print(
                "the corpus has no links: mentions are linked by names, text and evidence alone (dumps have links)",
                markup=False,
                soft_wrap=True,
            )


PICTURES_EXAMPLES = """[bold]Examples[/]

moreie corpus pictures wiki manifest.jsonl

moreie corpus add wiki --images manifest.jsonl --image-root pictures.tar
"""


@app.command(epilog=PICTURES_EXAMPLES)
def pictures(
    corpus: CorpusName, target: Annotated[Path, typer.Argument(help="Image manifest to write (.jsonl[.zst]).")]
) -> None:
    """List the pictures that articles show and the corpus lacks, as a manifest that `corpus add --images` takes."""
    with clear_errors():
        from moreie.knowledge.export import export_pictures

        written, left = export_pictures(corpus, target)
        console(stderr=True).print(f"{target}: {written:,} pictures; {left:,} are in the corpus already", markup=False)


def _size(corpus: str) -> int:
    return sum(f.stat().st_size for f in Path(corpus).rglob("*") if f.is_file())


@app.command(epilog="[bold]Example[/]\n\nmoreie corpus info wiki --json")
def info(
    corpus: CorpusName,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Describe a corpus: counts, sources, encoder, size."""
    with clear_errors():
        from moreie.knowledge.corpus import KnowledgeCorpus

        opened = KnowledgeCorpus.open(corpus)
        manifest = opened.manifest
        if json:
            typer.echo(manifest.model_dump_json(indent=2))
            return
        from rich.table import Table

        from moreie.knowledge.stores.store import INTRODUCTIONS

        table = Table(title=str(corpus), show_header=False, title_justify="left")
        rows = [
            ("version", opened.version),
            ("created", manifest.created),
            ("articles", f"{manifest.articles:,}"),
            ("passages", f"{manifest.passages:,}"),
            ("sentences", f"{manifest.sentences:,}"),
            ("images", f"{manifest.images:,}"),
        ]
        if INTRODUCTIONS in manifest.tables:
            left = f"; `moreie corpus embed` does the other {opened.unembedded:,}" if opened.unembedded else ""
            rows.append(("embedded introductions", f"{manifest.introductions:,}{left}"))
        if manifest.image_encoder:
            rows.append(("image encoder", f"{manifest.image_encoder.name} ({manifest.image_encoder.fingerprint})"))
        rows += [
            (f"from {s.kind}", f"{s.name} ({s.items:,} taken{f', {s.skipped:,} skipped' if s.skipped else ''})")
            for s in manifest.sources
        ]
        if Path(corpus).is_dir():
            rows.append(("size on disk", f"{_size(corpus) / 1e6:,.1f} MB"))
        for row in rows:
            table.add_row(*row)
        console().print(table)
