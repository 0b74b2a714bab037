"""The server: runs the application until a signal, then answers what it has taken and takes no more."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI

from moreie.serving.state import Service

log = logging.getLogger("moreie.serving")
BACKLOG = 2048


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT it refuses new requests and ends when those that run are answered, at the latest after
    `grace` seconds; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, service: Service, grace: float):
        super().__init__(config)
        self.service, self.grace = service, grace
        self._since: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. Runs between two instructions of the event loop, so it only notes the time."""
        if self._since is None and self.started:
            self._since = time.monotonic()
            self.service.drain()
        else:
            super().handle_exit(signal.SIGINT if self.should_exit else sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end."""
        if self._since is not None and not self.should_exit:
            waited = time.monotonic() - self._since
            if self.service.running == 0 or waited > self.grace:
                if self.service.running:
                    log.warning("%d requests were not answered within %g s", self.service.running, self.grace)
                self.should_exit = True
        return self.service.failure is not None or await super().on_tick(counter)


def run(app: FastAPI, *, host: str, port: int, grace: float | None = None) -> None:
    """Serve until a signal. `grace`: seconds that running requests have then, their time limit unless given.

    Raises:
        BaseException: what kept the extractor from being loaded.
    """
    service: Service = app.state.service
    grace = service.settings.time_limit if grace is None else grace
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=5,
    )
    with suppress(KeyboardInterrupt):  # raised again by the server once it has ended
        DrainingServer(config, service, grace).run()
    if service.failure is not None:
        raise service.failure
