"""`moreie data …`: look at data files before hours of work depend on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moreie.cli.console import clear_errors, console

app = typer.Typer(help="Check data files.", no_args_is_help=True)


@app.command(epilog="[bold]Example[/]\n\nmoreie data check twitter2017/*.txt --skip-bad")
def check(
    paths: Annotated[list[Path], typer.Argument(help="Files of posts: JSONL, CoNLL with IMGID, MNRE, WikiDiverse.")],
    images: Annotated[Path | None, typer.Option(help="Folder of the posts' pictures.")] = None,
    skip_bad: Annotated[bool, typer.Option(help="Count and list malformed lines instead of stopping.")] = False,
) -> None:
    """Count posts, words, mentions, relations and pictures, and compare with the published sizes."""
    with clear_errors():
        from collections import Counter

        from rich.table import Table

        from moreie.datasets import read_posts
        from moreie.datasets.published import published_count
        from moreie.errors import DataFormatError

        table = Table(padding=0)
        for heading in ("file", "posts", "published", "words", "mentions", "relations", "pictures", "bad lines"):
            table.add_column(heading, overflow="fold", no_wrap=heading not in ("file", "mentions", "relations"))
        bad: list[DataFormatError] = []
        for path in paths:
            before = len(bad)
            posts = read_posts(path, images=images, on_bad=bad.append if skip_bad else None)
            mentions = Counter(m.type or "untyped" for p in posts for m in p.mentions or ())
            relations = Counter(r.type for p in posts for r in p.relations or ())
            published = published_count(path)
            found = sum(p.image is not None and p.image.is_file() for p in posts)
            table.add_row(
                str(path),
                f"{len(posts):,}",
                "" if published is None else f"{published:,} {'✓' if published == len(posts) else '✗'}",
                f"{sum(len(p.words) for p in posts):,}",
                _summary(mentions),
                _summary(relations),
                f"{found:,}",
                str(len(bad) - before),
            )
        console().print(table)
        for problem in bad:
            console(stderr=True).print(f"skipped {problem}", markup=False, soft_wrap=True)


def _summary(counts: dict[str, int]) -> str:
    listed = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {count:,}" for name, count in listed[:5])
    return shown + (f", {len(listed) - 5} more" if len(listed) > 5 else "")
