"""What the service counts, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from moreie import __version__

if TYPE_CHECKING:
    from moreie.extractor import Extractor

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """A registry of one service's own; `queue` gives the posts waiting, `extractor` the extractor once it is there."""

    def __init__(self, queue: Callable[[], int], extractor: Callable[[], Extractor | None]):
        self._extractor = extractor
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("moreie_requests", "Requests answered.", ("route", "status"), registry=registry)
        self.seconds = Histogram(
            "moreie_request_seconds", "From request to answer.", ("route",), buckets=SECONDS, registry=registry
        )
        self.rejected = Counter("moreie_rejected_requests", "Requests not served.", ("reason",), registry=registry)
        self.batch_posts = Histogram(
            "moreie_batch_posts", "Posts extracted together.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self._stages = Histogram(
            "moreie_stage_seconds", "Stages of a batch.", ("stage",), buckets=SECONDS, registry=registry
        )
        self.changes = Counter("moreie_knowledge_articles", "Articles changed.", ("change",), registry=registry)
        Gauge("moreie_queue_posts", "Posts waiting.", registry=registry).set_function(queue)
        self._articles = Gauge("moreie_corpus_articles", "Articles of the corpus in use.", registry=registry)
        self._info = Info("moreie", "Version, model and corpus in use.", registry=registry)

    def stage(self, name: str, seconds: float) -> None:
        """Note how long a stage of a batch took."""
        self._stages.labels(name).observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        extractor = self._extractor()
        corpus = extractor.corpus if extractor else None
        self._articles.set(corpus.manifest.articles if corpus else 0)
        self._info.info(
            {
                "version": __version__,
                "model": extractor.name if extractor else "",
                "corpus": corpus.version if corpus else "",
            }
        )
        return generate_latest(self.registry)
