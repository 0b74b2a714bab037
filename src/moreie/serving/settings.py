"""How a service is set up."""

from __future__ import annotations

from dataclasses import dataclass

from moreie.errors import MoreieError
from moreie.serving.limits import BATCH_LIMIT
from moreie.serving.tokens import NO_TOKENS, Tokens


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """`batch_size`: posts of concurrent requests extracted together, 1 for none; `batch_wait`: seconds that the first
    of them waits for others, if there have been any lately; `queue_size`: posts that may wait; `time_limit`: seconds
    from the first byte of a request to its answer.

    Raises:
        MoreieError: a value out of range.
    """

    batch_size: int = 16
    batch_wait: float = 0.005
    queue_size: int = 256
    time_limit: float = 60.0
    tokens: Tokens = NO_TOKENS
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= BATCH_LIMIT:
            raise MoreieError(f"batch size {self.batch_size}: 1 to {BATCH_LIMIT} posts can be extracted together")
        if not 0 <= self.batch_wait <= 1:
            raise MoreieError(f"batch wait {self.batch_wait:g} s: posts wait for others 0 to 1 s")
        if self.queue_size < 1:
            raise MoreieError(f"queue size {self.queue_size}: at least one post has to be able to wait")
        if self.time_limit <= 0:
            raise MoreieError(f"time limit {self.time_limit:g} s: a request needs some time")
        for origin in self.cors_origins:
            if origin != "*" and not (origin.startswith(("http://", "https://")) and origin.count("/") == 2):
                raise MoreieError(
                    f"CORS origin {origin!r}: give scheme, host and port alone, such as https://a.example"
                )
