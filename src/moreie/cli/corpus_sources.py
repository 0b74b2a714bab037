"""What `moreie corpus` builds from: the options that name sources, a bar for each, and what was skipped of them."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import console, progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moreie.encoders.images import ImageEncoder
    from moreie.knowledge.build import Progress, Sources

ArticleFiles = Annotated[
    list[Path] | None, typer.Option("--articles", help="Article JSONL: plain, .gz or .zst (repeatable).")
]
Dumps = Annotated[list[Path] | None, typer.Option("--dump", help="MediaWiki XML: .xml or .xml.bz2 (repeatable).")]
Manifests = Annotated[
    list[Path] | None, typer.Option("--images", help="Image manifest: JSONL, or WIT .tsv (repeatable).")
]
ImageRoot = Annotated[
    Path | None, typer.Option(help="Folder or tar archive of the manifests' files \\[default: the manifest's folder].")
]
EncoderName = Annotated[
    str | None, typer.Option(help="Hub id or folder \\[default: the DINOv2-small shipped with moreie].")
]
SkipBad = Annotated[bool, typer.Option(help="Skip and count malformed articles instead of stopping.")]


def sources_of(
    articles: list[Path] | None,
    dump: list[Path] | None,
    images: list[Path] | None,
    image_root: Path | None,
    image_encoder: str | None,
) -> tuple[Sources, ImageEncoder | None]:
    """The sources that the options name, which have to be there, and the encoder of their pictures, if they have any.

    Raises:
        SourceError: no source is given, or one is not there.
    """
    from moreie.errors import SourceError
    from moreie.knowledge.build import Sources
    from moreie.shipped import IMAGE_ENCODER

    if not (articles or dump or images):
        raise SourceError("give at least one source: --articles, --dump or --images")
    pairs = tuple((manifest, image_root or manifest.parent) for manifest in images or ())
    sources = Sources(tuple(articles or ()), tuple(dump or ()), pairs)
    for path in [*sources.articles, *sources.dumps, *(manifest for manifest, _ in pairs)]:
        if not path.is_file():
            raise SourceError(f"{path}: no such file")
    if not images:
        return sources, None
    from moreie.encoders.images import ImageEncoder

    return sources, ImageEncoder.from_pretrained(image_encoder or IMAGE_ENCODER)


@contextmanager
def source_bars(sources: Sources) -> Iterator[Progress]:
    """What building is to tell of each source read: bytes of articles and dumps, pictures of manifests."""
    with progress_bar() as bar:
        tasks = {p: bar.add_task(p.name, total=p.stat().st_size) for p in [*sources.articles, *sources.dumps]}
        for manifest, _ in sources.images:
            with manifest.open("rb") as lines:
                tasks[manifest] = bar.add_task(f"{manifest.name} (pictures)", total=sum(1 for _ in lines))
        yield lambda path, amount: bar.advance(tasks[path], amount)


def say_skipped(skipped: list[str], corpus: str) -> None:
    """Print the first 20; more are also listed in a file beside the corpus."""
    out = console(stderr=True)
    for line in skipped[:20]:
        out.print(f"skipped {line}", markup=False, soft_wrap=True)
    if len(skipped) > 20:
        from moreie.knowledge.stores import in_cluster

        folder = Path() if in_cluster(corpus) else Path(corpus).parent
        listing = folder / f"{Path(corpus).name}-skipped.txt"
        listing.write_text("\n".join(skipped) + "\n", encoding="utf-8")
        out.print(f"… {len(skipped)} skipped in all, listed in {listing}", markup=False)
