"""`/v1/knowledge`: articles of the corpus read, added, replaced and removed while the service runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moreie.errors import CorpusBusyError, KnowledgeCorpusError
from moreie.knowledge import update
from moreie.knowledge.build import Sources
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.sources.articles import ArticleRow, ImageRow, ParagraphRow, article_row
from moreie.serving.answers import ChangeAnswer, refusals
from moreie.serving.asked import Text, json_body, refused
from moreie.serving.extraction import body_of
from moreie.serving.guard import BEARER
from moreie.serving.limits import ARTICLES_LIMIT, ID_LIMIT
from moreie.serving.state import Service
from moreie.shipped import DEMO_CORPUS

EXAMPLE: dict[str, Any] = {
    "title": "Zorblax",
    "paragraphs": ["Zorblax are a rock band from Quintara."],
    "url": "https://a.example/z",
}


class ArticleBody(BaseModel):
    """An article in the form of article JSONL; `text`, split at empty lines, can stand for `paragraphs`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})
    title: str = Field(min_length=1, max_length=ID_LIMIT)
    id: str | None = Field(None, min_length=1, max_length=ID_LIMIT)
    text: Text | None = None
    paragraphs: list[Text | ParagraphRow] | None = None
    url: str | None = Field(None, max_length=4_000)
    redirects: list[str] = []
    images: list[ImageRow] = []

    @model_validator(mode="after")
    def _some_text(self) -> ArticleBody:
        if (self.text is None) == (self.paragraphs is None):
            raise ValueError("give either text or paragraphs")
        if not any((p if isinstance(p, str) else p.text).strip() for p in self.content):
            raise ValueError("an article needs some text")
        return self

    @property
    def content(self) -> Sequence[str | ParagraphRow]:
        """Its paragraphs."""
        if self.paragraphs is not None:
            return self.paragraphs
        return [part.strip() for part in (self.text or "").split("\n\n") if part.strip()]

    def row(self, id: str) -> ArticleRow:
        """The row of article JSONL. Raises `HTTPException` 422 where it has another id or a link is out of place."""
        if self.id not in (None, id):
            raise HTTPException(422, "the id in the body is not that of the address")
        try:
            row = ArticleRow(
                id=id,
                title=self.title,
                paragraphs=list(self.content),
                url=self.url,
                redirects=self.redirects,
                images=self.images,
            )
            row.article()
        except ValidationError as problem:
            raise refused(problem) from None
        except ValueError as problem:
            raise HTTPException(422, str(problem)) from None
        return row


class OwnArticleBody(ArticleBody):
    """The same with its id."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "z1", **EXAMPLE}]})
    id: str = Field(min_length=1, max_length=ID_LIMIT)


class ArticlesBody(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"articles": [{"id": "z1", **EXAMPLE}]}]})
    articles: list[OwnArticleBody] = Field(min_length=1, max_length=ARTICLES_LIMIT)


def knowledge_routes(service: Service) -> APIRouter:
    """The routes of the corpus' articles. Changes are seen by the next batch that is extracted."""
    router = APIRouter(tags=["knowledge"])
    writing = [Depends(BEARER)]
    change_answers = {200: {"model": ChangeAnswer}, **refusals(400, 403, 409, 411, 415, 422)}

    @router.get("/v1/knowledge/{article_id:path}", responses=refusals(404, 409))
    async def read(article_id: str) -> JSONResponse:
        """An article as the corpus keeps it, in the form of article JSONL."""
        corpus = _corpus(service)
        article = await anyio.to_thread.run_sync(lambda: corpus.latest().article(article_id))
        if article is None:
            raise HTTPException(404, "no article of this id")
        return JSONResponse(article_row(article))

    created: dict[int | str, dict[str, Any]] = {201: {"model": ChangeAnswer, "description": "added"}}

    @router.put(
        "/v1/knowledge/{article_id:path}",
        responses={**change_answers, **created},
        dependencies=writing,
        openapi_extra=body_of(json="ArticleBody"),
    )
    async def put(article_id: str, request: Request) -> JSONResponse:
        """Add an article, or replace the one of this id; its pictures stay."""
        if not 1 <= len(article_id) <= ID_LIMIT:
            raise HTTPException(422, f"an id has 1 to {ID_LIMIT} characters")
        row = (await json_body(request, ArticleBody)).row(article_id)
        change = await _changed(service, lambda corpus: _replaced(corpus, [row]))
        return JSONResponse(_answer(service, change), 201 if change.added else 200)

    @router.post(
        "/v1/knowledge",
        responses=change_answers,
        dependencies=writing,
        openapi_extra=body_of(json="ArticlesBody"),
    )
    async def post(request: Request) -> JSONResponse:
        """Add or replace up to 1,000 articles: all of them or, where one is malformed, none."""
        body = await json_body(request, ArticlesBody)
        rows = [article.row(article.id) for article in body.articles]
        return JSONResponse(_answer(service, await _changed(service, lambda corpus: _replaced(corpus, rows))))

    @router.delete(
        "/v1/knowledge/{article_id:path}",
        responses={200: {"model": ChangeAnswer}, **refusals(403, 404, 409, 411)},
        dependencies=writing,
    )
    async def delete(article_id: str) -> JSONResponse:
        """Remove an article with its pictures. The last one of a corpus stays."""
        change = await _changed(service, lambda corpus: update.remove(corpus, [article_id]))
        if not change.removed:
            raise HTTPException(404, "no article of this id")
        return JSONResponse(_answer(service, change))

    return router


def unwritable(service: Service) -> str | None:
    """Why nobody can change the knowledge of this service; None where a token with the right to write can."""
    if service.ready.corpus is None:
        return "the service has no knowledge corpus"
    if Path(service.ready.corpus.location) == DEMO_CORPUS:
        return "the demo corpus is part of the package; serve a corpus of your own to change it"
    if not service.settings.tokens.write:
        return "the service was started without a token that may write"
    return None


def _corpus(service: Service) -> KnowledgeCorpus:
    if service.ready.corpus is None:
        raise HTTPException(409, "the service has no knowledge corpus")
    return service.ready.corpus


async def _changed(service: Service, change: Callable[[str], update.Change]) -> update.Change:
    """One change at a time, in a thread.

    Raises:
        HTTPException: 409 where it cannot be made, with why.
        KnowledgeCorpusError: the corpus cannot be read.
    """
    corpus = _corpus(service)
    if why := unwritable(service):
        raise HTTPException(403, why)
    if service.writing:
        raise _busy("another change is under way; try again when it is done")
    service.writing = True
    try:
        await anyio.to_thread.run_sync(corpus.latest)
        try:
            return await anyio.to_thread.run_sync(change, corpus.location)
        except CorpusBusyError:
            raise _busy("somebody else changes the corpus; try again when that is done") from None
        except KnowledgeCorpusError as problem:
            raise HTTPException(409, str(problem)) from None
    finally:
        service.writing = False


def _busy(said: str) -> HTTPException:
    return HTTPException(409, said, {"Retry-After": "1"})


def _replaced(corpus: str, rows: Sequence[ArticleRow]) -> update.Change:
    with _article_file(rows) as file:
        return update.replace(corpus, Sources(articles=(file,)))


@contextmanager
def _article_file(rows: Sequence[ArticleRow]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="moreie-") as folder:
        file = Path(folder) / "service.jsonl"
        file.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
        yield file


def _answer(service: Service, change: update.Change) -> dict[str, Any]:
    counts = {"added": change.added, "replaced": change.replaced, "removed": change.removed}
    for name, count in counts.items():
        service.metrics.changes.labels(name).inc(count)
    manifest = change.manifest
    return {
        **counts,
        "skipped": change.skipped,
        "articles": manifest.articles,
        "passages": manifest.passages,
        "corpus": manifest.version,
    }
