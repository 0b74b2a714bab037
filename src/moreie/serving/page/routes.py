"""What the page at `/` needs: its own files, examples, pictures of the corpus, answers with each expert's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import anyio.to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from moreie.serving.asked import AttachedTexts, ExtractForm, form_body, parsed
from moreie.serving.batching import Asked
from moreie.serving.extraction import checked, named, post_of, queued
from moreie.serving.knowledge import unwritable
from moreie.serving.page.examples import examples
from moreie.serving.state import Service
from moreie.serving.uploads import opened_picture

FILES = Path(__file__).parent / "files"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing from elsewhere, nothing inline, and no string is ever taken for markup or for a program.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
GUARDED = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    kind: str
    tag: str


def page_routes(service: Service) -> APIRouter:
    """The routes of the page; no part of the API that others should build on, so its description leaves them out."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: _file(path, KINDS[path.suffix]) for path in FILES.iterdir() if path.suffix in KINDS}
    posts = examples()
    pictures = {example.picture.name: _file(example.picture, "image/jpeg") for example in posts if example.picture}

    @router.get("/")
    async def start(request: Request) -> Response:
        return _answer(request, files["index.html"])

    @router.get("/page/files/{name}")
    async def file(request: Request, name: str) -> Response:
        return _answer(request, _known(files, name))

    @router.get("/page/examples")
    async def example_list() -> JSONResponse:
        return JSONResponse([example.to_dict() for example in posts])

    @router.get("/page/examples/{name}")
    async def example_picture(request: Request, name: str) -> Response:
        return _answer(request, _known(pictures, name))

    @router.get("/page/state")
    async def state() -> JSONResponse:
        """What the page says of the service, and whether it may offer to edit the knowledge."""
        extractor = service.ready
        why = unwritable(service)
        return JSONResponse(
            {
                "model": extractor.name,
                "corpus": extractor.corpus.version if extractor.corpus else None,
                "articles": extractor.corpus.manifest.articles if extractor.corpus else 0,
                "attachable": extractor.attachable,
                "editing": "off" if why else "on",
                "why": why,
            }
        )

    @router.get("/page/pictures")
    async def picture(file: str) -> Response:
        """A picture that the corpus lists under this name. It is looked up in the corpus' table: no path is opened."""
        corpus = service.ready.corpus
        found = await anyio.to_thread.run_sync(corpus.thumbnails, [file]) if corpus else {}
        if file not in found:
            raise HTTPException(404, "the corpus has no such picture")
        return Response(found[file], media_type="image/jpeg", headers={**GUARDED, "Cache-Control": "max-age=300"})

    @router.post("/page/extract")
    async def extract(request: Request) -> JSONResponse:
        """A multipart form as `/v1/extract` takes it → the extraction with each expert's own answers (`experts`)."""
        form, data, name = await form_body(request, ExtractForm)
        attached = parsed(AttachedTexts, form.attached.encode())
        async with opened_picture(data) as (path, pixels):
            post = await anyio.to_thread.run_sync(post_of, form, path)
            (asked,) = await checked(service, [Asked(post, attached.root, pixels)])
            work = service.batcher.alone(lambda: service.ready.compare([post], attached=[asked.attached])[0])
            comparison = await queued(work, service)
        return JSONResponse(replace(comparison, extraction=named(comparison.extraction, path, name)).to_dict())

    return router


def _file(path: Path, kind: str) -> _File:
    content = path.read_bytes()
    return _File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:16]}"')


def _known(files: Mapping[str, _File], name: str) -> _File:
    if name not in files:
        raise HTTPException(404, "the page has no such file")
    return files[name]


def _answer(request: Request, file: _File) -> Response:
    """The file, or that the browser has it already."""
    headers = {**GUARDED, "ETag": file.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.kind, headers=headers)
