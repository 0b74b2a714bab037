"""Losses and settings of the trainer, against enumeration and definitions."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerState, TrainingArguments

from moreie.datasets import read_posts
from moreie.encoders.adapters import AdapterConfig
from moreie.encoders.text import SEPARATOR, TextEncoder
from moreie.models.assembly import View
from moreie.models.expert import ExpertSpec
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.schema import Evidence, Passage, Post
from moreie.training.adversarial import moved_embeddings, recorded_embeddings
from moreie.training.averaging import WeightAverage
from moreie.training.features import Collator, Example, Examples, ner_examples, relation_examples, with_plain_view
from moreie.training.losses import adversarial_perturbation, r_drop_loss, two_view_loss, without_some_words
from moreie.training.recipe import Optimisation, TwoView
from moreie.training.trainer import ExpertTrainer, parameter_groups, train_expert

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


def mean_divergence(p: list[list[float]], q: list[list[float]]) -> float:
    """Mean over rows of KL(p ‖ q), term by term."""
    return sum(x * math.log(x / y) for a, b in zip(p, q, strict=True) for x, y in zip(a, b, strict=True) if x) / len(p)


def test_batches_are_made_on_the_processor_wherever_the_encoder_is(tiny_encoder_folder: Path) -> None:
    """A trainer pins them there before it moves them: of tensors on a GPU it cannot."""
    expert = ner_expert(TextEncoder.from_pretrained(tiny_encoder_folder), "PER")
    post = read_posts(Path(__file__).parents[1] / "data" / "twitter2017-sample.txt")[0]
    (example,) = ner_examples(expert, [replace(post, mentions=())], [FOUND])
    expert.to("meta")
    batch = Collator(expert)([{"example": replace(example, plain=example.input)}])
    assert "plain_input_ids" in batch
    assert {t.device.type for t in batch.values()} == {"cpu"}


def test_an_expert_that_learns_nothing_is_named(
    encoder: TextEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expert = ner_expert(encoder, "PER")
    posts = read_posts(Path(__file__).parents[1] / "data" / "twitter2017-sample.txt")[:4]
    silent = ner_examples(expert, [replace(post, mentions=()) for post in posts], [()] * 4)
    settings = Optimisation(epochs=1, patience=1, learning_rate=1e-6)
    assert train_expert(expert, silent, silent, settings, output=tmp_path / "silent", seed=1) == 0
    assert "finds nothing" in caplog.text
    assert str(tmp_path / "silent") in caplog.text


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_two_view_loss_equals_enumeration(encoder: TextEncoder, temperature: float) -> None:
    expert = ner_expert(encoder, "PER")
    lengths = torch.tensor([3, 1])
    views = [3 * torch.randn(2, 3, 5, requires_grad=True) for _ in range(2)]
    losses = torch.tensor(0.7), torch.tensor(1.1)
    evidence, plain = ({"emissions": e, "loss": loss} for e, loss in zip(views, losses, strict=True))
    p, q = (
        [
            row
            for n, length in enumerate(lengths.tolist())
            for row in enumerated_marginals(expert, view[n].detach(), length, temperature)
        ]
        for view in views
    )
    mean = mean_divergence(p, q)
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


def test_r_drop_is_both_losses_and_the_symmetric_divergence(encoder: TextEncoder) -> None:
    expert = ner_expert(encoder, "PER")
    lengths = torch.tensor([2])
    views = [2 * torch.randn(1, 2, 5) for _ in range(2)]
    a, b = ({"emissions": e, "loss": torch.tensor(x)} for e, x in zip(views, (0.4, 0.5), strict=True))
    p, q = (enumerated_marginals(expert, view[0], 2, 1.0) for view in views)
    both = [mean_divergence(p, q), mean_divergence(q, p)]
    loss = r_drop_loss(expert, a, b, lengths, 3.0)
    assert float(loss.detach()) == pytest.approx(0.9 + 3.0 * sum(both) / 2, rel=1e-4)
    assert float(r_drop_loss(expert, a, a, lengths, 3.0).detach()) == pytest.approx(0.8, abs=1e-5)


def adversarial_case(folder: Path, data: Path, adapter: AdapterConfig | None) -> tuple[NerExpert, dict[str, Any]]:
    """An expert without dropout, its word-embedding table frozen if it has an adapter; and a batch of posts."""
    posts = read_posts(data / "twitter2017-sample.txt")[:4]
    encoder = TextEncoder.from_pretrained(folder)
    types = tuple(sorted({m.type for p in posts for m in p.mentions}))
    spec = ExpertSpec(task="ner", name="x", labels=types, view=View("text"), encoder="tiny", adapter=adapter)
    torch.manual_seed(0)
    expert = NerExpert(spec, encoder, dropout=0)
    if adapter:
        encoder.add_adapter(expert.adapter_name, adapter)
    expert.eval()
    return expert, Collator(expert)([{"example": e} for e in ner_examples(expert, posts, [FOUND, (), FOUND, ()])])


ADAPTERS = (None, AdapterConfig(rank=2, alpha=4))


@pytest.mark.parametrize("adapter", ADAPTERS, ids=["whole", "adapter"])
def test_the_perturbation_raises_the_loss_as_the_gradient_says(
    tiny_encoder_folder: Path, data: Path, adapter: AdapterConfig | None
) -> None:
    expert, batch = adversarial_case(tiny_encoder_folder, data, adapter)
    table = expert.encoder.model.get_input_embeddings().weight
    assert table.requires_grad == (adapter is None)
    before, weights = expert(**batch)["emissions"].detach(), table.detach().clone()
    with recorded_embeddings(expert.encoder) as recorded:
        loss = expert(**batch)["loss"]
    (embeddings,) = recorded
    assert embeddings.shape == (*batch["input_ids"].shape, expert.encoder.hidden_size)
    (gradient,) = torch.autograd.grad(loss, embeddings, retain_graph=True)
    for size in (1e-3, 1.0):
        r = adversarial_perturbation(loss, embeddings, size)
        assert torch.linalg.vector_norm(r, dim=(1, 2)).tolist() == pytest.approx([size] * 4, rel=1e-5)
        assert not r[batch["attention_mask"] == 0].any(), "nothing behind an example's last token"
    r = adversarial_perturbation(loss, embeddings, 1e-2)
    with moved_embeddings(expert.encoder, r):
        higher = float(expert(**batch)["loss"].detach() - loss.detach())
    expected = 1e-2 * float(torch.linalg.vector_norm(gradient, dim=(1, 2)).sum())
    assert higher == pytest.approx(expected, rel=0.1)
    assert higher > 0
    assert torch.equal(expert(**batch)["emissions"].detach(), before), "nothing is left behind"
    assert torch.equal(table, weights)


def test_a_perturbation_of_vanishing_and_of_no_gradients() -> None:
    embeddings = torch.ones(2, 3, 4, requires_grad=True)
    scale = torch.tensor([1e-30, 0.0])[:, None, None]
    r = adversarial_perturbation((scale * embeddings).sum(), embeddings, 0.5)
    assert float(torch.linalg.vector_norm(r[0])) == pytest.approx(0.5)
    assert not r[1].any()


@pytest.mark.parametrize("adapter", ADAPTERS, ids=["whole", "adapter"])
def test_the_adversarial_loss_is_that_of_both_passes(
    tmp_path: Path, tiny_encoder_folder: Path, data: Path, adapter: AdapterConfig | None
) -> None:
    expert, batch = adversarial_case(tiny_encoder_folder, data, adapter)
    losses = {}
    for size in (0.0, 1e-6, 1.0):
        trainer = ExpertTrainer(
            model=expert,
            args=TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True),
            train_dataset=Examples([]),
            settings=Optimisation(adversarial=size),
            teacher_weight=0.0,
            two_view=None,
            average=None,
        )
        expert.eval()
        losses[size] = trainer.compute_loss(expert, batch)
    plain = expert(**batch)["loss"].detach()
    assert torch.equal(losses[0.0], plain), "none at all"
    assert float(losses[1e-6].detach()) == pytest.approx(2 * float(plain), rel=1e-4)
    assert float(losses[1.0].detach()) > 2 * float(plain)
    losses[1.0].backward()
    trained = [p for p in expert.parameters() if p.requires_grad and p.grad is not None]
    assert trained
    assert all(torch.isfinite(p.grad).all() for p in trained)


def test_masked_words_are_the_posts_alone(encoder: TextEncoder, data: Path) -> None:
    posts = read_posts(data / "twitter2017-sample.txt")[:6]
    expert = ner_expert(encoder, "PER")
    batch = expert.collate(expert.assemble(posts, [FOUND] * 6))
    ids = batch["input_ids"]
    torch.manual_seed(0)
    masked = without_some_words(encoder, ids, 0.5)
    changed = masked != ids
    (separator,) = encoder.marker_ids(SEPARATOR)
    for row, own, mask in zip(ids.tolist(), changed.tolist(), batch["attention_mask"].tolist(), strict=True):
        end = row.index(separator)
        assert not any(own[end:]), "evidence stays"
        assert not own[0], "the frame stays"
        assert any(own[1:end])
        assert sum(mask) > end
    assert (masked[changed] == encoder.tokenizer.mask_token_id).all()
    assert 0.3 < float(changed.sum()) / sum(len(p) for post in posts for p in _pieces(encoder, post)) < 0.7
    assert torch.equal(without_some_words(encoder, ids, 0.0), ids)


def _pieces(encoder: TextEncoder, post: Post) -> list[list[int]]:
    return encoder.word_subtokens([[w.text for w in post.words]])[0]


def test_lower_layers_learn_more_slowly(encoder: TextEncoder) -> None:
    expert = ner_expert(encoder, "PER")
    settings = Optimisation(learning_rate=1e-3, layer_decay=0.5)
    rate = {id(p): g["lr"] for g in parameter_groups(expert, settings) for p in g["params"]}
    model = encoder.model
    assert {rate[id(p)] for p in model.encoder.layer[1].parameters()} == {1e-3}
    assert {rate[id(p)] for p in model.encoder.layer[0].parameters()} == {5e-4}
    assert {rate[id(p)] for p in model.embeddings.parameters()} == {2.5e-4}
    assert {rate[id(p)] for p in expert.crf.parameters()} == {settings.crf_learning_rate}
    even = parameter_groups(expert, Optimisation(learning_rate=1e-3))
    assert {g["lr"] for g in even} == {1e-3, settings.head_learning_rate, settings.crf_learning_rate}
    assert sum(len(g["params"]) for g in even) == len(rate)


def test_label_smoothing_is_that_of_the_cross_entropy(encoder: TextEncoder, data: Path) -> None:
    posts = read_posts(data / "mnre-sample.txt")
    labels = tuple(sorted({r.type for p in posts for r in p.relations}))
    expert = RelationExpert(ExpertSpec(task="re", name="x", labels=labels, view=View(None), encoder="tiny"), encoder)
    batch = Collator(expert.eval())([{"example": e} for e in relation_examples(expert, posts, [()] * len(posts))])
    loss = expert(**batch, label_smoothing=0.2)
    log_p = loss["logits"].log_softmax(1)
    gold = log_p.gather(1, batch["labels"][:, None])[:, 0]
    expected = -(0.8 * gold + 0.2 * log_p.mean(1)).mean()
    assert float(loss["loss"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_of_weights(tmp_path: Path, kind: str) -> None:
    model = torch.nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, Optimisation(average=kind, ema_decay=0.9))
    told = average.on_step_end if kind == "ema" else average.on_epoch_end
    ignored = average.on_epoch_end if kind == "ema" else average.on_step_end
    with average.applied():
        pass
    expected = None
    for count, value in enumerate((1.0, 2.0, 4.0)):
        model.weight.data.fill_(value)
        told(None, None, None)
        ignored(None, None, None)
        if expected is None:
            expected = value
        else:
            expected = 0.9 * expected + 0.1 * value if kind == "ema" else (expected * count + value) / (count + 1)
    with average.applied():
        assert float(model.weight.detach()) == pytest.approx(expected)
    assert float(model.weight.detach()) == 4.0
    (tmp_path / "checkpoint-7").mkdir()
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    average.on_save(arguments, TrainerState(global_step=7), None)
    again = WeightAverage(model, Optimisation(average=kind, ema_decay=0.9))
    again.load(tmp_path / "checkpoint-7")
    again.apply()
    assert float(model.weight.detach()) == pytest.approx(expected)
    assert int(again.average.n_averaged) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"average": "ema", "ema_decay": 0.5},
        {"r_drop": 1.0},
        {"word_dropout": 0.2, "layer_decay": 0.8},
        {"adversarial": 0.5, "word_dropout": 0.2},
    ],
)
def test_each_option_trains_otherwise_than_the_defaults(
    tmp_path: Path, tiny_encoder_folder: Path, data: Path, options: dict[str, Any]
) -> None:
    posts = read_posts(data / "twitter2017-sample.txt")[:8]
    heads = []
    for name, changed in (("plain", {}), ("again", {}), ("changed", options)):
        encoder = TextEncoder.from_pretrained(tiny_encoder_folder)
        expert = ner_expert(encoder, *sorted({m.type for p in posts for m in p.mentions}))
        examples = ner_examples(expert, posts, [()] * len(posts))
        settings = Optimisation(epochs=2, batch_size=4, learning_rate=1e-3, precision="fp32", **changed)
        train_expert(expert, examples, examples, settings, output=tmp_path / name, seed=1)
        heads.append(expert.head_state())
    assert all(torch.equal(heads[0][k], heads[1][k]) for k in heads[0])
    assert not all(torch.equal(heads[0][k], heads[2][k]) for k in heads[0])
    assert all(torch.isfinite(w).all() for w in heads[2].values())


class PowerCut(list[Example]):
    """Examples that can be read until the first checkpoint is there."""

    def __init__(self, examples: list[Example], output: Path):
        super().__init__(examples)
        self.output = output

    def __getitem__(self, index: Any) -> Any:
        if any(self.output.glob("checkpoints/checkpoint-*")):
            raise InterruptedError
        return super().__getitem__(index)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_go_on_after_a_stop(tmp_path: Path, tiny_encoder_folder: Path, data: Path, kind: str) -> None:
    posts = read_posts(data / "twitter2017-sample.txt")[:8]
    settings = Optimisation(epochs=3, batch_size=4, learning_rate=1e-3, precision="fp32", average=kind, ema_decay=0.5)

    def train(output: Path, *, cut: bool = False) -> dict[str, torch.Tensor]:
        expert = ner_expert(
            TextEncoder.from_pretrained(tiny_encoder_folder), *sorted({m.type for p in posts for m in p.mentions})
        )
        examples = ner_examples(expert, posts, [()] * len(posts))
        own = PowerCut(examples, output) if cut else examples
        train_expert(expert, own, examples, settings, output=output, seed=1)
        return expert.head_state()

    with pytest.raises(InterruptedError):
        train(tmp_path / "cut", cut=True)
    resumed, whole = train(tmp_path / "cut"), train(tmp_path / "whole")
    assert all(torch.equal(resumed[k], whole[k]) for k in whole)
