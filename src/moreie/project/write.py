"""A project folder: recipes with comments, the model that their training will fill, posts and captions set apart."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from moreie.datasets import write_jsonl
from moreie.encoders.places import relative_name
from moreie.errors import MoreieError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.stores import in_cluster
from moreie.models.folder import EXTRACTOR_FILE, ExtractorSpec, read_extractor_spec
from moreie.project.settings import settings_for
from moreie.project.survey import SplitName, Survey, Task
from moreie.schema import Post
from moreie.shipped import IMAGE_ENCODER, MODEL
from moreie.training.data import missing_reversed_none

# Above one nat, pairs without a relation stand in the text's order nearly three times as often as against it.
LOPSIDED = 1.0


@dataclass(frozen=True)
class Plan:
    """Where a project is written and with what: `corpus` a folder or URI, `encoder` a folder or hub id."""

    folder: Path
    survey: Survey
    corpus: str | None = None
    encoder: str | None = None
    images: Path | None = None


@dataclass(frozen=True)
class Project:
    """What was written, and the commands that come next."""

    files: tuple[Path, ...]
    commands: tuple[str, ...]
    evidence: tuple[str, ...]
    """Retrievers whose evidence experts read."""


def write_project(plan: Plan, *, force: bool = False) -> Project:
    """Write everything, or nothing where a file is there already and `force` is not given.

    Raises:
        MoreieError: a file is there.
        KnowledgeCorpusError: the corpus cannot be opened.
    """
    evidence, image_encoder = _evidence(plan)
    writers: dict[Path, Callable[[Path], None]] = {}
    files: dict[SplitName, Path] = dict(plan.survey.files)
    if plan.survey.split_off:
        for split in ("train", "validation"):
            files[split] = plan.folder / "data" / f"{split}.jsonl"
            writers[files[split]] = _writer(write_jsonl, plan.survey.posts[split])
    for split, posts in plan.survey.posts.items() if "caption" in evidence else ():
        writers[plan.folder / "captions" / f"{split}.jsonl"] = _writer(_write_captions, posts)
    recipes = {task: plan.folder / f"{task}.yaml" for task in plan.survey.labels}
    commands = _commands(plan, recipes, evidence)
    for task, path in recipes.items():
        text = _recipe(plan, task, files, evidence, image_encoder, commands)
        writers[path] = _writer(_write_text, text)
    writers[plan.folder / "model" / EXTRACTOR_FILE] = _writer(_write_text, _model(plan, evidence, image_encoder))
    if (there := [path for path in writers if path.exists()]) and not force:
        raise MoreieError(f"{', '.join(map(str, there))}: there already; --force writes over, or name another folder")
    for path, write in writers.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    return Project(tuple(writers), tuple(commands), tuple(evidence))


def _writer(write: Callable[..., None], content: object) -> Callable[[Path], None]:
    return lambda path: write(content, path)


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _write_captions(posts: Sequence[Post], path: Path) -> None:
    rows = ({"id": post.id, "caption": post.caption} for post in posts if post.caption)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _evidence(plan: Plan) -> tuple[list[str], str | None]:
    """Retrievers worth an expert, and the encoder that the corpus' pictures were embedded with."""
    evidence, encoder = [], None
    if plan.corpus is not None:
        manifest = KnowledgeCorpus.open(plan.corpus).manifest
        evidence.append("text")
        if plan.survey.has_pictures and manifest.images and manifest.image_encoder:
            evidence.append("image")
            encoder = manifest.image_encoder.name
            # A corpus keeps the name its encoder had on the machine where it was built.
            if Path(encoder).name == IMAGE_ENCODER.name:
                encoder = str(IMAGE_ENCODER)
    if plan.survey.has_captions:
        evidence.append("caption")
    return evidence, encoder


def _recipe(
    plan: Plan,
    task: Task,
    files: dict[SplitName, Path],
    evidence: list[str],
    image_encoder: str | None,
    commands: Sequence[str],
) -> str:
    posts = plan.survey.posts
    examples = len(posts["train"]) if task == "ner" else plan.survey.labels["re"].total()
    shipped = plan.encoder is None
    environment = Environment(
        loader=PackageLoader("moreie.project"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"q": _quoted, "rate": "{:.1e}".format}
    return environment.get_template("recipe.yaml.j2").render(
        task=task,
        splits=list(posts),
        counts={split: f"{len(own):,}" for split, own in posts.items()},
        files={split: _relative(path, plan.folder) for split, path in files.items()},
        split_off=plan.survey.split_off,
        images=_relative(plan.images, plan.folder) if plan.images else None,
        shipped=shipped,
        encoder=plan.encoder and _place(plan.encoder, plan.folder),
        settings=settings_for(task, examples, shipped=shipped, gpu=torch.cuda.is_available()),
        evidence=evidence,
        corpus=plan.corpus and _place(plan.corpus, plan.folder),
        image_encoder=image_encoder if image_encoder != str(IMAGE_ENCODER) else None,
        commands=commands,
        swapped_none=task == "re" and missing_reversed_none(posts["train"]) > LOPSIDED,
    )


def _model(plan: Plan, evidence: list[str], image_encoder: str | None) -> str:
    """`extractor.json`: the mixtures that training will leave, as one model."""
    folder, tasks = plan.folder / "model", plan.survey.labels
    shipped = relative_name(str(read_extractor_spec(MODEL).place("ner", MODEL)), folder)
    spec = ExtractorSpec(
        name=plan.folder.resolve().name,
        ner="../runs/ner/seed-1" if "ner" in tasks else shipped,
        relations="../runs/re/seed-1" if "re" in tasks else None,
        image_encoder=relative_name(image_encoder, folder) if image_encoder and "image" in evidence else None,
    )
    return spec.model_dump_json(indent=2) + "\n"


def _commands(plan: Plan, recipes: dict[Task, Path], evidence: list[str]) -> list[str]:
    corpus = ["--corpus", plan.corpus] if plan.corpus else []
    commands: list[list[str]] = []
    for recipe in map(str, recipes.values()):
        if evidence:
            commands.append(["moreie", "retrieve", "--recipe", recipe])
        commands.append(["moreie", "check", recipe])
        commands.append(["moreie", "train", recipe])
        for split in ("validation", "test"):
            if split in plan.survey.posts:
                commands.append(["moreie", "evaluate", recipe, "--split", split])
    model = str(plan.folder / "model")
    commands.append(["moreie", "extract", "--input", "NEW-POSTS.jsonl", "--model", model, *corpus])
    return [shlex.join(command) for command in commands]


def _place(name: str, folder: Path) -> str:
    """A folder relative to the project's; a hub id or a URI as it is."""
    return name if in_cluster(name) or not Path(name).is_dir() else _relative(Path(name), folder)


def _relative(path: Path, folder: Path) -> str:
    """The way from the project's folder; links on the way stay, lest somebody wonder where it leads."""
    return os.path.relpath(os.path.abspath(path), folder.resolve())


def _quoted(text: str) -> str:
    """A YAML scalar that means this text, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)
