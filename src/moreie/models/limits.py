"""What may be asked of a mixture. It imports nothing heavy: commands refuse before they load a model."""

from __future__ import annotations

from moreie.errors import MoreieError

LOWEST_THRESHOLD = 0.01
"""Below, hardly a span of a post is left out, and there are as many as the square of its words."""


def checked_threshold(threshold: float) -> float:
    """How probable a mention has to be.

    Raises:
        MoreieError: no such threshold (`LOWEST_THRESHOLD` up to below 1).
    """
    if not LOWEST_THRESHOLD <= threshold < 1:
        raise MoreieError(
            f"threshold {threshold:g}: give a probability from {LOWEST_THRESHOLD} up to below 1, such as 0.4"
        )
    return threshold


def checked_certainty(certainty: float) -> float:
    """How sure an expert has to be for its answer to stand alone.

    Raises:
        MoreieError: no probability above 0.
    """
    if not 0 < certainty <= 1:
        raise MoreieError(f"certainty {certainty:g}: give a probability above 0 and up to 1, such as 0.9")
    return certainty
