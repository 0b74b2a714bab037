"""The relation expert: entity markers → concatenated marker states → softmax over relations (paper, §3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import torch
from torch import Tensor, nn

from moreie.encoders.batches import Batch
from moreie.encoders.text import TextEncoder
from moreie.errors import EncoderError
from moreie.models.assembly import LEVITATED_ANCHORS, Assembled, assemble_pairs
from moreie.models.expert import Expert, ExpertSpec
from moreie.models.pair_packing import Packed, packed_pairs, positions_and_mask
from moreie.schema import NO_RELATION, Evidence, Mention, Post


class RelationExpert(Expert):
    """`spec.labels` are the relations, `None` among them.

    Raises:
        EncoderError: its markers are levitated, and the encoder does not take positions.
    """

    def __init__(self, spec: ExpertSpec, encoder: TextEncoder, dropout: float = 0.1):
        super().__init__(spec, encoder)
        if self.levitates and not encoder.takes_positions:
            raise EncoderError(f"{encoder.name}: its positions are relative; expert {spec.name} needs plain markers")
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.anchors * encoder.hidden_size, len(spec.labels))

    @property
    def anchors(self) -> int:
        """States that the classifier reads of a pair: see `Assembled.anchors`."""
        return LEVITATED_ANCHORS if self.levitates else 2

    @property
    def levitates(self) -> bool:
        """Whether its markers stand behind the text, which is then read once for all pairs."""
        return self.spec.view.markers == "levitated"

    def assemble(
        self, cases: Sequence[tuple[Post, Mention, Mention]], evidence: Sequence[Sequence[Evidence]]
    ) -> list[Assembled]:
        """Inputs of (post, head, tail) with their evidence."""
        return assemble_pairs(self.encoder, cases, evidence, self.spec.view)

    def post_of(self, case: tuple[Post, Mention, Mention]) -> Post:
        return case[0]

    def collate(self, inputs: Sequence[Assembled]) -> dict[str, Tensor]:
        """As `Expert.collate`; with levitated markers also positions [B, S], and attention_mask tells pairs apart."""
        batch = super().collate(inputs)
        if self.levitates:
            positions, mask = positions_and_mask(inputs, batch["input_ids"].shape[1])
            batch |= {"positions": positions, "attention_mask": mask}
        return batch

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        anchors: Tensor,
        lengths: Tensor,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        positions: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits [B, C] and, with `labels` [B], the mean cross-entropy. `anchors` [B, A]: see `Assembled`."""
        states = self.states(input_ids, attention_mask, anchors, positions)
        with torch.autocast(states.device.type, enabled=False):
            logits = self.classifier(self.dropout(states.flatten(1)))
        result = {"logits": logits}
        if labels is not None:
            result["loss"] = nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        return result

    def posteriors(self, outputs: Mapping[str, Tensor], lengths: Tensor, temperature: float = 1.0) -> Tensor:
        return torch.log_softmax(outputs["logits"] / temperature, dim=1)

    def saying(self, inputs: Sequence[Assembled], *, tokens_per_batch: int | None = None) -> list[Batch[Tensor]]:
        """Log-distribution [C] over the relations for each input."""

        def answers(states: Tensor, lengths: Tensor) -> list[Tensor]:
            pairs = states.reshape(len(states), -1, self.anchors * states.shape[2])
            said = torch.log_softmax(self.classifier(pairs), dim=2).cpu()
            return [own[:real] for own, real in zip(said, (lengths // self.anchors).tolist(), strict=True)]

        packed = [Packed(x, (i,)) for i, x in enumerate(inputs)]
        if self.levitates:
            packed = packed_pairs(inputs, self.encoder.max_length)
        batches = self.batches([p.input for p in packed], tokens_per_batch, answers)
        return [_of_pairs(batch, [packed[place].places for place in batch.places]) for batch in batches]


def _of_pairs(batch: Batch[Tensor], places: Sequence[Sequence[int]]) -> Batch[Tensor]:
    """A batch whose answers are rows of pairs, as one of the pairs themselves."""
    return Batch(list(chain.from_iterable(places)), lambda: list(chain.from_iterable(batch.answers())))


def against_the_text(
    log_p: Tensor, labels: Sequence[str], pairs: Sequence[tuple[Mention, Mention]], nats: float
) -> Tensor:
    """Log-distributions [P, C] of pairs (head, tail), with `None` made e^nats times as likely where the head stands
    behind the tail.

    A data set that gives pairs without a relation in the order of the text only (MNRE) teaches that any pair the other
    way round has one. The remedy is that of a shifted prior (Saerens et al., Neural Computation 2002),
    p'(y) ∝ p(y) π'(y) / π(y): `nats` is by how much `None` is too rare among such pairs in training.
    """
    behind = torch.tensor([head.first > tail.first for head, tail in pairs], dtype=torch.bool)
    if not nats or not behind.any():
        return log_p
    none = torch.tensor([label == NO_RELATION for label in labels])
    return torch.where(behind[:, None], torch.log_softmax(log_p + nats * none, dim=1), log_p)


@dataclass(frozen=True, slots=True)
class Signature:
    """The entity types a relation joins; None where its name does not say (any type goes)."""

    head: str | None
    tail: str | None

    def admits(self, head: str | None, tail: str | None) -> bool:
        """May the relation hold between mentions of these types?"""
        return (self.head is None or head is None or self.head.upper() == head.upper()) and (
            self.tail is None or tail is None or self.tail.upper() == tail.upper()
        )


def signature(relation: str) -> Signature:
    """The signature in an MNRE-style name `/per/org/member_of`; an open one for any other name."""
    parts = relation.strip("/").split("/")
    if relation == NO_RELATION or not relation.startswith("/") or len(parts) != 3:
        return Signature(None, None)
    return Signature(parts[0], parts[1])


@lru_cache(maxsize=4096)
def admissible(labels: tuple[str, ...], head: str | None, tail: str | None) -> tuple[bool, ...]:
    """Which of C relations may hold between two mention types (`None` always may)."""
    return tuple(signature(label).admits(head, tail) for label in labels)
