"""`moreie extract` and `moreie demo`: posts in; entities, relations and their evidence out."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors, console, progress_bar

if TYPE_CHECKING:
    from moreie.schema import Post

EXAMPLES = """[bold]Examples[/]

moreie extract --text "Kawhi Leonard wins the fan vote" --image photo.jpg

moreie extract --input posts.jsonl --corpus wiki --json > extractions.jsonl

moreie extract --input posts.jsonl --html report.html

moreie extract --input posts.jsonl --model my-model --attach caption=captions.jsonl --attach knowledge=knowledge.jsonl
"""

DEMO_EXAMPLES = """[bold]Example[/]

moreie demo --html demo.html
"""


def extract(
    text: Annotated[str | None, typer.Option(help="A post's text.")] = None,
    image: Annotated[Path | None, typer.Option(help="The post's picture.")] = None,
    input: Annotated[Path | None, typer.Option(help="A file of posts (docs/data-formats.md).")] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder [default: the shipped model].")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus folder or URI [default: the demo corpus].")] = None,
    attach: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Texts of the posts, read as evidence NAME (`caption`, `knowledge`): a file as for `moreie attach`. "
            "Once for each NAME.",
        ),
    ] = None,
    attach_field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FIELD", help="Field that holds the text of NAME [default: the only one beside the ids]."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; one line a post with --input.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained HTML report.")] = None,
    skip_bad: Annotated[bool, typer.Option(help="Skip and count malformed lines of --input.")] = False,
) -> None:
    """Find entities and relations in a post, or in every post of a file."""
    with clear_errors():
        from moreie.datasets import post_from_text, read_posts
        from moreie.errors import DataFormatError, MoreieError

        bad: list[DataFormatError] = []
        if (text is None) == (input is None):
            raise MoreieError("give either --text (with --image if there is a picture) or --input")
        if input is not None:
            posts = read_posts(input, on_bad=bad.append if skip_bad else None)
        else:
            posts = [post_from_text(text or "", id="post", image=image)]
        files, fields = _assigned(attach or [], "--attach"), _assigned(attach_field or [], "--attach-field")
        attached = _attached(posts, files, fields)
        _run(posts, attached, {}, model, corpus, json=json, one_line=input is not None, html=html)
        for problem in bad:
            console(stderr=True).print(f"skipped {problem}", markup=False, soft_wrap=True)


def demo(
    html: Annotated[Path, typer.Option(help="Where to write the HTML report.")] = Path("demo-report.html"),
) -> None:
    """Show what moreie does with the posts, photographs and corpus that ship with it."""
    with clear_errors():
        from moreie.datasets import read_jsonl
        from moreie.shipped import DEMO_NOTES, DEMO_POSTS

        notes = json_module.loads(DEMO_NOTES.read_text(encoding="utf-8"))
        _run(read_jsonl(DEMO_POSTS), None, notes, None, None, json=False, one_line=False, html=html)


def _assigned(options: list[str], option: str) -> dict[str, str]:
    from moreie.errors import MoreieError

    found: dict[str, str] = {}
    for given in options:
        name, equals, value = given.partition("=")
        if not (name and equals and value):
            raise MoreieError(f"{option} {given}: give a name and a value, such as caption=…")
        if name in found:
            raise MoreieError(f"{option} {given}: {name} is given twice")
        found[name] = value
    return found


def _attached(posts: list[Post], files: dict[str, str], fields: dict[str, str]) -> list[dict[str, str]] | None:
    """By name the texts of each post, and how many there are said; None without files."""
    from moreie.errors import MoreieError
    from moreie.retrieval.attached import match_file

    if lost := sorted(fields.keys() - files.keys()):
        raise MoreieError(f"--attach-field {lost[0]}=…: there is no --attach {lost[0]}=FILE")
    if not files:
        return None
    attached: list[dict[str, str]] = [{} for _ in posts]
    for name, file in files.items():
        matched = match_file(posts, Path(file), fields.get(name))
        for own, text in zip(attached, matched.texts, strict=True):
            if text:
                own[name] = text
        console(stderr=True).print(
            f"{file}: {len(posts):,} posts, {sum(map(bool, matched.texts)):,} with a text; "
            f"{len(matched.unclaimed):,} texts belong to none of them",
            markup=False,
            soft_wrap=True,
        )
    return attached


def _run(
    posts: list[Post],
    attached: list[dict[str, str]] | None,
    notes: dict[str, str],
    model: Path | None,
    corpus: str | None,
    *,
    json: bool,
    one_line: bool,
    html: Path | None,
) -> None:
    from moreie.extractor import Extractor
    from moreie.rendering.html import Shown, page
    from moreie.rendering.terminal import render

    extractor = Extractor.from_pretrained(model, corpus=corpus)
    results = []
    with progress_bar() as bar:
        task = bar.add_task("extracting", total=len(posts))
        for extraction in extractor.stream(posts, attached=attached):
            bar.advance(task)
            results.append(extraction)
            if json:
                indent = None if one_line else 2
                typer.echo(json_module.dumps(extraction.to_dict(), ensure_ascii=False, indent=indent))
    if not json:
        for extraction in results:
            if note := notes.get(extraction.id):
                console().print(f"\n{note}", style="italic", markup=False)
            console().print(render(extraction))
    if html is not None:
        shown = [Shown(e, notes.get(e.id, "")) for e in results]
        html.write_text(page(shown, extractor.corpus, title="moreie: what was found, and why"), encoding="utf-8")
        console(stderr=True).print(f"report: {html}", markup=False)
