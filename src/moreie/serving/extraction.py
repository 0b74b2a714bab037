"""`/v1/extract`, `/v1/extract/batch` and `/v1/retrieve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse

from moreie.attachments import own_texts
from moreie.datasets import post_from_text
from moreie.errors import MoreieError
from moreie.schema import Extraction, Post
from moreie.serving.answers import BatchAnswer, ExtractionAnswer, RetrieveAnswer, refusals
from moreie.serving.asked import (
    FORM,
    JSON,
    AttachedTexts,
    BatchBody,
    ExtractBody,
    ExtractForm,
    PostBody,
    RetrieveForm,
    content_type,
    form_body,
    json_body,
    parsed,
)
from moreie.serving.batching import Asked, QueueFullError
from moreie.serving.linking import unlinkable
from moreie.serving.state import Service
from moreie.serving.uploads import opened_picture, renamed


def body_of(**kinds: str) -> dict[str, Any]:
    """The description of a body by content type: `json` and `form` name schemas."""
    types = {"json": JSON, "form": FORM}
    content = {types[key]: {"schema": {"$ref": f"#/components/schemas/{name}"}} for key, name in kinds.items()}
    return {"requestBody": {"required": True, "content": content}}


def extraction_routes(service: Service) -> APIRouter:
    """The routes of extraction and retrieval."""
    router = APIRouter(tags=["extraction"])
    answers = {200: {"model": ExtractionAnswer}, **refusals(400, 409, 411, 415, 422)}

    @router.post("/v1/extract", responses=answers, openapi_extra=body_of(json="ExtractBody", form="ExtractForm"))
    async def extract(request: Request) -> JSONResponse:
        """Entities, relations and evidence of one post: JSON, or a multipart form with a file `image`."""
        data, name = None, ""
        if content_type(request) == FORM:
            form, data, name = await form_body(request, ExtractForm)
            attached = parsed(AttachedTexts, form.attached.encode())
            body = ExtractBody(
                text=form.text,
                id=form.id,
                attached=attached,
                attribute=form.attribute == "true",
                link=form.link == "true",
            )
        elif content_type(request) == JSON:
            body = await json_body(request, ExtractBody)
        else:
            raise HTTPException(415, f"send {JSON} or {FORM}")
        async with opened_picture(data) as (path, pixels):
            post = await anyio.to_thread.run_sync(post_of, body, path)
            (asked,) = await checked(service, [Asked(post, body.attached.root, pixels, body.link)])
            if body.attribute:
                steps = service.ready.attribution_steps(post, attached=asked.attached)
                found = await queued(service.batcher.in_steps(steps), service)
                extraction, more = found.extraction, {"influences": [i.to_dict() for i in found.influences]}
            else:
                (extraction,), more = await queued(service.batcher.together([asked]), service), {}
            (extraction,) = await linked(service, [asked], [extraction])
        return JSONResponse({**named(extraction, path, name).to_dict(), **more})

    batch_answers = {200: {"model": BatchAnswer}, **refusals(409, 411, 415, 422)}

    @router.post("/v1/extract/batch", responses=batch_answers, openapi_extra=body_of(json="BatchBody"))
    async def extract_batch(request: Request) -> JSONResponse:
        """Up to 64 posts, answered in their order."""
        body = await json_body(request, BatchBody)
        posts = await anyio.to_thread.run_sync(lambda: [post_of(row, None) for row in body.posts])
        rows = zip(posts, body.posts, strict=True)
        asked = await checked(service, [Asked(post, row.attached.root, link=row.link) for post, row in rows])
        extractions = await linked(service, asked, await queued(service.batcher.together(asked), service))
        return JSONResponse({"extractions": [extraction.to_dict() for extraction in extractions]})

    found_answers = {200: {"model": RetrieveAnswer}, **refusals(400, 409, 411, 415, 422)}

    @router.post("/v1/retrieve", responses=found_answers, openapi_extra=body_of(json="PostBody", form="RetrieveForm"))
    async def retrieve(request: Request) -> JSONResponse:
        """The evidence for a post: JSON for its text, or a multipart form with text, a file `image`, or both."""
        data, name = None, ""
        body: PostBody | RetrieveForm
        if content_type(request) == FORM:
            body, data, name = await form_body(request, RetrieveForm)
        elif content_type(request) == JSON:
            body = await json_body(request, PostBody)
        else:
            raise HTTPException(415, f"send {JSON} or {FORM}")
        if service.ready.corpus is None:
            raise HTTPException(409, "the service has no knowledge corpus")
        async with opened_picture(data) as (path, _):
            post = await anyio.to_thread.run_sync(post_of, body, path)
            found = await queued(service.batcher.alone(lambda: service.ready.retrieve(post)), service)
        warnings = renamed(found.warnings, path, name)
        return JSONResponse({"evidence": [e.to_dict() for e in found.evidence], "warnings": list(warnings)})

    return router


def post_of(body: PostBody | ExtractForm | RetrieveForm, path: Path | None) -> Post:
    """The post of a body. To be called in a thread: splitting the longest texts takes half a second."""
    return post_from_text(body.text, id=body.id, image=path)


async def checked(service: Service, asked: Sequence[Asked]) -> Sequence[Asked]:
    """The same.

    Raises:
        HTTPException: 422 where a text is attached that no expert reads: it would fail its whole batch. 409 where links
            are asked for and the corpus has nothing to link to.
    """
    try:
        for one in asked:
            own_texts(one.post, one.attached, service.ready.attachable)
    except MoreieError as problem:
        raise HTTPException(422, str(problem)) from None
    if any(one.link for one in asked) and (why := await anyio.to_thread.run_sync(unlinkable, service.ready.corpus)):
        raise HTTPException(409, why)
    return asked


async def linked(service: Service, asked: Sequence[Asked], found: Sequence[Extraction]) -> list[Extraction]:
    """The extractions, those linked for which that was asked."""
    wanted = [extraction for one, extraction in zip(asked, found, strict=True) if one.link]
    if not wanted:
        return list(found)
    answers = iter(await queued(service.linking.together(wanted), service))
    return [next(answers) if one.link else extraction for one, extraction in zip(asked, found, strict=True)]


async def queued(work: Any, service: Service) -> Any:
    """What the queue answers. Raises `HTTPException` 503 where it is full."""
    try:
        return await work
    except QueueFullError:
        service.metrics.rejected.labels("queue full").inc()
        raise HTTPException(503, "too many posts wait already; try again", {"Retry-After": "1"}) from None


def named(extraction: Extraction, path: Path | None, name: str) -> Extraction:
    """The extraction with the client's name for its picture."""
    image = Path(name) if path else None
    return replace(extraction, image=image, warnings=renamed(extraction.warnings, path, name))
