"""The answers to a batch of posts with their evidence: what the mixtures say, and the extractions that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moreie.batch_evidence import BatchEvidence, dropped_passages
from moreie.comparison import found_mentions, mentions_of_experts, relations_of_experts
from moreie.models.mixture import Mixed, Mixture
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.models.windows import Window
from moreie.pairs import AskedPairs, asked_pairs, chosen_relations
from moreie.schema import Comparison, Extraction, GateWeights, Mention, Post, Relation

NO_PAIRS = AskedPairs((), (), (), ())


@dataclass(frozen=True)
class Mixtures:
    """Those of an extractor; no relations are found without a mixture for them."""

    ner: Mixture[NerExpert]
    relations: Mixture[RelationExpert] | None


@dataclass(frozen=True)
class Said:
    """What the mixtures said of a batch: of its windows, and of the pairs asked about; None where there are none."""

    entities: Mixed
    asked: AskedPairs
    relations: Mixed | None


@dataclass(frozen=True)
class Provenance:
    """What extractions say of where they come from: the model's name, and the corpus with its version."""

    model: str
    corpus: str | None


def answer(
    mixtures: Mixtures,
    posts: Sequence[Post],
    windows: Sequence[Window],
    found: BatchEvidence,
    provenance: Provenance,
    lap: Callable[[str], None],
) -> tuple[list[Extraction], Said]:
    """Extractions of posts cut into `windows`, and what they were read off; `lap` hears of each stage that is done."""
    origins = [w.origin for w in windows]
    images = found.images_for(mixtures.ner, origins)
    mixed = mixtures.ner([w.post for w in windows], found.rows["ner"], images, found.states, found.ahead)
    lap("entity experts")
    mentions = found_mentions(mixtures.ner, posts, windows, mixed.log_probabilities)
    lap("decoding")
    said = Said(mixed, *_asked(mixtures.relations, windows, mentions, found))
    relations, relation_gate = _chosen(mixtures.relations, said, len(posts))
    lap("relation experts")
    entity_gate = _mean_weights(mixtures.ner.names, mixed.weights, origins, len(posts))
    for note_index, note in [*dropped_passages(mixtures.ner, mixed, windows), *said.asked.notes]:
        found.warnings[note_index].append(note)
    windows_of, results = Counter(origins), []
    for i, post in enumerate(posts):
        if not windows_of[i]:
            found.warnings[i].insert(0, "the text is empty: nothing to extract")
        elif windows_of[i] > 1:
            found.warnings[i].append(f"long text: read in {windows_of[i]} windows; relations are sought within each")
        results.append(
            Extraction(
                id=post.id,
                text=post.text,
                mentions=tuple(mentions[i]),
                relations=tuple(relations[i]),
                evidence=found.evidence[i],
                gate=GateWeights(entity_gate[i], relation_gate[i]),
                warnings=tuple(dict.fromkeys(found.warnings[i])),
                model=provenance.model,
                corpus=provenance.corpus,
                image=post.image,
                words=post.words,
            )
        )
    return results, said


def compared(
    mixtures: Mixtures, posts: Sequence[Post], windows: Sequence[Window], extractions: Sequence[Extraction], said: Said
) -> list[Comparison]:
    """The extractions beside what each expert would answer alone, read off the same."""
    entities = mentions_of_experts(mixtures.ner, posts, windows, said.entities.outputs)
    relations: list[dict[str, tuple[Relation, ...]]] = [{} for _ in posts]
    if mixtures.relations is not None and said.relations is not None:
        relations = relations_of_experts(mixtures.relations, said.asked, said.relations.outputs, len(posts))
    return [Comparison(*own) for own in zip(extractions, entities, relations, strict=True)]


def _asked(
    mixture: Mixture[RelationExpert] | None,
    windows: Sequence[Window],
    mentions: Sequence[Sequence[Mention]],
    found: BatchEvidence,
) -> tuple[AskedPairs, Mixed | None]:
    """The pairs of mentions that may be related, and what the mixture says of them."""
    if mixture is None:
        return NO_PAIRS, None
    asked = asked_pairs(windows, mentions, mixture.labels)
    if not asked.triples:
        return asked, None
    rows = {name: [column[w] for w in asked.windows] for name, column in found.rows["re"].items()}
    images = found.images_for(mixture, [origin for origin, _, _ in asked.places])
    return asked, mixture(asked.triples, rows, images, found.states)


def _chosen(
    mixture: Mixture[Any] | None, said: Said, posts: int
) -> tuple[list[list[Relation]], list[dict[str, float]]]:
    """Each post's relations and the mean gate weights of its pairs."""
    if mixture is None or said.relations is None:
        return [[] for _ in range(posts)], [{} for _ in range(posts)]
    relations = chosen_relations(mixture, said.asked, said.relations.log_probabilities, posts)
    origins = [origin for origin, _, _ in said.asked.places]
    return relations, _mean_weights(mixture.names, said.relations.weights, origins, posts)


def _mean_weights(names: Sequence[str], weights: Tensor, origins: Sequence[int], posts: int) -> list[dict[str, float]]:
    """Each post's mean gate weights over its windows or pairs; empty where it has none."""
    totals = torch.zeros(posts, len(names))
    counts = torch.zeros(posts)
    index = torch.tensor(list(origins), dtype=torch.long)
    totals.index_add_(0, index, weights)
    counts.index_add_(0, index, torch.ones(len(index)))
    means = (totals / counts[:, None]).tolist()
    return [
        dict(zip(names, mean, strict=True)) if count else {} for mean, count in zip(means, counts.tolist(), strict=True)
    ]
