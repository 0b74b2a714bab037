"""Gate, mixture, decoding, and experts saved and loaded."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from moreie.datasets import read_jsonl
from moreie.encoders.adapters import AdapterConfig
from moreie.encoders.batches import computing_with, length_batches
from moreie.encoders.text import TextEncoder
from moreie.errors import CheckpointError, MoreieError
from moreie.models.assembly import EvidenceForm, View
from moreie.models.attribution import leave_one_out
from moreie.models.decoding import decode, decode_tags
from moreie.models.expert import EncoderPool, Expert, ExpertSpec, load_expert
from moreie.models.gate import Gate, GateLevel, GateSpec, cross_validated_log_weights, fit_gate
from moreie.models.gate_inputs import PostStates
from moreie.models.mixture import Mixture, load_mixture, read_spec
from moreie.models.ner import NerExpert
from moreie.models.outputs import certainties, run_experts
from moreie.models.relation import RelationExpert, Signature, admissible, against_the_text, signature
from moreie.schema import Evidence, Mention, Passage, Post
from moreie.shipped import DEMO_POSTS

TYPES = ("LOC", "PER")
FOUND = (Evidence(Passage("1", "a", "Nashville", "Nashville is a city.", True), "text", 1, 1.0),)


def expert(encoder: TextEncoder, name: str, retriever: str | None, *, adapter: bool = True) -> NerExpert:
    config = AdapterConfig(4, 8) if adapter else None
    view = View(retriever, EvidenceForm.paragraph, budget=120)
    spec = ExpertSpec(task="ner", name=name, labels=TYPES, view=view, encoder=encoder.name, adapter=config)
    made = NerExpert(spec, encoder)
    if config:
        encoder.add_adapter(made.adapter_name, config)
        torch.manual_seed(hash(name) % 1000)
        for key, value in encoder.model.state_dict().items():
            if "lora_B" in key and made.adapter_name in key:
                value.normal_(0, 0.2)
    return made.eval()


@pytest.fixture
def posts(data: Path) -> list[Post]:
    return read_jsonl(data / "posts.jsonl")[:6]


@pytest.fixture
def encoder(tiny_encoder_folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_encoder_folder)


def gate_for(names: tuple[str, ...]) -> Gate:
    gate = Gate(GateSpec(experts=names, inputs=("entropy",), sizes=(len(names),)))
    torch.nn.init.normal_(gate.linear.weight)
    return gate


def test_mixture_is_the_weighted_sum_of_the_experts_marginals(encoder: TextEncoder, posts: list[Post]) -> None:
    experts = [expert(encoder, "baseline", None), expert(encoder, "text", "text"), expert(encoder, "image", "image")]
    mixture = Mixture(experts, gate_for(("baseline", "text", "image")))
    evidence = {"text": [FOUND, (), FOUND, (), FOUND, FOUND], "image": [(), (), FOUND, FOUND, (), ()]}
    mixed = mixture(posts, evidence)
    assert torch.allclose(mixed.weights.sum(1), torch.ones(6), atol=1e-6)
    assert (mixed.weights[:, 1] == 0).tolist() == [False, True, False, True, False, False]
    assert (mixed.weights[:, 2] == 0).tolist() == [True, True, False, False, True, True]
    for n in range(6):
        columns = [column[n] for column in mixed.outputs.log_probabilities]
        expected = sum(w * p.exp() for w, p in zip(mixed.weights[n], columns, strict=True) if p is not None)
        assert torch.allclose(mixed.log_probabilities[n].exp(), expected, atol=1e-5)
        assert torch.allclose(expected.sum(1), torch.ones(len(posts[n].words)), atol=1e-4)


def test_experts_without_any_evidence_still_answer(encoder: TextEncoder, posts: list[Post]) -> None:
    experts = [expert(encoder, "text", "text"), expert(encoder, "image", "image")]
    mixed = Mixture(experts, gate_for(("text", "image")))(posts, {})
    assert (mixed.weights > 0).all()


def test_one_expert_is_a_mixture_and_none_is_not(encoder: TextEncoder, posts: list[Post]) -> None:
    only = expert(encoder, "text", "text")
    mixed = Mixture([only], None)(posts, {"text": [FOUND] * 6})
    assert (mixed.weights == 1).all()
    with pytest.raises(MoreieError, match="at least one"):
        Mixture([], None)
    with pytest.raises(MoreieError, match="the experts are"):
        Mixture([only, expert(encoder, "image", "image")], None)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_what_is_certain_without_evidence_is_left_to_the_expert_that_reads_none(
    encoder: TextEncoder, posts: list[Post], level: GateLevel
) -> None:
    experts = [expert(encoder, "text", "text"), expert(encoder, "baseline", None), expert(encoder, "image", "image")]
    gate = Gate(GateSpec(experts=("text", "baseline", "image"), inputs=("entropy",), sizes=(3,), level=level))
    torch.nn.init.normal_(gate.linear.weight)
    mixture = Mixture(experts, gate, 1.5, reversed_none=2.0)
    evidence = {"text": [FOUND, (), FOUND, FOUND, FOUND, FOUND], "image": [(), (), FOUND, FOUND, (), ()]}
    whole = mixture(posts, evidence)
    alone = [p for p in whole.outputs.log_probabilities[1] if p is not None]
    certain = torch.tensor([float(p.exp().max(1).values.min()) for p in alone])
    assert torch.allclose(certainties(alone), certain)
    limit = float(certain.sort().values[3])
    selective = mixture.selective(limit)
    assert (selective.temperature, selective.reversed_none) == (1.5, 2.0)
    said = selective(posts, evidence)
    sure = [n for n in range(6) if certain[n] >= limit]
    assert len(sure) == 3
    for n in range(6):
        expected = alone[n] if n in sure else whole.log_probabilities[n]
        assert torch.allclose(said.log_probabilities[n].exp(), expected.exp(), atol=1e-5)
        others = [said.outputs.log_probabilities[m][n] for m in (0, 2)]
        assert said.weights[n].tolist() == [0, 1, 0] if n in sure else any(p is not None for p in others) or n == 1
        assert n not in sure or others == [None, None]
    assert not torch.allclose(said.weights, whole.weights), "the others had a say before"
    assert mixture(posts, evidence).weights.equal(whole.weights), "what it is made of stays as it is"


def test_passages_that_nobody_has_read_have_no_influence(encoder: TextEncoder, posts: list[Post]) -> None:
    mixture = Mixture(
        [expert(encoder, "baseline", None), expert(encoder, "text", "text")], gate_for(("baseline", "text"))
    )
    evidence = {"text": [FOUND] * 6}
    certain = certainties([p for p in mixture(posts, evidence).outputs.log_probabilities[0] if p is not None])
    limit = float(certain.sort().values[3])
    whole, pieces = leave_one_out(mixture.selective(limit), posts, evidence)
    left_out = [variant for piece in pieces for variant in piece]
    assert {variant.case for variant in left_out} == {n for n in range(6) if certain[n] < limit}
    assert len(whole) == 6


def test_a_threshold_decides_how_much_is_found(encoder: TextEncoder, tmp_path: Path) -> None:
    mixture = Mixture([expert(encoder, "baseline", None)], None)
    said = mixture(read_jsonl(DEMO_POSTS)[:4], {}).log_probabilities
    tagset = mixture.experts[0].tagset
    assert decode(tagset, said, mixture.threshold) == [tagset.spans(path) for path in decode_tags(tagset, said)]
    thresholds = [mixture.at_threshold(t / 100).threshold for t in range(5, 95)]
    found = [sum(map(len, decode(tagset, said, t))) for t in thresholds]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) > 3
    assert found[-1] == 0
    mixture.at_threshold(0.25).save_spec(tmp_path, ["baseline"], {})
    assert read_spec(tmp_path).threshold == 0.25
    assert mixture.threshold is None
    for threshold in (0.0, 1.0, math.nan):
        with pytest.raises(MoreieError, match=r"from 0\.01 up to below 1"):
            mixture.at_threshold(threshold)


def test_a_certainty_has_to_be_one(encoder: TextEncoder) -> None:
    mixture = Mixture([expert(encoder, "baseline", None)], None)
    for certainty in (0.0, 1.1, math.nan):
        with pytest.raises(MoreieError, match="a probability above 0 and up to 1"):
            mixture.selective(certainty)
    with pytest.raises(MoreieError, match=r"all experts read evidence \(text\)"):
        Mixture([expert(encoder, "text", "text")], None).selective(0.9)


@pytest.mark.parametrize("copies", [1, 40])
def test_experts_side_by_side_say_what_each_says_alone(encoder: TextEncoder, posts: list[Post], copies: int) -> None:
    experts = [expert(encoder, "baseline", None), expert(encoder, "text", "text"), expert(encoder, "image", "image")]
    cases = posts * copies
    evidence = {"text": [FOUND] * len(cases), "image": [FOUND, ()] * (len(cases) // 2)}
    with computing_with(3):
        together = run_experts(experts, cases, evidence)
    for m, one in enumerate(experts):
        alone = run_experts([one], cases, evidence)
        for n in range(len(cases)):
            said, expected = together.log_probabilities[m][n], alone.log_probabilities[0][n]
            if said is not None:
                assert expected is not None
                assert (said.exp() - expected.exp()).abs().max() < 0.03, "bfloat16 noise only"
        assert together.dropped[m] == alone.dropped[0] or not together.available[:, m].all()
    assert not torch.allclose(together.entropies[:, 0], together.entropies[:, 1], atol=1e-3), "experts that differ"


@pytest.mark.parametrize("certainty", [None, 0.5])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_what_is_said_ahead_of_the_evidence_is_not_asked_again(
    encoder: TextEncoder, posts: list[Post], level: GateLevel, certainty: float | None
) -> None:
    experts = [expert(encoder, "text", "text"), expert(encoder, "baseline", None), expert(encoder, "plain", None)]
    sizes = (encoder.hidden_size, 3)
    gate = Gate(GateSpec(experts=("text", "baseline", "plain"), inputs=("post", "entropy"), sizes=sizes, level=level))
    torch.nn.init.normal_(gate.linear.weight)
    mixture = Mixture(experts, gate)
    if certainty:
        mixture = mixture.selective(certainty)
    evidence = {"text": [FOUND, (), FOUND, FOUND, FOUND, FOUND]}
    whole = mixture(posts, evidence)
    states = PostStates()
    ahead = mixture.ahead(posts, states)
    assert set(ahead.said) == ({1} if certainty else {1, 2})
    assert (states.reading(encoder, posts, words=level == "token") == []) is (certainty is None), "the gate has read"
    # Experts that could not read any more: what they have said ahead is all there is.
    for one in experts[1:2] if certainty else experts[1:]:
        one.spec = one.spec.model_copy(update={"adapter": None})
        one.emission.weight.data.fill_(torch.nan)
    said = mixture(posts, evidence, states=states, ahead=ahead)
    assert torch.allclose(said.weights, whole.weights, atol=1e-5)
    for one_said, expected in zip(said.log_probabilities, whole.log_probabilities, strict=True):
        assert torch.allclose(one_said.exp(), expected.exp(), atol=1e-5)
    nothing = mixture.ahead([], states)
    assert mixture([], {"text": []}, ahead=nothing).log_probabilities == []


def test_batches_change_nothing(encoder: TextEncoder, posts: list[Post]) -> None:
    one = expert(encoder, "text", "text")
    inputs = one.assemble(posts, [FOUND] * 6)
    small = one.log_probabilities(inputs, tokens_per_batch=1)
    large = one.log_probabilities(inputs, tokens_per_batch=100_000)
    for a, b in zip(small, large, strict=True):
        assert (a.exp() - b.exp()).abs().max() < 0.03, "bfloat16 noise only"
    assert sorted(itertools.chain(*length_batches([5, 1, 9, 9], 10))) == [0, 1, 2, 3]


@pytest.mark.parametrize("adapter", [True, False])
def test_saved_experts_load_the_same(
    tmp_path: Path, tiny_encoder_folder: Path, posts: list[Post], adapter: bool
) -> None:
    before = expert(TextEncoder.from_pretrained(tiny_encoder_folder), "text", "text", adapter=adapter)
    inputs = before.assemble(posts, [FOUND] * 6)
    expected = before.log_probabilities(inputs)
    before.save(tmp_path / "text")
    files = {p.name for p in (tmp_path / "text").rglob("*") if p.is_file()}
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files), files
    after = load_expert(NerExpert, tmp_path / "text", EncoderPool())
    assert after.assemble(posts, [FOUND] * 6) == inputs
    for a, b in zip(after.log_probabilities(inputs), expected, strict=True):
        assert (a.exp() - b.exp()).abs().max() < 0.02, "adapters are kept in half precision"


def test_two_experts_share_one_trunk_in_memory(tmp_path: Path, encoder: TextEncoder) -> None:
    for name in ("text", "image"):
        expert(encoder, name, name).save(tmp_path / name)
    pool = EncoderPool()
    a, b = (load_expert(NerExpert, tmp_path / name, pool) for name in ("text", "image"))
    assert a.encoder is b.encoder


def test_damaged_checkpoints_are_named(tmp_path: Path, encoder: TextEncoder) -> None:
    with pytest.raises(CheckpointError, match=r"no expert\.json"):
        load_expert(NerExpert, tmp_path, EncoderPool())
    folder = tmp_path / "text"
    expert(encoder, "text", "text").save(folder)
    spec = json.loads((folder / "expert.json").read_text())
    (folder / "expert.json").write_text(json.dumps(spec | {"encoder_fingerprint": "0000"}))
    with pytest.raises(CheckpointError, match="trained on encoder 0000"):
        load_expert(NerExpert, folder, EncoderPool())
    (folder / "expert.json").write_text(json.dumps(spec | {"flavour": "x"}))
    with pytest.raises(CheckpointError, match="flavour"):
        load_expert(NerExpert, folder, EncoderPool())
    (folder / "expert.json").write_text(json.dumps(spec))
    (folder / "head.safetensors").unlink()
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        load_expert(NerExpert, folder, EncoderPool())
    with pytest.raises(CheckpointError, match=r"no mixture\.json"):
        load_mixture(tmp_path, EncoderPool())


def test_saved_mixture_loads_the_same(tmp_path: Path, encoder: TextEncoder, posts: list[Post]) -> None:
    experts: list[Expert] = [expert(encoder, "text", "text"), expert(encoder, "image", "image")]
    mixture = Mixture(experts, gate_for(("text", "image")))
    for one in experts:
        one.save(tmp_path / one.spec.name)
    mixture.save_spec(tmp_path, mixture.names, {"f1": 1.0})
    evidence = {"text": [FOUND] * 6, "image": [FOUND] * 6}
    again = load_mixture(tmp_path, EncoderPool())(posts, evidence)
    assert torch.allclose(again.weights, mixture(posts, evidence).weights, atol=0.02)


def test_the_gate_learns_whom_to_trust_and_cross_validation_holds_out_groups() -> None:
    g = torch.Generator().manual_seed(0)
    features = torch.randn(200, 2, generator=g)
    right = (features[:, 0] > 0).long()
    log_gold = torch.full((200, 2), -3.0)
    log_gold[torch.arange(200), right] = -0.1

    def loss(log_weights: torch.Tensor, rows: list[int]) -> torch.Tensor:
        return -torch.logsumexp(log_weights + log_gold[rows], 1).mean()

    spec = GateSpec(experts=("a", "b"), inputs=("entropy",), sizes=(2,))
    available = torch.ones(200, 2, dtype=torch.bool)
    gate = fit_gate(spec, features, available, loss, penalty=0.1)
    weights = gate(features, available).exp()
    assert (weights.argmax(1) == right).float().mean() > 0.95
    groups = [f"text {i // 2}" for i in range(200)]
    held = cross_validated_log_weights(spec, features, available, loss, 0.1, groups, folds=4)
    assert (held.argmax(1) == right).float().mean() > 0.93
    assert torch.allclose(held.exp().sum(1), torch.ones(200), atol=1e-5)


def test_relation_signatures(encoder: TextEncoder, posts: list[Post]) -> None:
    labels = ("None", "/per/loc/place_of_birth", "/per/org/member_of", "likes")
    assert signature("/per/loc/place_of_birth") == Signature("per", "loc")
    assert admissible(labels, "PER", "LOC") == (True, True, False, True)
    assert admissible(labels, "LOC", "PER") == (True, False, False, True)
    assert all(admissible(labels, None, None))
    spec = ExpertSpec(task="re", name="baseline", labels=labels, view=View(None), encoder=encoder.name)
    relation = RelationExpert(spec, encoder)
    post = posts[3]
    inputs = relation.assemble([(post, post.mentions[0], post.mentions[1])], [()])
    (log_p,) = relation.log_probabilities(inputs)
    assert log_p.exp().sum() == pytest.approx(1, abs=1e-4)


def test_none_is_made_likelier_against_the_text_only() -> None:
    labels = ("/per/per/peer", "None", "/per/org/member_of")
    log_p = torch.log(torch.tensor([0.6, 0.01, 0.39]))
    first, second = Mention("PER", 0, 1, 0, 9), Mention("PER", 4, 4, 20, 25)
    pairs = [(first, second), (second, first)]
    both = torch.stack([log_p, log_p])
    assert torch.equal(against_the_text(both, labels, pairs, 0.0), both)
    same, moved = against_the_text(both, labels, pairs, 5.0)
    assert torch.equal(same, log_p)
    assert float(moved.exp().sum()) == pytest.approx(1, abs=1e-6)
    odds = [float(p[1] - p[0]) for p in (moved, log_p)]
    assert odds[0] - odds[1] == pytest.approx(5.0, abs=1e-5)
    assert float(moved[0] - moved[2]) == pytest.approx(float(log_p[0] - log_p[2]), abs=1e-5), (
        "the others keep their odds"
    )
