"""`moreie attach`: texts that belong to posts (captions, a language model's knowledge) as evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors, console

if TYPE_CHECKING:
    from moreie.datasets.texts import Matched
    from moreie.schema import Post

LISTED = 10

EXAMPLES = """[bold]Examples[/]

moreie attach captions.jsonl --input train.txt --name caption --title Image --save evidence/train-caption.jsonl.zst

moreie attach pgim/train.txt --input train.txt --name knowledge --save evidence/train-knowledge.jsonl.zst
"""


def attach(
    texts: Annotated[
        Path,
        typer.Argument(help="JSONL: each text with its post's id or image_id. Or a file in PGIM's format."),
    ],
    input: Annotated[Path, typer.Option(help="The posts: a file in any format that `moreie check` reads.")],
    save: Annotated[Path, typer.Option(help="Evidence file to write (.jsonl.zst).")],
    name: Annotated[str, typer.Option(help="What the evidence is called: the `retriever` of an expert's view.")],
    title: Annotated[str, typer.Option(help="What experts read before each text \\[default: nothing].")] = "",
    field: Annotated[
        str | None, typer.Option(help="Field that holds the text \\[default: the only one beside the ids].")
    ] = None,
) -> None:
    """Make an evidence file of texts that belong to posts, such as captions of their pictures."""
    with clear_errors():
        from moreie.datasets import read_posts
        from moreie.retrieval.attached import attach_texts
        from moreie.retrieval.cache import save_evidence

        posts = read_posts(input)
        attached = attach_texts(posts, texts, name, title=title, field=field)
        save_evidence(save, attached.header, posts, attached.rows)
        _report(save, posts, attached.matched)


def _report(save: Path, posts: list[Post], matched: Matched) -> None:
    out = console(stderr=True)
    without = [post for post, text in zip(posts, matched.texts, strict=True) if not text]
    # A file of captions may hold those of other splits; knowledge that fits no post's words is a misfit.
    misfits = [text for text in matched.unclaimed if text.key == "words"]
    out.print(
        f"{save}: {len(posts):,} posts, {len(posts) - len(without):,} with a text; "
        f"{len(matched.unclaimed):,} texts belong to none of them",
        markup=False,
        soft_wrap=True,
    )
    lines = [f"no text for post {post.id}: {post.text}" for post in without[:LISTED]]
    if len(without) > LISTED:
        lines.append(f"… and for {len(without) - LISTED:,} more")
    lines += [f"no post of these words, in line {text.line}: {' '.join(text.value)}" for text in misfits[:LISTED]]
    if len(misfits) > LISTED:
        lines.append(f"… and of {len(misfits) - LISTED:,} others")
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)
