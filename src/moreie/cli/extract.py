"""`moreie extract` and `moreie demo`: posts in; entities, relations and their evidence out."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors, console
from moreie.cli.loading import load_extractor
from moreie.rendering.progress import tracked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moreie.extractor import Extractor
    from moreie.knowledge.stores.apart import ReadingProcess
    from moreie.linking.linker import Linker
    from moreie.schema import Attribution, Extraction, Post

# Links of a larger corpus take seconds to count.
MANY_PASSAGES = 100_000

EXAMPLES = """[bold]Examples[/]

moreie extract --text "Kawhi Leonard wins the fan vote" --image photo.jpg

moreie extract --input posts.jsonl --corpus wiki --json > extractions.jsonl

moreie extract --input posts.jsonl --html report.html --int8 --certainty 0.9

moreie extract --input posts.jsonl --json --threshold 0.2

moreie extract --text "Kawhi Leonard leads the Raptors" --attribute

moreie extract --input posts.jsonl --corpus wiki --link --json > linked.jsonl

moreie extract --input posts.jsonl --conll found.txt --brat brat/ --label-studio tasks.json

moreie extract --input posts.jsonl --model my-model --attach caption=captions.jsonl --attach knowledge=knowledge.jsonl
"""

DEMO_EXAMPLES = """[bold]Example[/]

moreie demo --html demo.html
"""


def extract(
    text: Annotated[str | None, typer.Option(help="A post's text.")] = None,
    image: Annotated[Path | None, typer.Option(help="The post's picture.")] = None,
    input: Annotated[Path | None, typer.Option(help="A file of posts (docs/data-formats.md).")] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder \\[default: the shipped model].")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus folder or URI \\[default: the demo corpus].")] = None,
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
            metavar="NAME=FIELD", help="Field that holds the text of NAME \\[default: the only one beside the ids]."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; one line a post with --input.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained HTML report.")] = None,
    attribute: Annotated[
        bool, typer.Option(help="Say what each passage does for each answer; takes as many times longer.")
    ] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Say which article of the corpus each entity is, or that it is none.")
    ] = False,
    conll: Annotated[Path | None, typer.Option(help="Write words and BIO tags to this file.")] = None,
    brat: Annotated[Path | None, typer.Option(help="Write brat's files into this folder.")] = None,
    label_studio: Annotated[Path | None, typer.Option(help="Write Label Studio tasks to this JSON file.")] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Compute in 8 bits on a processor: faster for many posts, not quite the same answers.",
        ),
    ] = False,
    certainty: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Read evidence only for posts and pairs of which the expert without evidence is less sure than this "
            "(0.9, for example): faster, hardly another answer \\[default: always].",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="How probable an entity has to be: lower finds more, higher errs less \\[default: the model's own, "
            "where F1 is expected to be highest].",
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option(help="Skip and count malformed lines of --input.")] = False,
) -> None:
    """Find entities and relations in a post, or in every post of a file."""
    with clear_errors():
        from moreie.errors import DataFormatError, MoreieError

        bad: list[DataFormatError] = []
        if (text is None) == (input is None):
            raise MoreieError("give either --text (with --image if there is a picture) or --input")
        from moreie.knowledge.stores.apart import begun
        from moreie.shipped import DEMO_CORPUS

        # At work while this process imports what it needs itself.
        reading = begun(corpus or DEMO_CORPUS) if text is not None and not link else None
        from moreie.datasets import post_from_text, read_posts

        if input is not None:
            posts = read_posts(input, on_bad=bad.append if skip_bad else None)
        else:
            posts = [post_from_text(text or "", id="post", image=image)]
        _check_folders(html, conll, brat, label_studio)
        files, fields = _assigned(attach or [], "--attach"), _assigned(attach_field or [], "--attach-field")
        attached = _attached(posts, files, fields)
        found = _run(
            posts,
            attached,
            {},
            model,
            corpus,
            int8=int8,
            certainty=certainty,
            threshold=threshold,
            attribute=attribute,
            link=link,
            json=json,
            one_line=input is not None,
            html=html,
            reading=reading,
        )
        _export(found, conll, brat, label_studio)
        for problem in bad:
            console(stderr=True).print(f"skipped {problem}", markup=False, soft_wrap=True)


def demo(
    html: Annotated[Path, typer.Option(help="Where to write the HTML report.")] = Path("demo-report.html"),
) -> None:
    """Show what moreie does with the posts, photographs and corpus that ship with it."""
    with clear_errors():
        from moreie.knowledge.stores.apart import begun
        from moreie.shipped import DEMO_CORPUS, DEMO_NOTES, DEMO_POSTS

        reading = begun(DEMO_CORPUS)
        from moreie.datasets import read_jsonl

        notes = json_module.loads(DEMO_NOTES.read_text(encoding="utf-8"))
        posts = read_jsonl(DEMO_POSTS)
        _run(posts, None, notes, None, None, html=html, reading=reading)


def _check_folders(*written: Path | None) -> None:
    """See before hours of extraction that what is to be written has a place."""
    from moreie.errors import MoreieError

    for path in written:
        if path is not None and not path.absolute().parent.is_dir():
            raise MoreieError(f"{path} cannot be written: there is no folder {path.absolute().parent}")


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
    html: Path | None,
    int8: bool = False,
    certainty: float | None = None,
    threshold: float | None = None,
    attribute: bool = False,
    link: bool = False,
    json: bool = False,
    one_line: bool = False,
    reading: ReadingProcess | None = None,
) -> list[Extraction]:
    pictures = any(post.image is not None for post in posts)
    extractor = load_extractor(model, corpus, reading, certainty=certainty, threshold=threshold, pictures=pictures)
    if int8:
        with console(stderr=True).status("bringing the encoders into 8 bits"):
            extractor = extractor.quantized()
    linker = _linker(extractor) if link else None
    results = []
    found = _answers(extractor, linker, posts, attached, attribute=attribute)
    for attribution in tracked(found, "extracting", len(posts)) if len(posts) > 1 else found:
        results.append(attribution)
        if json:
            indent = None if one_line else 2
            row = attribution.to_dict() if attribute else attribution.extraction.to_dict()
            typer.echo(json_module.dumps(row, ensure_ascii=False, indent=indent))
    if not json:
        from moreie.rendering.terminal import render, render_influences

        for attribution in results:
            if note := notes.get(attribution.extraction.id):
                console().print(f"\n{note}", style="italic", markup=False)
            console().print(render(attribution.extraction))
            if attribute:
                console().print(render_influences(attribution))
    if html is not None:
        from moreie.rendering.html import Shown, page

        shown = [Shown(a.extraction, notes.get(a.extraction.id, ""), a.influences) for a in results]
        html.write_text(page(shown, extractor.corpus, title="moreie: what was found, and why"), encoding="utf-8")
        console(stderr=True).print(f"report: {html}", markup=False)
    return [a.extraction for a in results]


def _linker(extractor: Extractor) -> Linker | None:
    from moreie.linking.counting import kept_anchors
    from moreie.linking.linker import Linker

    corpus = extractor.corpus
    if corpus is not None and corpus.manifest.passages > MANY_PASSAGES and kept_anchors(corpus) is None:
        console(stderr=True).print(
            f"counting where the links of {corpus.location} lead; `moreie corpus anchors {corpus.location}` does that "
            "once for all",
            markup=False,
            soft_wrap=True,
        )
    return Linker.for_corpus(corpus) if corpus is not None else None


def _answers(
    extractor: Extractor,
    linker: Linker | None,
    posts: list[Post],
    attached: list[dict[str, str]] | None,
    *,
    attribute: bool,
) -> Iterator[Attribution]:
    """What was found in each post; without `attribute` nothing is said of what it rests on."""
    from dataclasses import replace

    from moreie.schema import Attribution

    if attribute:
        for post, texts in zip(posts, attached or [{}] * len(posts), strict=True):
            found = extractor.attribute(post, attached=texts)
            yield replace(found, extraction=linker.link(found.extraction)) if linker else found
    else:
        extractions = extractor.stream(posts, attached=attached)
        for extraction in linker.stream(extractions) if linker else extractions:
            yield Attribution(extraction, ())


def _export(found: list[Extraction], conll: Path | None, brat: Path | None, label_studio: Path | None) -> None:
    if conll is None and brat is None and label_studio is None:
        return
    from moreie.exports import brat as brat_files
    from moreie.exports import conll as conll_file
    from moreie.exports import label_studio as tasks

    for path, write in ((conll, conll_file.write), (brat, brat_files.write), (label_studio, tasks.write)):
        if path is not None:
            write(found, path)
            console(stderr=True).print(f"wrote {path}", markup=False)
