"""The extractor that a command's options ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from moreie.extractor import Extractor


def load_extractor(
    model: Path | None, corpus: str | None, *, certainty: float | None, threshold: float | None
) -> Extractor:
    """A model over a corpus, at a certainty and a threshold where they are given."""
    from moreie.extractor import Extractor

    extractor = Extractor.from_pretrained(model, corpus=corpus)
    if certainty is not None:
        extractor = extractor.selective(certainty)
    return extractor if threshold is None else extractor.at_threshold(threshold)
