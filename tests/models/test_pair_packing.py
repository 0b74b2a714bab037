"""Levitated markers: a text read once for all of its pairs says of each what it says of that pair alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.datasets import post_from_text
from moreie.encoders.adapters import AdapterConfig
from moreie.encoders.bert import reach
from moreie.encoders.int8 import Int8TextEncoder
from moreie.encoders.text import HEAD_START, TAIL_START, TextEncoder
from moreie.errors import EncoderError, MoreieError
from moreie.models.assembly import PAIR_MARKERS, Assembled, View, assemble_pairs
from moreie.models.expert import ExpertSpec
from moreie.models.pair_packing import MOST_PAIRS, packed_pairs, positions_and_mask
from moreie.models.relation import RelationExpert
from moreie.schema import Evidence, Mention, Passage, Post

LEVITATED = View("text", budget=120, markers="levitated")
WORDS = "Donald Trump met Angela Merkel at the White House in Washington with CNN and Fox News"
Case = tuple[Post, Mention, Mention]


@pytest.fixture(scope="module")
def expert(tiny_encoder_folder: Path) -> RelationExpert:
    torch.manual_seed(1)
    return expert_over(TextEncoder.from_pretrained(tiny_encoder_folder))


def expert_over(encoder: TextEncoder) -> RelationExpert:
    spec = ExpertSpec(
        task="re", name="text", labels=("None", "a", "b"), view=LEVITATED, encoder="tiny", adapter=AdapterConfig(4, 8)
    )
    expert = RelationExpert(spec, encoder)
    encoder.add_adapter(expert.adapter_name, AdapterConfig(4, 8))
    for key, value in encoder.model.state_dict().items():
        if "lora_B" in key:
            value.normal_(0, 0.2, generator=torch.Generator().manual_seed(2))
    return expert.eval()


def cases(*texts: str) -> list[Case]:
    """All ordered pairs of words three apart."""
    found = []
    for n, text in enumerate(texts):
        post = post_from_text(text, id=f"p{n}")
        words = range(len(post.words))
        mentions = [mention(post, i, min(i + 1, words[-1])) for i in words[::3]]
        found += [(post, a, b) for a in mentions for b in mentions if a is not b]
    return found


def mention(post: Post, first: int, last: int) -> Mention:
    return Mention("PER", first, last, post.words[first].start, post.words[last].end)


def about(*texts: str) -> tuple[Evidence, ...]:
    return tuple(Evidence(Passage(f"q{i}", "a", "", t, True), "text", i, 1.0) for i, t in enumerate(texts, 1))


def test_pairs_of_a_text_read_together_are_answered_as_alone(expert: RelationExpert) -> None:
    asked = cases(WORDS, "Fox News and CNN in London", WORDS + " again")
    rows = [about("The White House is in Washington.") if pair[0].id == "p0" else () for pair in asked]
    inputs = expert.assemble(asked, rows)
    assert {x.used for x in inputs} == {0, 1}
    together = expert.log_probabilities(inputs)
    for one, among in zip(inputs, together, strict=True):
        (alone,) = expert.log_probabilities([one])
        assert torch.allclose(alone, among, atol=1e-5)
    assert len({tuple(p.tolist()) for p in together}) > len(asked) // 2, "they are not all the same"
    order = random.Random(3).sample(range(len(asked)), len(asked))
    mixed_up = expert.log_probabilities([inputs[i] for i in order])
    assert all(torch.allclose(together[i], p, atol=1e-5) for i, p in zip(order, mixed_up, strict=True))
    with torch.no_grad():
        trained_on = expert(**expert.collate(inputs))["logits"].log_softmax(1)
    assert torch.allclose(torch.stack(together), trained_on, atol=1e-5), "training reads what extraction reads"


def test_a_text_does_not_read_its_markers(expert: RelationExpert) -> None:
    one, other = expert.assemble(cases(WORDS)[:2], [()] * 2)
    batch = expert.collate([one, other])
    with torch.no_grad():
        states = expert.encoder(batch["input_ids"], batch["attention_mask"], batch["positions"])
        bare = expert.encoder(batch["input_ids"][:1, :-PAIR_MARKERS], torch.ones_like(batch["input_ids"])[:1, :-4])
    assert torch.allclose(states[0, :-PAIR_MARKERS], states[1, :-PAIR_MARKERS], atol=1e-6)
    assert torch.allclose(states[:1, :-PAIR_MARKERS], bare, atol=1e-5)
    assert not torch.allclose(states[0, -PAIR_MARKERS], states[1, -PAIR_MARKERS], atol=1e-3)


def test_markers_take_the_places_of_their_mentions_ends(expert: RelationExpert) -> None:
    post = post_from_text("CNN met Donald Trump", id="p")
    pair = (post, mention(post, 2, 3), mention(post, 0, 0))
    (plain,) = assemble_pairs(expert.encoder, [pair], [about("Short.")], replace(LEVITATED, markers="plain"))
    (own,) = assemble_pairs(expert.encoder, [pair], [about("Short.")], LEVITATED)
    assert len(own.input_ids) == len(plain.input_ids), "a budget holds as much either way"
    (pieces,) = expert.encoder.word_subtokens([[w.text for w in post.words]])
    starts = [1 + sum(map(len, pieces[:i])) for i in range(5)]
    assert own.levitated == (starts[2], starts[4] - 1, starts[0], starts[1] - 1)
    assert [own.input_ids[a] for a in own.anchors[:2]] == expert.encoder.marker_ids(HEAD_START, TAIL_START)
    assert own.anchors[2:] == (starts[2], starts[0]), "behind them the words that they stand at"


def test_inputs_stay_within_budget_and_encoder(expert: RelationExpert) -> None:
    asked = cases(WORDS)[:1]
    for budget in range(20, 60, 3):
        view = replace(LEVITATED, budget=budget)
        (one,) = assemble_pairs(expert.encoder, asked, [about("CNN. " * 5, "Fox.", "News. " * 9)], view)
        (bare,) = assemble_pairs(expert.encoder, asked, [()], view)
        assert len(one.input_ids) <= max(budget, len(bare.input_ids))
        assert one.used + one.dropped == 3
    limit = expert.encoder.max_length
    with pytest.raises(MoreieError, match=rf"more than the {limit - 2 - PAIR_MARKERS} that fit"):
        assemble_pairs(expert.encoder, cases("CNN " * (limit - 4)), [()] * 9999, LEVITATED)
    many = expert.assemble(cases("a b c " * 25), [()] * 600)
    packed = packed_pairs(many, limit)
    assert max(len(p.places) for p in packed) == min(MOST_PAIRS, (limit - len(many[0].input_ids) + 4) // PAIR_MARKERS)
    assert max(len(p.input.input_ids) for p in packed) <= limit
    assert sorted(i for p in packed for i in p.places) == list(range(len(many)))
    assert sum(len(p.input.input_ids) for p in packed) < sum(len(x.input_ids) for x in many) / 10


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=4), st.integers(0, 3))
def test_what_reads_what(shapes: list[tuple[int, int]], padding: int) -> None:
    inputs = []
    for text, pairs in shapes:
        places = tuple((7 * i + pairs) % text for i in range(PAIR_MARKERS * pairs))
        inputs.append(Assembled(tuple(range(text + len(places))), (), 0, 0, places))
    width = max(len(x.input_ids) for x in inputs) + padding
    positions, mask = positions_and_mask(inputs, width)
    assert ((mask > 0).sum(1) == torch.tensor([len(x.input_ids) for x in inputs])).all()
    reads = reach(mask)[:, 0]
    for b, (text, pairs) in enumerate(shapes):
        end = text + PAIR_MARKERS * pairs
        assert positions[b, :end].tolist() == [*range(text), *inputs[b].levitated]
        for i in range(end):
            own = range(0) if i < text else range(i - (i - text) % PAIR_MARKERS, i - (i - text) % PAIR_MARKERS + 4)
            assert reads[b, i].nonzero()[:, 0].tolist() == sorted({*range(text), *own})


def test_an_encoder_of_relative_positions_is_refused(encoder_of_kind: Callable[[type[Any]], TextEncoder]) -> None:
    from transformers import MPNetConfig

    relative = encoder_of_kind(MPNetConfig)
    assert not relative.takes_positions
    with pytest.raises(EncoderError, match="positions are relative; expert text needs plain markers"):
        expert_over(relative)


def test_positions_of_an_encoder_that_counts_from_behind_its_padding(
    encoder_of_kind: Callable[[type[Any]], TextEncoder],
) -> None:
    from transformers import RobertaConfig

    assert encoder_of_kind(RobertaConfig).takes_positions


def test_in_8_bits_a_pair_is_answered_nearly_alike(expert: RelationExpert) -> None:
    inputs = expert.assemble(cases(WORDS), [()] * len(cases(WORDS)))
    small = RelationExpert(expert.spec, Int8TextEncoder(expert.encoder, [expert.adapter_name]))
    small.load_state_dict(expert.head_state(), strict=False)
    for own, other in zip(small.log_probabilities(inputs), expert.log_probabilities(inputs), strict=True):
        assert torch.allclose(own, other, atol=0.1)
