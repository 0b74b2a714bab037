"""What a run must not profit from: the runs before it."""

from __future__ import annotations

from moreie import Extractor


def forget(*extractors: Extractor) -> None:
    """Let their encoders forget the texts that they have read, so that a run's posts are new to them."""
    for extractor in extractors:
        mixtures = (extractor.ner, extractor.relations) if extractor.relations else (extractor.ner,)
        for mixture in mixtures:
            for expert in mixture.experts:
                expert.encoder.forget()
