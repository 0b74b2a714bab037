"""A check from end to end: of files by themselves, or of everything a recipe names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moreie.checking.annotation import annotation_findings
from moreie.checking.cost import expert_costs
from moreie.checking.evidence import evidence_findings
from moreie.checking.findings import CheckedFile, Finding, Report
from moreie.checking.labels import label_findings
from moreie.checking.lines import line_findings, read_file
from moreie.checking.pictures import picture_findings
from moreie.checking.relations import relation_findings
from moreie.checking.texts import contradicting_copies, empty_texts, long_posts, shared_texts, unknown_words
from moreie.datasets import read_captions, read_relation_labels
from moreie.encoders.text import TextEncoder
from moreie.errors import DataFormatError, EncoderError
from moreie.models.windows import POST_LIMIT
from moreie.rendering.progress import Each, untracked
from moreie.training.recipe import read_recipe

if TYPE_CHECKING:
    from moreie.training.recipe import Recipe

# Fewer validation posts than these choose epochs and fit a gate by chance.
FEW_POSTS = 50


def check_files(
    paths: Sequence[Path],
    *,
    images: Path | None = None,
    encoder: TextEncoder | None = None,
    each: Each[Path] = untracked,
) -> Report:
    """Check data files together, as the splits of one data set. `images`: folder of pictures named by id.

    Raises:
        DataFormatError: there is no such file.
    """
    for path in paths:
        if not path.is_file():
            raise DataFormatError("no such file", path)
    files = [read_file(path, images=images) for path in paths]
    findings = [f for file in files for f in _of_file(file, encoder, images, False, each)]
    return Report(tuple(files), (*findings, *label_findings(files), *shared_texts(files)))


def check_recipe(path: Path, *, each: Each[Path] = untracked, measure: bool = True) -> Report:
    """Check all that a recipe names, and say what its training takes; `measure`: in seconds too, by a few batches.

    Raises:
        RecipeError: no readable recipe.
        DataFormatError: a file of captions or labels that it names is not there or damaged.
    """
    recipe = read_recipe(path)
    encoder, findings = _encoder(recipe)
    labels = read_relation_labels(recipe.data.labels) if recipe.data.labels else None
    files = []
    for split, own in recipe.splits.items():
        captions = read_captions(own.captions, own.caption_field) if own.captions else None
        file = read_file(own.posts, split=split, task=recipe.task, images=own.images, captions=captions, labels=labels)
        files.append(file)
        findings += _of_file(file, encoder, own.images, recipe.swapped_none, each)
        findings += evidence_findings(recipe, split, file, path)
    findings += label_findings(files, labels)
    findings += shared_texts(files)
    findings += _enough(recipe, files)
    costs = []
    if encoder is not None and not any(f.level == "error" for f in findings):
        costs = expert_costs(recipe, encoder, files, measure=measure)
    folds = {gate.folds for gate in recipe.every_gate if gate.cross_fit}
    runs = len(recipe.seeds) * (1 + sum(folds))
    return Report(tuple(files), tuple(findings), tuple(costs), runs)


def _of_file(
    file: CheckedFile, encoder: TextEncoder | None, images: Path | None, swapped_none: bool, each: Each[Path]
) -> Iterator[Finding]:
    yield from line_findings(file)
    yield from empty_texts(file)
    yield from contradicting_copies(file)
    yield from annotation_findings(file)
    yield from relation_findings(file, swapped_none=swapped_none)
    if encoder is not None:
        yield from long_posts(file, encoder, POST_LIMIT)
        yield from unknown_words(file, encoder)
    yield from picture_findings(file, images, each)


def _encoder(recipe: Recipe) -> tuple[TextEncoder | None, list[Finding]]:
    try:
        return TextEncoder.from_pretrained(recipe.encoder), []
    except EncoderError as problem:
        return None, [Finding("error", "no-encoder", "encoder", str(problem), 1)]


def _enough(recipe: Recipe, files: Sequence[CheckedFile]) -> Iterator[Finding]:
    """Is there something to learn from, and enough to choose by?"""
    for file in files:
        learnt = [p for p in file.posts if (p.mentions if recipe.task == "ner" else p.relations)]
        if file.split == "train" and not learnt and file.posts:
            what = "mentions" if recipe.task == "ner" else "relations"
            yield Finding("error", "nothing-to-learn", file.where, f"no post has {what}", len(file.posts))
        if file.split == "validation" and len(file.posts) < FEW_POSTS:
            gate = " and fit the gate" if recipe.gate.from_validation and len(recipe.members) > 1 else ""
            yield Finding(
                "warning",
                "few-posts",
                file.where,
                f"{len(file.posts):,} posts choose the best epoch{gate}: that is much by chance",
                len(file.posts),
                remedy=f"take {FEW_POSTS} or more",
            )
