"""The application: its routes, the layers before them, and its own description."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema

from moreie import __version__
from moreie.errors import KnowledgeCorpusError, MoreieError
from moreie.extractor import Extractor
from moreie.serving.asked import BatchBody, ExtractBody, ExtractForm, PostBody, RetrieveForm
from moreie.serving.extraction import extraction_routes
from moreie.serving.guard import BEARER, Guard
from moreie.serving.knowledge import ArticleBody, ArticlesBody, knowledge_routes
from moreie.serving.limits import TEXT_LIMIT
from moreie.serving.observation import Observation
from moreie.serving.operations import operation_routes
from moreie.serving.page import page_routes
from moreie.serving.settings import ServiceSettings
from moreie.serving.state import Service

log = logging.getLogger(__name__)
BODIES = (ExtractBody, ExtractForm, BatchBody, PostBody, RetrieveForm, ArticleBody, ArticlesBody)


def create_app(extractor: Extractor | Callable[[], Extractor], settings: ServiceSettings | None = None) -> FastAPI:
    """The application over one extractor, or over what loads one: then it answers before that is done, and says that
    it is not ready. Nothing that a client sends is ever fetched or kept, but for knowledge that it writes.

    `app.state.service` is the `Service` behind it.
    """
    load = (lambda: extractor) if isinstance(extractor, Extractor) else extractor
    service = Service(load, settings or ServiceSettings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        service.linking.start()
        loading = asyncio.create_task(service.begin())
        if isinstance(extractor, Extractor):
            await loading
        yield
        loading.cancel()
        await service.batcher.stop()
        await service.linking.stop()

    app = FastAPI(
        title="moreie",
        version=__version__,
        description="Entities and relations of posts, with their evidence; and the knowledge they are found in.",
        lifespan=lifespan,
    )
    app.state.service = service

    @app.exception_handler(MoreieError)
    async def _clear(request: Request, problem: MoreieError) -> JSONResponse:
        return JSONResponse({"detail": str(problem)}, status_code=422)

    @app.exception_handler(405)
    async def _method(request: Request, problem: HTTPException) -> JSONResponse:
        # Each route knows its own methods alone; a path may have several.
        path = re.sub(r":\w+}", "}", getattr(request.scope.get("route"), "path", ""))
        known = sorted(method.upper() for method in app.openapi()["paths"].get(path, {}))
        return JSONResponse({"detail": problem.detail}, 405, {"Allow": ", ".join(known)} if known else problem.headers)

    @app.exception_handler(KnowledgeCorpusError)
    async def _unread(request: Request, problem: KnowledgeCorpusError) -> JSONResponse:
        log.error("the knowledge corpus cannot be read: %s", problem)
        said = {"detail": "the knowledge corpus cannot be read at present; the log of the service says why"}
        return JSONResponse(said, 503, {"Retry-After": "5"})

    protected = [Depends(BEARER)] if service.settings.tokens.read else []
    app.include_router(extraction_routes(service), dependencies=protected)
    app.include_router(knowledge_routes(service), dependencies=protected)
    app.include_router(operation_routes(service))
    app.include_router(page_routes(service))
    # The last one added is the outermost.
    app.add_middleware(Guard, service=service)
    if service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(Observation, service=service)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with the forms of the bodies that the routes read themselves, and the names of the texts
    that the model's experts read."""
    if app.openapi_schema is None:
        whole = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, own = models_json_schema(
            [(body, "validation") for body in BODIES], ref_template="#/components/schemas/{model}"
        )
        whole.setdefault("components", {}).setdefault("schemas", {}).update(own["$defs"])
        form = whole["components"]["schemas"]["ExtractForm"]
        form["properties"]["attached"] = {"$ref": "#/components/schemas/AttachedTexts"}  # written as JSON
        if extractor := app.state.service.extractor:
            texts = {name: {"type": "string", "maxLength": TEXT_LIMIT} for name in extractor.attachable}
            closed = {"type": "object", "properties": texts, "additionalProperties": False}
            whole["components"]["schemas"]["AttachedTexts"].update(closed)
        app.openapi_schema = whole
    return app.openapi_schema
