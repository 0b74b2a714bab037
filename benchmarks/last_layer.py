"""Encoders computed where they are read alone, beside whole forward passes; and what extraction costs beside them.

The first rows are the answers of experts of the shipped model to the same inputs, with and without
`encoders.last_layer`: posts alone, posts with text evidence, pairs of mentions with text evidence; and the gradients of
a training batch, also with the adapter added in place (`encoders.merging.added`, as in training) and as layers of its
own. Then both at once, for an encoder of base size with relative positions (MPNet, random weights). The last
is an extraction whose encoder costs hardly anything (one layer, 16 wide, random weights), beside a `transformers`
pipeline over the same model: the tokenizer, Python, the CRF and the answers.

python benchmarks/last_layer.py --posts twitter2017/valid.txt
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from epochs import BATCH
from fresh import forget
from machine import threads, with_arithmetic
from rows import Row, compare, save
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    BertModel,
    MPNetConfig,
    MPNetModel,
    pipeline,
)

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.encoders.adapters import AdapterConfig
from moreie.encoders.last_layer import at
from moreie.encoders.merging import added
from moreie.encoders.text import TextEncoder
from moreie.models.assembly import Assembled, View
from moreie.models.expert import Expert, ExpertSpec
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert
from moreie.models.tagset import OUTSIDE
from moreie.schema import Evidence, Post
from moreie.shipped import MODEL, TEXT_ENCODER
from moreie.training.features import Collator, Example, ner_examples

TOLERANCE = 1e-3
BESIDE = "the adapter as layers of its own"
RELUCTANCE = 4.0
"""Nats by which a random model is made to prefer "no entity": else it finds a dozen in each post."""


def computed_everywhere(
    encoder: TextEncoder,
    input_ids: Tensor,
    attention_mask: Tensor,
    anchors: Tensor,
    positions: Tensor | None = None,
    anchor_counts: Tensor | None = None,
) -> Tensor:
    """What `TextEncoder.states_at` gives, from a whole forward pass."""
    return at(encoder(input_ids, attention_mask, positions), anchors)


def both_ways(name: str, what: str, inputs: Sequence[Assembled], work: Callable[[], Any], repeats: int) -> Row:
    def whole() -> Any:
        with patch.object(TextEncoder, "states_at", computed_everywhere):
            return work()

    length = sum(len(x.input_ids) for x in inputs) / len(inputs)
    anchors = sum(len(x.anchors) for x in inputs) / len(inputs)
    shape = f"{len(inputs)} {what}, {length:.0f} sub-tokens, {anchors:.0f} of them read, {threads()}"
    unlike = max(float((a - b).abs().max()) for a, b in zip(work(), whole(), strict=True))
    assert unlike < TOLERANCE, f"{what}: answers differ by {unlike}"
    peer, unit = "the last layer computed everywhere", "inputs/s"
    return compare(name, shape, work, whole, peer, amount=len(inputs), unit=unit, repeats=repeats)


def answers(expert: Expert, inputs: Sequence[Assembled]) -> list[Tensor]:
    """The expert's probabilities."""
    return [log_p.exp() for log_p in expert.log_probabilities(inputs)]


def gradients(expert: NerExpert, examples: Sequence[Example]) -> tuple[Tensor, ...]:
    """Of the loss of a batch, by the adapter and the head: a training step but for the optimiser."""
    expert.use()
    loss = expert(**Collator(expert)([{"example": example} for example in examples]))["loss"]
    weights = [p for p in expert.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, weights, materialize_grads=True)


def gradients_in_place(expert: NerExpert, examples: Sequence[Example]) -> tuple[Tensor, ...]:
    """The same with the adapter added in place, as in training."""
    with added(expert.encoder, expert.adapter_name):
        return gradients(expert, examples)


def base_size(like: NerExpert, posts: Sequence[Post], evidence: Sequence[Sequence[Evidence]], repeats: int) -> Row:
    """A training batch's gradients in MPNet of base size, by all that makes training cheaper and without it; the batch
    is read as the expert `like` reads it."""
    tokenizer = like.encoder.tokenizer
    with tempfile.TemporaryDirectory() as place:
        torch.manual_seed(0)
        MPNetModel(MPNetConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)).save_pretrained(place)
        tokenizer.save_pretrained(place)
        spec = like.spec.model_copy(update={"encoder": place, "adapter": AdapterConfig(16, 32)})
        expert = NerExpert(spec, TextEncoder.from_pretrained(place)).eval()
    expert.encoder.add_adapter(expert.adapter_name, AdapterConfig(16, 32))
    examples = ner_examples(expert, posts, evidence)

    def theirs() -> tuple[Tensor, ...]:
        with patch.object(TextEncoder, "states_at", computed_everywhere):
            return gradients(expert, examples)

    return in_place_beside(expert, examples, theirs, f"{BESIDE}, the last layer computed everywhere", repeats)


def in_place_beside(
    expert: NerExpert, examples: Sequence[Example], theirs: Callable[[], tuple[Tensor, ...]], peer: str, repeats: int
) -> Row:
    ours = partial(gradients_in_place, expert, examples)
    unlike = max(float((a - b).abs().max()) for a, b in zip(ours(), theirs(), strict=True))
    assert unlike < TOLERANCE, f"{expert.encoder.model.config.model_type}: gradients differ by {unlike}"
    length = sum(len(e.input.input_ids) for e in examples) / len(examples)
    layers = expert.encoder.model.config.num_hidden_layers
    shape = f"{len(examples)} posts with text evidence, {length:.0f} sub-tokens, {layers} layers, {threads()}"
    name, unit = "gradients of a batch, the adapter added in place", "inputs/s"
    return compare(name, shape, ours, theirs, peer, amount=len(examples), unit=unit, repeats=repeats)


def beside_the_encoder(posts: Sequence[Post], tokenizer: Any, repeats: int) -> Row:
    with tempfile.TemporaryDirectory() as place:
        torch.manual_seed(0)
        narrow = BertConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
        )
        BertModel(narrow).save_pretrained(place)
        tokenizer.save_pretrained(place)
        spec = ExpertSpec(
            task="ner", name="baseline", labels=("PER", "LOC", "ORG", "MISC"), view=View(None), encoder=place
        )
        expert = NerExpert(spec, TextEncoder.from_pretrained(place)).eval()
        model = BertForTokenClassification.from_pretrained(place, num_labels=len(expert.tagset)).eval()
    head: Any = expert.emission
    with torch.no_grad():
        head.bias[OUTSIDE] += RELUCTANCE
        model.classifier.weight.copy_(head.weight)
        model.classifier.bias.copy_(head.bias)
    model.config.id2label = dict(enumerate(expert.tagset.tags))
    extractor = Extractor(Mixture([expert], None), None, corpus=None, image_encoder=None)
    found = pipeline("token-classification", model, tokenizer=tokenizer)
    texts = [post.text for post in posts]

    def ours() -> None:
        forget(extractor)
        extractor.extract_batch(posts)

    return compare(
        "extraction around an encoder of one layer, 16 wide",
        f"{len(posts)} posts, {threads()}",
        ours,
        lambda: found(texts, aggregation_strategy="first", batch_size=32),
        f"transformers {transformers.__version__} pipeline, batches of 32",
        amount=len(posts),
        unit="posts/s",
        repeats=repeats,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    every = [replace(post, image=None) for post in read_posts(arguments.posts)]
    posts = every[: arguments.count]
    extractor = Extractor.from_pretrained(MODEL)
    assert extractor.retrievers.text is not None
    assert extractor.relations is not None
    evidence = [found.evidence for found in extractor.retrievers.text.retrieve(posts)]
    alone = next(e for e in extractor.ner.experts if e.spec.view.retriever is None)
    of_entities, of_relations = (
        next(e for e in mixture.experts if e.spec.view.retriever == "text")
        for mixture in (extractor.ner, extractor.relations)
    )
    pairs = [
        ((post, post.mentions[0], post.mentions[1]), row)
        for post, row in zip(posts, evidence, strict=True)
        if post.mentions and len(post.mentions) > 1
    ]
    runs: list[tuple[Expert, list[Assembled], str]] = [
        (alone, alone.assemble(posts, [()] * len(posts)), "posts alone"),
        (of_entities, of_entities.assemble(posts, evidence), "posts with text evidence"),
        (of_relations, of_relations.assemble(*zip(*pairs, strict=True)), "pairs with text evidence"),
    ]
    rows = [
        both_ways("an expert's answers", what, inputs, partial(answers, expert, inputs), arguments.repeats)
        for expert, inputs, what in runs
    ]
    batch = ner_examples(of_entities, posts[:BATCH], evidence[:BATCH])
    step = partial(gradients, of_entities, batch)
    rows.append(
        both_ways("gradients of a batch", "posts with text evidence", [e.input for e in batch], step, arguments.repeats)
    )
    rows.append(in_place_beside(of_entities, batch, partial(gradients, of_entities, batch), BESIDE, arguments.repeats))
    rows.append(base_size(of_entities, posts[:BATCH], evidence[:BATCH], arguments.repeats))
    save(
        with_arithmetic("last_layer"),
        [*rows, beside_the_encoder(every, AutoTokenizer.from_pretrained(TEXT_ENCODER), arguments.repeats)],
    )


if __name__ == "__main__":
    main()
