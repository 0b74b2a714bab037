"""Every request is counted, timed, logged in one line and given an id; what fails inside becomes an answer."""

from __future__ import annotations

import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moreie.serving.logs import ACCESS, error_fields
from moreie.serving.state import Service

OPERATIONS = ("/health", "/ready", "/metrics")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HUNG_UP = 499
"""In logs and metrics: the client went away before there was an answer."""


class Observation:
    """The outermost layer. A client's X-Request-ID is taken over if it is up to 64 letters, digits, `.`, `_`, `-`."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        counted = scope["path"] not in OPERATIONS
        status, fields = HUNG_UP, {}
        start = time.perf_counter()

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        self.service.running += counted
        try:
            await self.app(scope, receive, stamped)
        except Exception as problem:
            fields = error_fields(problem)
            if status != HUNG_UP:
                raise
            said = {"detail": f"something went wrong in the service; its log says where, under {request_id}"}
            await JSONResponse(said, 500)(scope, receive, stamped)
        finally:
            self.service.running -= counted
            took = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", None) or "unrouted"
            self.service.metrics.requests.labels(route, status).inc()
            self.service.metrics.seconds.labels(route).observe(took)
            line = {"method": scope["method"], "route": route, "status": status, "ms": round(1000 * took, 1)}
            ACCESS.log(40 if status == 500 else 20, "request", extra={**line, "request_id": request_id, **fields})
