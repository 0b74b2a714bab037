"""Encoders computed where they are read alone, beside whole forward passes; and what extraction costs beside them.

The first rows are the answers of experts of the shipped model to the same inputs, with and without
`encoders.last_layer`: posts alone, posts with text evidence, pairs of mentions with text evidence. The last is an
extraction whose encoder costs hardly anything (one layer, 16 wide, random weights), beside a `transformers` pipeline
over the same model: the tokenizer, Python, the CRF and the answers.

python benchmarks/last_layer.py --posts twitter2017/valid.txt
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from fresh import forget
from machine import threads
from rows import Row, compare, save
from transformers import BertConfig, BertForTokenClassification, BertModel, pipeline

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.encoders.text import TextEncoder
from moreie.models.assembly import Assembled, View
from moreie.models.expert import Expert, ExpertSpec
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert
from moreie.schema import Post
from moreie.shipped import MODEL

OUTSIDE = 4.0
"""Nats by which a random model is made to prefer "no entity": else it finds a dozen in each post."""


def read_where_asked(expert: Expert, inputs: Sequence[Assembled], what: str, repeats: int) -> Row:
    encoder = expert.encoder
    short = encoder._without_last

    def whole() -> Any:
        encoder.__dict__["_without_last"] = None
        try:
            return expert.log_probabilities(inputs)
        finally:
            encoder.__dict__["_without_last"] = short

    unlike = max(
        float((a.exp() - b.exp()).abs().max()) for a, b in zip(expert.log_probabilities(inputs), whole(), strict=True)
    )
    assert unlike < 1e-4, f"{what}: probabilities differ by {unlike}"
    length = sum(len(x.input_ids) for x in inputs) / len(inputs)
    anchors = sum(len(x.anchors) for x in inputs) / len(inputs)
    work = f"{len(inputs)} {what}, {length:.0f} sub-tokens, {anchors:.0f} of them read, {threads()}"
    return compare(
        "an expert's answers",
        work,
        lambda: expert.log_probabilities(inputs),
        whole,
        "the last layer computed everywhere",
        amount=len(inputs),
        unit="inputs/s",
        repeats=repeats,
    )


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
        head.bias[0] += OUTSIDE
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
    assert extractor.text_retriever is not None
    assert extractor.relations is not None
    evidence = [found.evidence for found in extractor.text_retriever.retrieve(posts)]
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
    rows = [read_where_asked(*run, arguments.repeats) for run in runs]
    save("last_layer", [*rows, beside_the_encoder(every, alone.encoder.tokenizer, arguments.repeats)])


if __name__ == "__main__":
    main()
