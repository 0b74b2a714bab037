"""`moreie corpus …`: build and describe knowledge corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moreie.cli.console import clear_errors, console, progress_bar

app = typer.Typer(help="Build and describe knowledge corpora.", no_args_is_help=True)

BUILD_EXAMPLES = """[bold]Examples[/]

moreie corpus build wiki --articles articles.jsonl.zst

moreie corpus build wiki --dump enwiki-pages-articles.xml.bz2 --skip-bad

moreie corpus build art --articles art.jsonl --images manifest.jsonl --image-root pictures/

moreie corpus build milvus://localhost:19530/wiki --articles articles.jsonl.zst
"""


@app.command(epilog=BUILD_EXAMPLES)
def build(
    destination: Annotated[
        str, typer.Argument(help="Folder to make (there when the build is complete), or milvus://host:port/name.")
    ],
    articles: Annotated[list[Path] | None, typer.Option(help="Article JSONL: plain, .gz or .zst (repeatable).")] = None,
    dump: Annotated[list[Path] | None, typer.Option(help="MediaWiki XML: .xml or .xml.bz2 (repeatable).")] = None,
    images: Annotated[list[Path] | None, typer.Option(help="Image manifest JSONL (repeatable).")] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder the manifests' file names start from [default: the manifest's own].")
    ] = None,
    image_encoder: Annotated[
        str | None, typer.Option(help="Hub id or folder [default: the DINOv2-small shipped with moreie].")
    ] = None,
    skip_bad: Annotated[bool, typer.Option(help="Skip and count malformed articles instead of stopping.")] = False,
) -> None:
    """Build a corpus from articles, dumps and pictures."""
    with clear_errors():
        import time

        from moreie.errors import SourceError
        from moreie.knowledge.build import Sources, build_corpus
        from moreie.shipped import IMAGE_ENCODER

        encoder = None
        if images:
            from moreie.encoders.images import ImageEncoder

            encoder = ImageEncoder.from_pretrained(image_encoder or IMAGE_ENCODER)
        pairs = tuple((manifest, image_root or manifest.parent) for manifest in images or ())
        sources = Sources(tuple(articles or ()), tuple(dump or ()), pairs)
        for path in [*sources.articles, *sources.dumps, *(manifest for manifest, _ in pairs)]:
            if not path.is_file():
                raise SourceError(f"{path}: no such file")
        started = time.perf_counter()
        with progress_bar() as bar:
            tasks = {p: bar.add_task(p.name, total=p.stat().st_size) for p in [*sources.articles, *sources.dumps]}
            for manifest, _ in pairs:
                with manifest.open("rb") as lines:
                    tasks[manifest] = bar.add_task(f"{manifest.name} (pictures)", total=sum(1 for _ in lines))
            report = build_corpus(
                destination,
                sources,
                image_encoder=encoder,
                skip_bad=skip_bad,
                progress=lambda path, amount: bar.advance(tasks[path], amount),
            )
        out = console(stderr=True)
        for line in report.skipped[:20]:
            out.print(f"skipped {line}", markup=False, soft_wrap=True)
        if len(report.skipped) > 20:
            listing = Path(f"{Path(destination).name}-skipped.txt")
            listing.write_text("\n".join(report.skipped) + "\n", encoding="utf-8")
            out.print(f"… {len(report.skipped)} skipped in all, listed in {listing}", markup=False)
        out.print(f"built in {time.perf_counter() - started:.1f} s", markup=False)
    info(destination, json=False)


@app.command(epilog="[bold]Example[/]\n\nmoreie corpus info wiki --json")
def info(
    corpus: Annotated[str, typer.Argument(help="Corpus folder or cluster URI.")],
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

        table = Table(title=str(corpus), show_header=False, title_justify="left")
        rows = [
            ("version", opened.version),
            ("created", manifest.created),
            ("articles", f"{manifest.articles:,}"),
            ("passages", f"{manifest.passages:,}"),
            ("sentences", f"{manifest.sentences:,}"),
            ("images", f"{manifest.images:,}"),
        ]
        if manifest.image_encoder:
            rows.append(("image encoder", f"{manifest.image_encoder.name} ({manifest.image_encoder.fingerprint})"))
        rows += [
            (f"from {s.kind}", f"{s.name} ({s.items:,} taken{f', {s.skipped:,} skipped' if s.skipped else ''})")
            for s in manifest.sources
        ]
        if Path(corpus).is_dir():
            size = sum(f.stat().st_size for f in Path(corpus).rglob("*") if f.is_file())
            rows.append(("size on disk", f"{size / 1e6:,.1f} MB"))
        for row in rows:
            table.add_row(*row)
        console().print(table)
