"""What the parts of the service share: the extractor once it is there, the queue, the phase, what is counted."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal

from moreie.extractor import Extractor
from moreie.schema import Extraction
from moreie.serving.batching import Asked, Batcher, fit_together
from moreie.serving.linking import Links
from moreie.serving.metrics import Metrics
from moreie.serving.settings import ServiceSettings

Phase = Literal["loading", "ready", "failed", "draining"]
log = logging.getLogger(__name__)


@dataclass
class Service:
    """State of one service; changed in its event loop alone.

    `running`: requests that are being answered, those of `/health` and the like left out; `buffered`: bytes of bodies
    held; `writing`: a change of the knowledge is under way; `failure`: why the extractor could not be loaded.
    Mentions are linked in a queue of their own: counting a corpus' anchors anew holds up no extraction.
    """

    load: Callable[[], Extractor]
    settings: ServiceSettings
    extractor: Extractor | None = None
    phase: Phase = "loading"
    running: int = 0
    buffered: int = 0
    writing: bool = False
    failure: BaseException | None = None
    batcher: Batcher[Asked, Extraction] = field(init=False)
    linking: Batcher[Extraction, Extraction] = field(init=False)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(lambda: self.batcher.length + self.linking.length, lambda: self.extractor)
        observe = self.metrics.batch_posts.observe
        self.batcher = Batcher(self._extract, self.settings, on_batch=observe, fit=fit_together)
        links = Links(lambda: self.ready.corpus, self.metrics.stage)
        self.linking = Batcher(links, replace(self.settings, batch_wait=0))

    @property
    def ready(self) -> Extractor:
        """The extractor. Raises `RuntimeError` before it is loaded: the guard lets no request through until then."""
        if self.extractor is None:
            raise RuntimeError("the extractor is not loaded")
        return self.extractor

    async def begin(self) -> None:
        """Load the extractor in a thread, and let requests in."""
        try:
            self.extractor = await self._loaded()
        except Exception as problem:
            self.failure, self.phase = problem, "failed"
            log.error("the model or its corpus could not be loaded (%s)", type(problem).__name__)
            return
        if self.phase == "loading":
            self.phase = "ready"

    async def _loaded(self) -> Extractor:
        """The extractor, from a thread that does not keep the process when it ends before."""
        done: Future[Extractor] = Future()

        def work() -> None:
            try:
                done.set_result(self.load())
            except BaseException as problem:
                done.set_exception(problem)

        threading.Thread(target=work, name="loading", daemon=True).start()
        return await asyncio.wrap_future(done)

    def drain(self) -> None:
        """Let no more requests in; those that run are answered."""
        self.phase = "draining"

    def _extract(self, asked: Sequence[Asked]) -> list[Extraction]:
        return self.ready.extract_batch(
            [one.post for one in asked],
            attached=[one.attached for one in asked],
            batch_size=len(asked),
            on_stage=self.metrics.stage,
        )
