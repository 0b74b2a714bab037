"""What the gate reads, and gates that weigh words or choose one expert."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.datasets import post_from_text
from moreie.encoders.text import TextEncoder
from moreie.models.assembly import View
from moreie.models.decoding import decode_tags, decode_tags_per_position
from moreie.models.expert import ExpertSpec
from moreie.models.gate import Gate, GateChoice, GateInput, GateSpec, chosen
from moreie.models.gate_inputs import PostStates, evidence_columns, gate_features, input_sizes, jensen_shannon
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert
from moreie.schema import Evidence, Passage

INPUTS: tuple[GateInput, ...] = ("post", "image", "entropy", "evidence", "agreement")
POSTS = [post_from_text(text, id=text) for text in ("Live from #Nashville :-)", "Trump", "no evidence here")]


def found(title: str, text: str, score: float) -> Evidence:
    return Evidence(Passage(title, title, title, text, True), "text", 1, score)


EVIDENCE = {
    "text": [[found("Nashville", "A live city.", 7.0), found("Live", "Music.", 4.5)], [found("CNN", "News.", 2.0)], []]
}


@pytest.fixture(scope="module")
def experts(tiny_encoder_folder: Path) -> list[NerExpert]:
    encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
    made = []
    for seed, (name, retriever) in enumerate([("baseline", None), ("text", "text"), ("image", "image")]):
        torch.manual_seed(seed)
        view = View(retriever, budget=100)
        made.append(NerExpert(ExpertSpec(task="ner", name=name, labels=("PER",), view=view, encoder="x"), encoder))
    return [expert.eval() for expert in made]


def spec_for(experts: list[NerExpert], level: str, choice: str = "soft") -> GateSpec:
    sizes = input_sizes(experts) | {"image": 5}
    names = tuple(e.spec.name for e in experts)
    return GateSpec(experts=names, inputs=INPUTS, sizes=[sizes[kind] for kind in INPUTS], level=level, choice=choice)


def test_evidence_columns() -> None:
    columns = evidence_columns(POSTS[0], EVIDENCE["text"][0])
    assert columns.shape == (len(POSTS[0].words), 5)
    assert columns[0].tolist() == [7.0, 2.5, 2.0, 1.0, 1.0], "'Live' is in a title"
    assert columns[1].tolist() == [7.0, 2.5, 2.0, 0.0, 0.0], "'from' is nowhere"
    assert columns[-1, 3:].tolist() == [0.0, 0.0], "signs are never found"
    assert evidence_columns(POSTS[1], EVIDENCE["text"][1])[0].tolist() == [2.0, 0.0, 1.0, 0.0, 0.0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 1000))
def test_divergence_equals_its_definition(rows: int, classes: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    p, q = ((4 * torch.randn(rows, classes, generator=g)).log_softmax(1) for _ in range(2))
    for row in range(rows):
        a, b = p[row].exp().tolist(), q[row].exp().tolist()
        middle = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
        expected = sum(x * math.log(x / m) / 2 for own in (a, b) for x, m in zip(own, middle, strict=True) if x > 0)
        assert float(jensen_shannon(p, q)[row]) == pytest.approx(expected, abs=1e-5)
    assert jensen_shannon(p, p).max() < 1e-6
    assert (jensen_shannon(p, q) <= math.log(2) + 1e-6).all()


def test_a_case_has_the_means_of_its_words(experts: list[NerExpert]) -> None:
    outputs = Mixture(experts, Gate(spec_for(experts, "token"))).outputs(POSTS, EVIDENCE)
    lengths = [len(post.words) for post in POSTS]
    assert outputs.lengths == tuple(lengths)
    images = torch.stack([torch.arange(4.0), torch.full((4,), torch.nan), torch.ones(4)])
    words = gate_features(spec_for(experts, "token"), experts, POSTS, EVIDENCE, outputs, images)
    cases = gate_features(spec_for(experts, "sequence"), experts, POSTS, EVIDENCE, outputs, images)
    assert words.shape == (sum(lengths), sum(spec_for(experts, "token").sizes))
    assert cases.shape == (len(POSTS), words.shape[1])
    hidden = input_sizes(experts)["post"]
    for case, own in zip(cases, words.split(lengths), strict=True):
        assert torch.allclose(case[hidden:], own[:, hidden:].mean(0), atol=1e-5)
    assert not words.isnan().any()
    silent = words.split(lengths)[2]
    assert (silent[:, -3 * 2 - 10 :] == 0).all(), "no evidence, nothing to agree with"


def test_word_states_are_those_of_the_first_sub_tokens(experts: list[NerExpert]) -> None:
    encoder = experts[0].encoder
    states = PostStates()(encoder, POSTS, words=True)
    baseline = experts[0]
    (inputs, *_) = baseline.assemble(POSTS[:1], [()])
    batch = baseline.collate([inputs])
    with torch.no_grad():
        expected = baseline.states(batch["input_ids"], batch["attention_mask"], batch["anchors"])[0]
    assert (states[: len(POSTS[0].words)] - expected).abs().max() < 0.05, "bfloat16 noise only"


def test_a_post_is_read_once_and_known_by_its_words(experts: list[NerExpert]) -> None:
    encoder, read = experts[0].encoder, []
    hook = encoder.model.register_forward_hook(lambda *_: read.append(1))
    try:
        states = PostStates()
        first = states(encoder, POSTS)
        seen = len(read)
        assert torch.equal(states(encoder, [*POSTS[::-1], POSTS[0]]), torch.cat([first.flip(0), first[:1]]))
        assert len(read) == seen > 0
        namesake = replace(POSTS[0], text=POSTS[1].text, words=POSTS[1].words)
        assert torch.equal(states(encoder, [namesake]), first[1:2]), "not that of the post with its id"
    finally:
        hook.remove()


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("choice", ["soft", "hard"])
def test_the_mixture_is_the_weighted_sum_word_by_word(
    experts: list[NerExpert], tmp_path: Path, level: str, choice: GateChoice
) -> None:
    torch.manual_seed(3)
    gate = Gate(spec_for(experts, level, choice))
    torch.nn.init.normal_(gate.linear.weight)
    gate.save(tmp_path)
    gate = Gate.load(tmp_path)
    assert (gate.spec.level, gate.spec.choice) == (level, choice)
    mixed = Mixture(experts, gate)(POSTS, EVIDENCE)
    outputs = mixed.outputs
    soft = gate(gate_features(gate.spec, experts, POSTS, EVIDENCE, outputs), outputs.available_rows(gate.spec.level))
    position = 0
    for n, post in enumerate(POSTS):
        per_word = []
        for t in range(len(post.words)):
            weights = soft[n if level == "sequence" else position].exp()
            position += 1
            if choice == "hard":
                weights = (weights == weights.max()).float()
            assert weights[2] == 0, "the image expert never has evidence"
            columns = [column[n] for column in outputs.log_probabilities]
            expected = sum(w * p[t].exp() for w, p in zip(weights, columns, strict=True) if p is not None)
            assert torch.allclose(mixed.log_probabilities[n][t].exp(), expected, atol=1e-5)
            per_word.append(weights)
        assert torch.allclose(mixed.weights[n], torch.stack(per_word).mean(0), atol=1e-5)
    assert [len(p) for p in decode_tags(experts[0].tagset, mixed.log_probabilities)] == [len(p.words) for p in POSTS]
    assert decode_tags_per_position(mixed.log_probabilities)


def test_gates_of_earlier_versions_load(tmp_path: Path, experts: list[NerExpert]) -> None:
    Gate(spec_for(experts, "sequence")).save(tmp_path)
    spec = json.loads((tmp_path / "gate.json").read_text())
    del spec["level"], spec["choice"]
    (tmp_path / "gate.json").write_text(json.dumps(spec))
    assert Gate.load(tmp_path).spec == spec_for(experts, "sequence")


def test_hard_weights() -> None:
    soft = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]]).log()
    assert torch.equal(chosen("soft", soft), soft)
    assert chosen("hard", soft).exp().tolist() == [[0, 1, 0], [1, 0, 0]]
