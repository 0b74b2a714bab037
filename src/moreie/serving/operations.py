"""`/health`, `/ready` and `/metrics`, for those who run the service."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from moreie import __version__
from moreie.serving.answers import HealthAnswer, refusals
from moreie.serving.guard import BEARER
from moreie.serving.metrics import CONTENT_TYPE
from moreie.serving.state import Service


def operation_routes(service: Service) -> APIRouter:
    """Routes that answer in every phase."""
    router = APIRouter(tags=["operation"])

    def said(status: str) -> dict[str, str | None]:
        extractor = service.extractor
        corpus = extractor.corpus.version if extractor and extractor.corpus else None
        return {
            "status": status,
            "model": extractor.name if extractor else None,
            "corpus": corpus,
            "version": __version__,
        }

    @router.get("/health", responses={200: {"model": HealthAnswer}})
    async def health() -> JSONResponse:
        """The process lives and answers, whether or not it is ready."""
        return JSONResponse(said("ok"))

    @router.get("/ready", responses={200: {"model": HealthAnswer}, 503: {"model": HealthAnswer}})
    async def ready() -> JSONResponse:
        """200 when requests are served; 503 while the model is loading and when the service is about to end."""
        return JSONResponse(said(service.phase), 200 if service.phase == "ready" else 503)

    protected = [Depends(BEARER)] if service.settings.tokens.read else []

    @router.get("/metrics", responses=refusals(), response_class=Response, dependencies=protected)
    async def metrics() -> Response:
        """Counts and timings in Prometheus' text form."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    return router
