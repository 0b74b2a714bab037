"""`moreie retrieve`: what the retrievers find, for one post or for a data set."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors, console, progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from moreie.knowledge.corpus import KnowledgeCorpus
    from moreie.retrieval.entity import Predict
    from moreie.retrieval.retrieved import Retrieved, Retriever
    from moreie.retrieval.settings import RetrievalSettings
    from moreie.schema import Post

EXAMPLES = """[bold]Examples[/]

moreie retrieve --text "Kawhi Leonard wins the fan vote" -k 5

moreie retrieve --image photo.jpg --corpus art --json

moreie retrieve --text "Kawhi Leonard wins the fan vote" --mode entities --corpus wiki

moreie retrieve --image photo.jpg --search texts --corpus wiki --image-encoder openai/clip-vit-base-patch32

moreie retrieve --text "a harbour by moonlight" --search pictures --corpus art --image-encoder art-clip/

moreie retrieve --input train.txt --corpus wiki --save evidence/train-text.jsonl.zst

moreie retrieve --input train.txt --corpus wiki --mode iterative --save evidence/train-text.jsonl.zst

moreie retrieve --input train.txt --captions captions.jsonl --corpus wiki --save evidence/train-image.jsonl.zst

moreie retrieve --recipe recipe.yaml --corpus wiki
"""


def retrieve(
    text: Annotated[str | None, typer.Option(help="A post's text.")] = None,
    image: Annotated[Path | None, typer.Option(help="A post's picture.")] = None,
    input: Annotated[
        Path | None,
        typer.Option(help="A file of posts, as `moreie check` reads it; its evidence goes to --save."),
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="Captions of the posts' pictures: they are searched in place of the pictures.")
    ] = None,
    caption_field: Annotated[str, typer.Option(help="Field of the caption file.")] = "caption",
    save: Annotated[Path | None, typer.Option(help="Evidence file to write (.jsonl.zst).")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus folder or URI \\[default: the demo corpus].")] = None,
    image_encoder: Annotated[
        str | None, typer.Option(help="Hub id or folder \\[default: DINOv2-small, shipped].")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Passages per retriever.")] = 10,
    search: Annotated[
        str | None,
        typer.Option(
            help="What is searched: `texts` or `pictures` \\[default: texts for --text, pictures for --image]. Across "
            "the two it takes an image encoder with a text tower (CLIP), and for --image `moreie corpus embed`."
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="`sentences`: the whole post is the query; `entities`: its names first; `iterative`: the names that "
            "a model predicts first."
        ),
    ] = "sentences",
    model: Annotated[
        Path | None, typer.Option(help="With --mode iterative: model folder \\[default: the shipped model].")
    ] = None,
    rerank: Annotated[
        str | None, typer.Option(help="Sentence encoder (or, with --cross-encoder, classifier) to re-rank by.")
    ] = None,
    cross_encoder: Annotated[bool, typer.Option(help="--rerank names a cross-encoder.")] = False,
    keep_copies: Annotated[
        bool, typer.Option(help="With --input: keep near-copies of the post and repetitions as evidence.")
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Make the evidence files that a recipe names and that are not there, as `retrieval` says."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find evidence for a post, for every post of a file, or for a recipe."""
    with clear_errors():
        from pydantic import ValidationError

        from moreie.datasets import post_from_text
        from moreie.errors import MoreieError
        from moreie.knowledge.corpus import KnowledgeCorpus
        from moreie.retrieval.settings import RetrievalSettings
        from moreie.shipped import DEMO_CORPUS, IMAGE_ENCODER

        if recipe is not None:
            if text is not None or any((image, input, captions, save)):
                raise MoreieError("--recipe goes with --corpus only: the recipe says what is retrieved and kept")
            _retrieve_recipe(recipe, corpus)
            return
        if mode not in ("sentences", "entities", "iterative"):
            raise MoreieError(f"--mode {mode}: sentences, entities or iterative")
        if search not in (None, "texts", "pictures"):
            raise MoreieError(f"--search {search}: texts or pictures")
        if search == "pictures" and (mode != "sentences" or rerank):
            raise MoreieError("--mode and --rerank do not go with --search pictures: they are for texts")
        if search and input:
            raise MoreieError("--search is for --text and --image; the evidence of a file is found in texts")
        encoder_name = str(image_encoder or IMAGE_ENCODER)
        predict = name = None
        if mode == "iterative":
            from moreie.extractor import Extractor

            extractor = Extractor.from_pretrained(model)
            predict, name = extractor.mentions_alone, extractor.name
        try:
            settings = RetrievalSettings(
                mode="captions" if captions else mode,  # type: ignore[arg-type]
                k=k,
                model=name,
                rerank=rerank,
                cross_encoder=cross_encoder,
                keep_copies=keep_copies or input is None,
            )
        except ValidationError as problem:
            raise MoreieError(str(problem)) from problem
        opened = KnowledgeCorpus.open(corpus or DEMO_CORPUS)
        if input is not None:
            if save is None:
                raise MoreieError("--input needs --save: the evidence of a file goes into a file")
            _retrieve_file(opened, input, captions, caption_field, save, settings, predict)
            return
        if text is None and image is None:
            raise MoreieError("give --text, --image, or both (or a file of posts with --input)")
        post = post_from_text(text or "", id="post", image=image)
        found: list[tuple[str, Retrieved]] = []
        texts = settings.retriever(opened, predict) if text is not None and search != "pictures" else None
        if texts:
            found.append(("text", texts.retrieve([post])[0]))
        for kind, retriever in _with_encoder(opened, k, text is not None, image is not None, search, encoder_name):
            found.append((kind, retriever.retrieve([post])[0]))
        if json:
            evidence = [e.to_dict() for _, r in found for e in r.evidence]
            warnings = [w for _, r in found for w in r.warnings]
            typer.echo(json_module.dumps({"evidence": evidence, "warnings": warnings}, ensure_ascii=False, indent=2))
        else:
            _print(found)


def _with_encoder(
    corpus: KnowledgeCorpus, k: int, text: bool, image: bool, search: str | None, encoder_name: str
) -> Iterator[tuple[str, Retriever]]:
    """What finds evidence by an image encoder, each with the name it is shown under."""
    if not image and search != "pictures":
        return
    from moreie.encoders.images import ImageEncoder
    from moreie.retrieval.crossmodal import ImageToTextRetriever, TextToImageRetriever
    from moreie.retrieval.image import ImageRetriever

    encoder = ImageEncoder.from_pretrained(encoder_name)
    if text and search == "pictures":
        yield "text → picture", TextToImageRetriever(corpus, encoder, k)
    if image and search == "texts":
        yield "picture → text", ImageToTextRetriever(corpus, encoder, k)
    elif image:
        yield "image", ImageRetriever(corpus, encoder, k)


def _print(found: Sequence[tuple[str, Retrieved]]) -> None:
    from rich.table import Table

    out = console()
    for name, retrieved in found:
        table = Table(title=f"{name} retriever", title_justify="left", show_lines=True)
        for heading in ("rank", "score", "title", "matched", "passage"):
            table.add_column(heading, justify="right" if heading in ("rank", "score") else "left")
        for e in retrieved.evidence:
            matched = e.passage.sentence or e.passage.image or ""
            table.add_row(str(e.rank), f"{e.score:.3f}", e.passage.title, matched, e.passage.text)
        out.print(table)
        for warning in retrieved.warnings:
            console(stderr=True).print(f"note: {warning}", markup=False)


def _retrieve_file(
    corpus: KnowledgeCorpus,
    input: Path,
    captions: Path | None,
    caption_field: str,
    save: Path,
    settings: RetrievalSettings,
    predict: Predict | None = None,
    batch: int = 256,
) -> None:
    from moreie.datasets import read_captions, read_posts
    from moreie.retrieval.cache import EvidenceHeader, posts_digest, read_header, save_evidence

    posts = read_posts(input, captions=read_captions(captions, caption_field) if captions else None)
    retriever = settings.retriever(corpus, predict)
    header = EvidenceHeader(
        retriever=retriever.name,
        query=f"caption:{caption_field}" if captions else "post",
        k=settings.k,
        corpus=corpus.version,
        posts=len(posts),
        settings=settings,
        digest=posts_digest(posts),
    )
    if save.is_file() and read_header(save) == header:
        console(stderr=True).print(f"{save}: these posts' evidence is there already; nothing to do", markup=False)
        return
    rows: list[Retrieved] = []
    with progress_bar() as bar:
        task = bar.add_task(f"{input.name} → {save.name}", total=len(posts))
        for start in range(0, len(posts), batch):
            part: Sequence[Post] = posts[start : start + batch]
            rows += retriever.retrieve(part)
            bar.advance(task, len(part))
    save_evidence(save, header, posts, [row.evidence for row in rows])
    without = sum(not row.evidence for row in rows)
    copies = sum(any("near-cop" in warning for warning in row.warnings) for row in rows)
    console(stderr=True).print(
        f"{save}: {len(posts):,} posts, {without:,} without evidence, {copies:,} with copies of themselves left out",
        markup=False,
        soft_wrap=True,
    )


def _retrieve_recipe(path: Path, corpus: str | None) -> None:
    from moreie.rendering.progress import tracked
    from moreie.reproduction.evidence import ensure_evidence
    from moreie.training.recipe import read_recipe

    recipe = read_recipe(path)
    ensure_evidence(
        recipe,
        corpus or (recipe.retrieval.corpus if recipe.retrieval else None),
        (),
        lambda line: console(stderr=True).print(line, markup=False, soft_wrap=True),
        tracked,
    )


EVIDENCE_EXAMPLES = """[bold]Examples[/]

moreie evidence evidence/train-text.jsonl.zst

moreie evidence evidence/train-text.jsonl.zst --post 17_06_12598
"""


def evidence(
    file: Annotated[Path, typer.Argument(help="Evidence file made by `moreie retrieve` or `moreie attach`.")],
    post: Annotated[str | None, typer.Option(help="Show the evidence of this post.")] = None,
) -> None:
    """Look into an evidence file: what it was made from, and what it holds for a post."""
    with clear_errors():
        from moreie.errors import MoreieError
        from moreie.retrieval.cache import each_row, read_header
        from moreie.retrieval.retrieved import Retrieved

        out = console()
        out.print_json(read_header(file).model_dump_json())
        if post is None:
            return
        for id, text, found in each_row(file):
            if id == post:
                out.print(text, markup=False)
                _print([(found[0].retriever if found else "no", Retrieved(found))])
                return
        raise MoreieError(f"{file}: holds no post {post!r}")
