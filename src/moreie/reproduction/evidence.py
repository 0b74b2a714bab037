"""Evidence files of a recipe: one that was made for these posts, this corpus and these settings is taken as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from moreie.datasets import read_captions, read_posts
from moreie.errors import RecipeError
from moreie.extractor import Extractor
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.rendering.progress import Each, untracked
from moreie.retrieval.attached import Attachment, attach_texts
from moreie.retrieval.cache import EvidenceHeader, posts_digest, read_header, save_evidence
from moreie.retrieval.retrieved import Retrieved
from moreie.retrieval.settings import RetrievalSettings
from moreie.schema import Post
from moreie.training.recipe import Recipe, SplitFiles

BATCH = 256


@dataclass(frozen=True)
class Attaching:
    """An evidence file of texts that belong to posts."""

    path: Path
    posts: tuple[Post, ...]
    attachment: Attachment

    def header(self, corpus: str | None) -> EvidenceHeader:
        return self.attachment.header


@dataclass(frozen=True)
class Job:
    """An evidence file, and what it is to be retrieved with."""

    path: Path
    retriever: str
    settings: RetrievalSettings
    files: SplitFiles
    posts: tuple[Post, ...]
    model: str | None
    """Model folder of iterative retrieval; the settings keep its name."""

    def header(self, corpus: str | None) -> EvidenceHeader:
        """The header it has when it is made from a corpus of this version."""
        captions = self.settings.mode == "captions"
        return EvidenceHeader(
            retriever=self.retriever,
            query=f"caption:{self.files.caption_field}" if captions else "post",
            k=self.settings.k,
            corpus=corpus,
            posts=len(self.posts),
            settings=self.settings,
            digest=posts_digest(self.posts),
        )


def ensure_evidence(
    recipe: Recipe,
    corpus: str | None,
    articles: tuple[Path, ...],
    say: Callable[[str], None],
    each: Each[int] = untracked,
) -> None:
    """Make what is missing of a recipe's evidence files from `corpus`, which is built from `articles` if need be.

    Raises:
        RecipeError: something is missing, and recipe or corpus to make it with.
        KnowledgeCorpusError: the corpus cannot be opened or built.
    """
    version = KnowledgeCorpus.open(corpus).version if corpus and _exists(corpus) else None
    unmade = []
    for attaching in _attachings(recipe):
        if _difference(attaching, None):
            save_evidence(attaching.path, attaching.attachment.header, attaching.posts, attaching.attachment.rows)
            without = sum(not row for row in attaching.attachment.rows)
            say(f"{attaching.path}: texts of {len(attaching.posts) - without:,} posts, {without:,} have none")
        else:
            say(f"{attaching.path}: made before, kept")
    for job in _jobs(recipe):
        if difference := _difference(job, version):
            unmade.append((job, difference))
        else:
            say(f"{job.path}: made before, kept")
    if not unmade:
        return
    if corpus is None:
        wanted = "\n".join(f"  {job.path}: {difference}" for job, difference in unmade)
        raise RecipeError(f"evidence has to be made; name the corpus to search with --corpus:\n{wanted}")
    if not _exists(corpus):
        if not articles:
            raise RecipeError(
                f"evidence has to be made, but the corpus {corpus} is not there; name another with --corpus, or the "
                "articles to build it from with --articles"
            )
        say(f"{corpus}: building the corpus")
        build_corpus(corpus, Sources(articles=articles))
    opened = KnowledgeCorpus.open(corpus)
    for job, _ in unmade:
        _make(job, opened, each)
        say(f"{job.path}: evidence of {len(job.posts):,} posts")


def _exists(corpus: str) -> bool:
    return corpus.startswith("milvus") or Path(corpus).exists()


def _attachings(recipe: Recipe) -> Iterator[Attaching]:
    known = recipe.retrieval.attached if recipe.retrieval else {}
    for split, files in recipe.splits.items():
        for retriever in files.evidence.keys() & known.keys():
            own, path = known[retriever], files.evidence[retriever]
            texts = {str(name): file for name, file in own.texts.items()}.get(split)
            if texts is None and not path.is_file():
                raise RecipeError(f"{path} is not there; retrieval.attached.{retriever}.texts names no {split} file")
            if texts is None or not texts.exists():
                continue  # made elsewhere; what it is made of is not here
            posts = tuple(read_posts(files.posts))
            yield Attaching(path, posts, attach_texts(posts, texts, retriever, title=own.title, field=own.field))


def _jobs(recipe: Recipe) -> Iterator[Job]:
    known = recipe.retrieval.evidence if recipe.retrieval else {}
    attached = recipe.retrieval.attached if recipe.retrieval else {}
    for split, files in recipe.splits.items():
        for retriever, path in files.evidence.items():
            if retriever in attached:
                continue
            if retriever not in known:
                if not path.is_file():
                    raise RecipeError(f"{path} is not there; no retrieval.evidence.{retriever} says how to make it")
                continue
            settings, model = known[retriever], known[retriever].model
            if settings.mode == "iterative":
                settings = settings.model_copy(update={"model": _extractor(model).name})
            named = {"captions": files.captions, "pictures": files.images}.get(settings.mode)
            if not (named or files.posts).exists():
                continue  # made elsewhere; what it is made of is not here
            captions = read_captions(named, files.caption_field) if named and settings.mode == "captions" else None
            images = named if settings.mode == "pictures" else None
            posts = read_posts(files.posts, captions=captions, images=images)
            # Without a file or folder of them, posts may have them themselves.
            own = {"captions": "caption", "pictures": "image"}.get(settings.mode)
            if named is None and own is not None and not any(getattr(post, own) for post in posts):
                raise RecipeError(
                    f"data.{split}: {settings.mode} are searched for {path.name}, but not named, and posts have none"
                )
            yield Job(path, retriever, settings, files, tuple(posts), model)


def _difference(job: Job | Attaching, corpus: str | None) -> str | None:
    """Why the file has to be made: what it says of itself and should not; None where it is as it should be."""
    if not job.path.is_file():
        return "not there"
    said = read_header(job.path)
    expected = job.header(corpus or said.corpus)
    for field in EvidenceHeader.model_fields:
        own, other = getattr(said, field), getattr(expected, field)
        if own != other and own is not None:
            return f"made with {field} {_shown(own)}, not {_shown(other)}"
    return None


def _shown(value: Any) -> str:
    return value.model_dump_json(exclude_defaults=True) if isinstance(value, RetrievalSettings) else str(value)


def _make(job: Job, corpus: KnowledgeCorpus, each: Each[int]) -> None:
    predict = _extractor(job.model).mentions_alone if job.settings.mode == "iterative" else None
    retriever = job.settings.retriever(corpus, predict)
    rows: list[Retrieved] = []
    for start in each(range(0, len(job.posts), BATCH), f"{job.path.name}, {BATCH} posts at a time"):
        rows += retriever.retrieve(job.posts[start : start + BATCH])
    save_evidence(job.path, job.header(corpus.version), job.posts, [row.evidence for row in rows])


@lru_cache(maxsize=1)
def _extractor(model: str | None) -> Extractor:
    """The model whose mentions iterative retrieval searches for."""
    return Extractor.from_pretrained(model)
