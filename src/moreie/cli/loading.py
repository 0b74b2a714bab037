"""The extractor that a command's options ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moreie.cli.quick_torch import import_torch
from moreie.encoders.asked import wants_float32
from moreie.models.limits import checked_certainty, checked_threshold
from moreie.starting import uncollected

if TYPE_CHECKING:
    from pathlib import Path

    from moreie.extractor import Extractor
    from moreie.knowledge.stores.apart import ReadingProcess


def load_extractor(
    model: Path | None,
    corpus: str | None,
    reading: ReadingProcess | None = None,
    *,
    certainty: float | None,
    threshold: float | None,
    pictures: bool = True,
) -> Extractor:
    """A model over a corpus, which `reading` reads if it is given, at a certainty and a threshold if these are; for
    posts of which some have `pictures`."""
    check_asked(certainty, threshold)
    with uncollected():
        from moreie.knowledge.corpus import KnowledgeCorpus
        from moreie.shipped import DEMO_CORPUS

        opened = KnowledgeCorpus.open_apart(corpus or DEMO_CORPUS, reading) if reading else corpus
        import_torch()
        from moreie.extractor import Extractor

        load = Extractor.from_pretrained if pictures else Extractor.for_texts
        extractor = load(model, corpus=opened)
    if certainty is not None:
        extractor = extractor.selective(certainty)
    return extractor if threshold is None else extractor.at_threshold(threshold)


def check_asked(certainty: float | None, threshold: float | None) -> None:
    """Raises `MoreieError` where an extractor of this certainty and threshold cannot be had, or not in the arithmetic
    that the environment asks for, before one is loaded."""
    wants_float32()
    if certainty is not None:
        checked_certainty(certainty)
    if threshold is not None:
        checked_threshold(threshold)
