"""What stands before every route: phase, token, length of the body, time; a client that hangs up ends its request."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import anyio
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moreie.serving.limits import BODY_LIMIT, BUFFER_LIMIT, SMALL_BODY, SMALL_WAIT
from moreie.serving.state import Service
from moreie.serving.tokens import Right

BEARER = HTTPBearer(auto_error=False, description="A token of the service's token file.")
"""For the API's description: it is the guard that checks."""
# Answered in every phase; of these, metrics are as open as what is read.
ALWAYS = ("/health", "/ready", "/metrics")
OPEN = ("/health", "/ready", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
KNOWLEDGE = "/v1/knowledge"
_READING = ("GET", "HEAD", "OPTIONS")


@dataclass(slots=True)
class _Fate:
    body_read: bool = False
    answered: bool = False
    hung_up: bool = False


class Guard:
    """The layer before the routes. All that is not open needs the right to read, changes of the knowledge to write."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if refusal := self._refusal(scope, headers) or self._oversized(scope, headers):
            await _let_out(receive, length)
            await refusal(scope, receive, send)
            return
        self.service.buffered += int(length)
        try:
            await self._limited(scope, receive, send)
        finally:
            self.service.buffered -= int(length)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        tokens, path = self.service.settings.tokens, scope["path"]
        right = right_for(scope["method"], path)
        has = tokens.right(headers.get("authorization"))
        if right == "write" and not tokens.write:
            said = "knowledge cannot be changed: the service was started without a token for it (`write TOKEN`)"
            return self.no(403, said, "writing off")
        if path not in OPEN and tokens.needed(right):
            if has is None:
                return self.no(401, f"a token with the right to {right} is needed", "unauthorised", _CHALLENGE)
            if right == "write" and has != "write":
                return self.no(403, "this token may read, not write", "forbidden")
        if path not in (*OPEN, *ALWAYS) and self.service.phase != "ready":
            return self.no(503, f"the service is {self.service.phase}", self.service.phase, {"Retry-After": "5"})
        return None

    def _oversized(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        length = headers.get("content-length")
        if length is None and (scope["method"] in ("POST", "PUT", "PATCH") or "transfer-encoding" in headers):
            # A body without a declared length could grow without bound, so it is not taken.
            return self.no(411, "a content-length is needed", "no length")
        if length is not None and not (length.isascii() and length.isdigit()):
            return self.no(400, "the content-length is no number", "no length")
        if len(length or "") > 15 or int(length or 0) > BODY_LIMIT:
            return self.no(413, f"more than {BODY_LIMIT:,} bytes", "too large")
        if self.service.buffered + int(length or 0) > BUFFER_LIMIT:
            return self.no(503, "too many large requests at once", "no memory", {"Retry-After": "1"})
        return None

    def no(self, status: int, said: str, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
        """A refusal, counted."""
        self.service.metrics.rejected.labels(reason).inc()
        return JSONResponse({"detail": said}, status, {**(headers or {}), "Connection": "close"})

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        fate = _Fate()

        async def noted(message: Message) -> None:
            fate.answered = True
            await send(message)

        with anyio.move_on_after(self.service.settings.time_limit) as clock:
            body = await _whole(receive, fate)
            if fate.hung_up:
                self.service.metrics.rejected.labels("hung up").inc()
                return
            if right_for(scope["method"], scope["path"]) == "write":
                # What is being written will be written: its answer has to say so, however late.
                clock.deadline = math.inf
                await self.app(scope, _replayed(body, receive), noted)
                return
            gone = asyncio.create_task(_until_gone(receive, fate, clock))
            try:
                await self.app(scope, _replayed(body, None), noted)
            finally:
                gone.cancel()
        if not clock.cancelled_caught:
            return
        if fate.hung_up:
            self.service.metrics.rejected.labels("hung up").inc()
        elif not fate.answered:
            limit = f"{self.service.settings.time_limit:g} s"
            if fate.body_read:
                await self.no(504, f"no answer within {limit}", "too late")(scope, receive, send)
            else:
                await self.no(408, f"the body did not come within {limit}", "too slow")(scope, receive, send)


async def _let_out(receive: Receive, length: str) -> None:
    """Take the small body of a request that is refused: closed upon unread bytes a connection is reset, and the refusal
    may be lost with it. Who is slow to send it, or sends much, is not waited for."""
    if not (length.isascii() and length.isdigit()) or not 0 < int(length[:15]) <= SMALL_BODY:
        return
    with anyio.move_on_after(SMALL_WAIT):
        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            pass


_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="moreie", Basic realm="moreie", charset="UTF-8"'}


def right_for(method: str, path: str) -> Right:
    """The right that a request needs, where its route is not open."""
    knowledge = path == KNOWLEDGE or path.startswith(KNOWLEDGE + "/")
    return "write" if knowledge and method not in _READING else "read"


async def _whole(receive: Receive, fate: _Fate) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            fate.hung_up = True
            return b""
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            fate.body_read = True
            return b"".join(parts)


def _replayed(body: bytes, after: Receive | None) -> Receive:
    """The body once more; then what `after` says, or nothing: who hangs up is looked after."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        if after:
            return await after()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("never")

    return receive


async def _until_gone(receive: Receive, fate: _Fate, clock: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    fate.hung_up = True
    clock.cancel()
