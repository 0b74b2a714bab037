"""What each passage does for each answer of an extraction, from mixtures that leave it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from moreie.batch_answers import Mixtures
from moreie.batch_evidence import BatchEvidence
from moreie.models.attribution import LeftOut, leave_one_out
from moreie.models.decoding import span_confidences
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert
from moreie.models.outputs import Rows
from moreie.models.relation import RelationExpert, against_the_text
from moreie.models.temperature import scaled
from moreie.models.windows import Window
from moreie.schema import Extraction, Influence, Mention


def influences(
    mixtures: Mixtures, extraction: Extraction, windows: Sequence[Window], found: BatchEvidence
) -> Iterator[list[Influence]]:
    """Influences on the mentions, then on the relations, of one post in its windows, in pieces (see below)."""
    origins = [w.origin for w in windows]
    images = found.images_for(mixtures.ner, origins)
    yield from influences_on_mentions(mixtures.ner, extraction, windows, found.rows["ner"], images)
    if mixtures.relations is not None:
        images = found.images_for(mixtures.relations, origins)
        yield from influences_on_relations(mixtures.relations, extraction, windows, found.rows["re"], images)


def influences_on_mentions(
    mixture: Mixture[NerExpert],
    extraction: Extraction,
    windows: Sequence[Window],
    rows: Mapping[str, Rows],
    images: Tensor | None,
) -> Iterator[list[Influence]]:
    """Influences on the mentions of one post: `rows` by retriever and `images` [W, D] belong to its W windows.

    They come in pieces, each computed when it is asked for (`leave_one_out`); for the first, which is empty, the
    mixture reads the post with all evidence.
    """
    whole, pieces = leave_one_out(mixture, [w.post for w in windows], rows, images)
    yield []
    tagset = mixture.experts[0].tagset

    def confidence(log_p: Tensor, own: Mention) -> float:
        rows = scaled(log_p[own.first : own.last + 1], mixture.temperature)
        span = (own.type or "", 0, len(rows) - 1)
        ((confidence,),) = span_confidences(tagset, rows, [len(rows)], [[span]])
        return confidence

    def of(variant: LeftOut) -> Iterator[Influence]:
        window = windows[variant.case]
        place = _place(extraction, rows, variant)
        for m, mention in enumerate(extraction.mentions):
            if window.holds(mention):
                pair = (whole[variant.case], variant.log_probabilities)
                before, after = (confidence(log_p, window.inside(mention)) for log_p in pair)
                yield Influence(place, m, None, before - after)

    for piece in pieces:
        yield [influence for variant in piece for influence in of(variant)]


def influences_on_relations(
    mixture: Mixture[RelationExpert],
    extraction: Extraction,
    windows: Sequence[Window],
    rows: Mapping[str, Rows],
    images: Tensor | None,
) -> Iterator[list[Influence]]:
    """Influences on the relations of one post; see `influences_on_mentions`."""
    triples, own = [], []
    for relation in extraction.relations:
        pair = (extraction.mentions[relation.head], extraction.mentions[relation.tail])
        w = next(i for i, window in enumerate(windows) if all(map(window.holds, pair)))
        head, tail = map(windows[w].inside, pair)
        triples.append((windows[w].post, head, tail))
        own.append(w)
    if not triples:
        return
    pair_rows = {name: [column[w] for w in own] for name, column in rows.items()}
    whole, pieces = leave_one_out(mixture, triples, pair_rows, None if images is None else images[own])
    yield []

    def of(variant: LeftOut) -> Influence:
        choice = mixture.labels.index(extraction.relations[variant.case].type)
        _, head, tail = triples[variant.case]
        both = torch.stack([whole[variant.case], variant.log_probabilities])
        said = against_the_text(both, mixture.labels, [(head, tail)] * 2, mixture.reversed_none)
        before, after = scaled(said, mixture.temperature)[:, choice].exp().tolist()
        return Influence(_place(extraction, pair_rows, variant), None, variant.case, before - after)

    for piece in pieces:
        yield [of(variant) for variant in piece]


def _place(extraction: Extraction, rows: Mapping[str, Rows], variant: LeftOut) -> int:
    return extraction.evidence.index(rows[variant.retriever][variant.case][variant.passage])
