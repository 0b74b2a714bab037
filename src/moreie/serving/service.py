"""The HTTP service: `/v1/extract`, `/v1/extract/batch`, `/v1/retrieve`, `/health`, and the evidence page at `/`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError
from starlette.concurrency import run_in_threadpool

from moreie import __version__
from moreie.datasets import post_from_text
from moreie.errors import MoreieError
from moreie.extractor import Extractor
from moreie.schema import Extraction
from moreie.serving.limits import BATCH_LIMIT, BODY_LIMIT, TEXT_LIMIT
from moreie.serving.page import page_routes
from moreie.serving.uploads import picture_file, read_upload, renamed

M = TypeVar("M", bound=BaseModel)


class PostBody(BaseModel):
    """A post without a picture; pictures come as multipart forms."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=TEXT_LIMIT)
    id: str = "post"


class AttachedTexts(RootModel[dict[str, Annotated[str, Field(max_length=TEXT_LIMIT)]]]):
    """Texts that belong to a post, by the name of the evidence that an expert reads, such as `caption`."""


class ExtractBody(PostBody):
    attached: AttachedTexts = AttachedTexts({})


class BatchBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    posts: list[ExtractBody] = Field(min_length=1, max_length=BATCH_LIMIT)


def create_app(extractor: Extractor) -> FastAPI:
    """The application over one extractor. Nothing that a client sends is ever fetched or kept."""
    app = FastAPI(title="moreie", version=__version__, description="Entities and relations with their evidence.")

    @app.middleware("http")
    async def _limit(request: Request, call_next: Any) -> Any:
        # A body without a declared length could grow without bound, so it is not taken.
        length = request.headers.get("content-length", "")
        if request.method == "POST" and not length.isdigit():
            return JSONResponse({"detail": "a content-length is needed"}, status_code=411)
        if length.isdigit() and int(length) > BODY_LIMIT:
            return JSONResponse({"detail": f"more than {BODY_LIMIT:,} bytes"}, status_code=413)
        return await call_next(request)

    @app.exception_handler(MoreieError)
    async def _clear(request: Request, problem: MoreieError) -> JSONResponse:
        return JSONResponse({"detail": str(problem)}, status_code=422)

    @app.get("/health")
    def health() -> dict[str, str | None]:
        """Answers once the model is loaded."""
        corpus = extractor.corpus.version if extractor.corpus else None
        return {"status": "ok", "model": extractor.name, "corpus": corpus, "version": __version__}

    @app.post("/v1/extract")
    async def extract(request: Request) -> dict[str, Any]:
        """One post: JSON `{"text": …}`, or a multipart form with `text` and a file `image`; `attached`: its texts."""
        kind = request.headers.get("content-type", "").partition(";")[0]
        if kind == "application/json":
            body = _parsed(ExtractBody, await request.body())
            return (await _run(extractor, body.text, body.id, None, "", body.attached)).to_dict()
        if kind == "multipart/form-data":
            async with request.form(max_files=1, max_fields=8) as fields:
                text, image, texts = fields.get("text", ""), fields.get("image"), fields.get("attached", "{}")
                if not isinstance(text, str) or not isinstance(texts, str) or isinstance(image, str):
                    raise HTTPException(422, "text and attached (JSON) must be fields, image a file")
                data, name = await read_upload(image)
                attached = _parsed(AttachedTexts, texts.encode())
                return (await _run(extractor, text, str(fields.get("id", "post")), data, name, attached)).to_dict()
        raise HTTPException(415, "send application/json or multipart/form-data")

    @app.post("/v1/extract/batch")
    def extract_batch(body: BatchBody) -> dict[str, Any]:
        """Up to 64 posts in one batch, answered in their order."""
        posts = [post_from_text(row.text, id=row.id) for row in body.posts]
        attached = [row.attached.root for row in body.posts]
        return {"extractions": [e.to_dict() for e in extractor.extract_batch(posts, attached=attached)]}

    @app.post("/v1/retrieve")
    def retrieve(body: PostBody) -> dict[str, Any]:
        """The text evidence of a post."""
        if extractor.text_retriever is None:
            raise HTTPException(409, "the service has no knowledge corpus")
        found = extractor.text_retriever.retrieve([post_from_text(body.text, id=body.id)])[0]
        return {"evidence": [e.to_dict() for e in found.evidence], "warnings": list(found.warnings)}

    app.include_router(page_routes(extractor))
    return app


def _parsed(kind: type[M], body: bytes) -> M:
    try:
        return kind.model_validate_json(body)
    except ValidationError as problem:
        raise HTTPException(
            422, problem.errors(include_url=False, include_context=False, include_input=False)
        ) from None


async def _run(
    extractor: Extractor, text: str, id: str, data: bytes | None, name: str, attached: AttachedTexts
) -> Extraction:
    if len(text) > TEXT_LIMIT:
        raise HTTPException(422, f"text is longer than {TEXT_LIMIT:,} characters")
    with picture_file(data) as path:
        post = post_from_text(text, id=id, image=path)
        extraction = await run_in_threadpool(extractor.extract, post, attached=attached.root)
    return replace(extraction, image=Path(name) if path else None, warnings=renamed(extraction, path, name))
