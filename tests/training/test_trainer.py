"""Losses and settings of the trainer: two views against enumeration, and defaults that change nothing."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from moreie.datasets import read_posts
from moreie.encoders.text import TextEncoder
from moreie.models.assembly import View
from moreie.models.expert import ExpertSpec
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.schema import Evidence, Passage
from moreie.training.features import Collator, ner_examples, with_plain_view
from moreie.training.recipe import TwoView
from moreie.training.trainer import two_view_loss

FOUND = [Evidence(Passage("1", "a", "Nashville", "Nashville is a city.", True), "text", 1, 1.0)]


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_encoder_folder)


def ner_expert(encoder: TextEncoder, *types: str) -> NerExpert:
    torch.manual_seed(0)
    spec = ExpertSpec(task="ner", name="text", labels=types, view=View("text"), encoder="tiny")
    expert = NerExpert(spec, encoder)
    for parameter in expert.crf.parameters():
        torch.nn.init.normal_(parameter)
    return expert


def enumerated_marginals(
    expert: NerExpert, emissions: torch.Tensor, length: int, temperature: float
) -> list[list[float]]:
    """p(y_t) of one post at a temperature, from the scores of all tag paths."""
    transitions, start, end = (s.detach().double() for s in expert.crf.scores())
    tags = range(emissions.shape[1])
    weight = {}
    for path in itertools.product(tags, repeat=length):
        score = start[path[0]] + end[path[-1]] + sum(emissions[t, y].double() for t, y in enumerate(path))
        score += sum(transitions[a, b] for a, b in itertools.pairwise(path))
        weight[path] = math.exp(float(score) / temperature)
    total = sum(weight.values())
    return [[sum(w for path, w in weight.items() if path[t] == y) / total for y in tags] for t in range(length)]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_two_view_loss_equals_enumeration(encoder: TextEncoder, temperature: float) -> None:
    expert = ner_expert(encoder, "PER")
    lengths = torch.tensor([3, 1])
    views = [3 * torch.randn(2, 3, 5, requires_grad=True) for _ in range(2)]
    losses = torch.tensor(0.7), torch.tensor(1.1)
    evidence, plain = ({"emissions": e, "loss": loss} for e, loss in zip(views, losses, strict=True))
    divergences = []
    for n, length in enumerate(lengths.tolist()):
        p, q = (enumerated_marginals(expert, view[n].detach(), length, temperature) for view in views)
        for a, b in zip(p, q, strict=True):
            divergences.append(sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0))
    mean = sum(divergences) / len(divergences)
    for alpha in (0.0, 0.3, 1.0):
        settings = TwoView(alpha=alpha, temperature=temperature)
        loss = two_view_loss(expert, evidence, plain, lengths, settings)
        expected = alpha * 1.8 + (1 - alpha) * temperature**2 * mean
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    for view in views:
        view.retain_grad()
    two_view_loss(expert, evidence, plain, lengths, TwoView(alpha=0, temperature=temperature)).backward()
    assert views[0].grad is None, "the view with evidence is the teacher"
    assert torch.isfinite(views[1].grad).all()
    assert views[1].grad[1, 0].abs().sum() > 0
    assert views[1].grad[1, 1:].abs().sum() == 0, "nothing behind a post's last word"


def test_two_view_loss_of_relations(encoder: TextEncoder) -> None:
    spec = ExpertSpec(task="re", name="text", labels=("None", "x"), view=View("text"), encoder="tiny")
    expert = RelationExpert(spec, encoder)
    p, q = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    zero = torch.tensor(0.0)
    loss = two_view_loss(
        expert, {"logits": p, "loss": zero}, {"logits": q, "loss": zero}, torch.tensor([2]), TwoView(alpha=0)
    )
    expected = torch.nn.functional.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="batchmean", log_target=True)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_both_views_are_in_a_batch(encoder: TextEncoder, data: Path) -> None:
    posts = read_posts(data / "twitter2017-sample.txt")[:2]
    expert = ner_expert(encoder, *sorted({m.type for p in posts for m in p.mentions}))
    plain = ner_examples(expert, posts, [()] * 2)
    batch = Collator(expert)([{"example": e} for e in with_plain_view(ner_examples(expert, posts, [FOUND] * 2), plain)])
    alone = Collator(expert)([{"example": e} for e in plain])
    assert batch["input_ids"].shape[1] > alone["input_ids"].shape[1]
    for key in ("input_ids", "attention_mask", "anchors", "lengths"):
        assert torch.equal(batch[f"plain_{key}"], alone[key])
    assert not any(key.startswith("plain_") for key in alone)
