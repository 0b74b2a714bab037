"""The NER expert: encoder → linear emissions → linear-chain CRF over BIOES tags (paper, §3.3).

With `spec.spans`: encoder → scores of spans → semi-Markov CRF, which says the same of tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from moreie.encoders.batches import Batch
from moreie.encoders.text import TextEncoder
from moreie.models.assembly import Assembled, assemble_posts
from moreie.models.crf import LinearChainCRF
from moreie.models.expert import Expert, ExpertSpec
from moreie.models.segments import SegmentCRF
from moreie.models.span_scores import SpanScores
from moreie.models.tagset import TagSet
from moreie.schema import Evidence, Post


class NerExpert(Expert):
    """`spec.labels` are the entity types; the evidence behind the post carries no labels."""

    def __init__(self, spec: ExpertSpec, encoder: TextEncoder, dropout: float = 0.1):
        super().__init__(spec, encoder)
        self.tagset = TagSet(spec.labels)
        self.dropout = nn.Dropout(dropout)
        self.emission: nn.Linear | SpanScores
        self.crf: LinearChainCRF | SegmentCRF
        if spec.spans:
            self.emission = SpanScores(encoder.hidden_size, len(spec.labels), spec.spans, dropout)
            self.crf = SegmentCRF(len(spec.labels), spec.spans.longest)
        else:
            tags = self.tagset
            self.emission = nn.Linear(encoder.hidden_size, len(tags))
            self.crf = LinearChainCRF(tags.start_allowed, tags.transitions_allowed, tags.end_allowed)

    def assemble(self, cases: Sequence[Post], evidence: Sequence[Sequence[Evidence]]) -> list[Assembled]:
        """Inputs of posts with their evidence."""
        return assemble_posts(self.encoder, cases, evidence, self.spec.view)

    def post_of(self, case: Post) -> Post:
        return case

    def emissions(self, input_ids: Tensor, attention_mask: Tensor, anchors: Tensor) -> Tensor:
        """Emission scores [B, T, L] at the first sub-token of each word, float32 (of spans: see `SegmentCRF`)."""
        states = self.states(input_ids, attention_mask, anchors)
        with torch.autocast(states.device.type, enabled=False):
            emissions: Tensor = self.emission(self.dropout(states))
            return emissions

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        anchors: Tensor,
        lengths: Tensor,
        labels: Tensor | None = None,
        teacher: Tensor | None = None,
        teacher_weight: float = 0.0,
    ) -> dict[str, Tensor]:
        """Emissions and, with `labels` [B, T] (tag indices, -100 for posts without gold) a loss.

        `teacher` [B, T, L] holds another model's marginals; the loss is then
        (1 - w) · NLL + w · cross-entropy(teacher marginals, own CRF marginals), each a mean over words.
        """
        emissions = self.emissions(input_ids, attention_mask, anchors)
        result = {"emissions": emissions}
        if labels is None:
            return result
        with torch.autocast(emissions.device.type, enabled=False):
            gold = labels[:, 0] >= 0
            loss = emissions.new_zeros(())
            if gold.any():
                likelihood = self.crf.log_likelihood(emissions[gold], labels[gold].clamp_min(0), lengths[gold])
                loss = -likelihood.sum() / lengths[gold].sum()
            if teacher is not None:
                real = torch.arange(labels.shape[1], device=labels.device)[None, :] < lengths[:, None]
                own = self.crf.log_marginals(emissions, lengths).clamp_min(-30)
                distance = -(teacher * own).sum(2)[real].mean()
                loss = (1 - teacher_weight) * loss + teacher_weight * distance
        result["loss"] = loss
        return result

    def posteriors(self, outputs: Mapping[str, Tensor], lengths: Tensor, temperature: float = 1.0) -> Tensor:
        emissions = outputs["emissions"]
        real = torch.arange(emissions.shape[1], device=emissions.device)[None, :] < lengths[:, None]
        with torch.autocast(emissions.device.type, enabled=False):
            return self.crf.log_marginals(emissions, lengths, temperature)[real]

    def saying(self, inputs: Sequence[Assembled], *, tokens_per_batch: int | None = None) -> list[Batch[Tensor]]:
        """CRF log-marginals [T, L] of each input, by forward-backward."""

        def answers(states: Tensor, lengths: Tensor) -> list[Tensor]:
            marginals = self.crf.log_marginals(self.emission(states), lengths).cpu()
            return [own[:length] for own, length in zip(marginals, lengths.tolist(), strict=True)]

        return self.batches(inputs, tokens_per_batch, answers)
