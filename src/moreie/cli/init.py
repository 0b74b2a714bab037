"""`moreie init`: from a user's posts to a recipe and the commands to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors, console

if TYPE_CHECKING:
    from moreie.project.survey import Survey

EXAMPLES = """[bold]Examples[/]

moreie init my-project --data posts.jsonl

moreie init my-project --data train.jsonl --validation valid.jsonl --test test.jsonl --corpus wiki

moreie init my-project --data train.txt --validation valid.txt --images pictures/ --encoder xlm-roberta-base
"""


def init(
    data: Annotated[Path, typer.Option(help="The posts to learn from (docs/data-formats.md).")],
    folder: Annotated[Path, typer.Argument(help="Folder to write recipes and model into.")] = Path("."),
    validation: Annotated[
        Path | None, typer.Option(help="Posts to choose by \\[default: some of --data, by their text].")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Posts to be scored on once, at the end.")] = None,
    task: Annotated[
        str | None, typer.Option(help="`ner` (entities) or `re` (relations) \\[default: what the posts have].")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Corpus folder or URI to find evidence in \\[default: no retrieved evidence].")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Hub id or folder \\[default: MiniLM, shipped].")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the posts' pictures, named by image id.")] = None,
    force: Annotated[bool, typer.Option(help="Write over files that are there.")] = False,
) -> None:
    """Write a commented recipe for your own data, and say what to run next."""
    with clear_errors():
        from moreie.errors import MoreieError
        from moreie.project.survey import survey
        from moreie.project.write import Plan, write_project

        if task not in (None, "ner", "re"):
            raise MoreieError(f"--task {task}: ner or re")
        found = survey(data, validation, test, task=task, images=images)  # type: ignore[arg-type]
        project = write_project(Plan(folder, found, corpus, encoder, images), force=force)
        _print(found)
        out = console()
        if found.has_pictures and "image" not in project.evidence:
            why = "holds none" if corpus else "is not named"
            out.print(
                f"The posts' pictures are not used: they are compared with those of a corpus, which {why}.",
                soft_wrap=True,
            )
        if "ner" not in found.labels:
            out.print(
                "Entities will be found by the model that ships with moreie, and relations between them by yours.",
                soft_wrap=True,
            )
        for path in project.files:
            out.print(f"wrote {path}", markup=False, soft_wrap=True)
        out.print("\nNext:")
        for command in project.commands:
            out.print(f"  {command}", markup=False, soft_wrap=True)


def _print(found: Survey) -> None:
    from rich.markup import escape
    from rich.table import Table

    from moreie.project.survey import FEW, SHARE, SHARE_OF_FEW

    table = Table(padding=0)
    for heading in ("split", "posts", "with a picture", "with a caption", "file"):
        table.add_column(heading, justify="left" if heading in ("split", "file") else "right", overflow="fold")
    for split, posts in found.posts.items():
        pictures = sum(p.image is not None and p.image.is_file() for p in posts)
        captions = sum(bool(p.caption) for p in posts)
        table.add_row(split, f"{len(posts):,}", f"{pictures:,}", f"{captions:,}", escape(str(found.files[split])))
    out = console()
    out.print(table)
    if found.split_off:
        share = SHARE_OF_FEW if sum(map(len, found.posts.values())) < FEW else SHARE
        out.print(
            f"Validation: about {share:.0%} of the posts were taken from {found.files['train']} by a checksum of their "
            "text; the same ones each time, and posts of the same text together.",
            markup=False,
            soft_wrap=True,
        )
    for task, labels in found.labels.items():
        listed = ", ".join(f"{label} {count:,}" for label, count in labels.most_common(12))
        more = f", {len(labels) - 12} more" if len(labels) > 12 else ""
        out.print(f"{'Entities' if task == 'ner' else 'Relations'}: {listed}{more}", markup=False, soft_wrap=True)
