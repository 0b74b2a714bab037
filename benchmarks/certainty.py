"""Evidence read only where the post alone leaves doubt (`Extractor.selective`): what it spares and what it changes.

The shipped model with text retrieval from the demo corpus, without pictures. Speed is that of posts beside the same
extractor that reads all evidence. F1 and answers are of gold pairs of mentions (MNRE) and of all posts (Twitter), at
several certainties, from one reading of everything by all experts.

python benchmarks/certainty.py --posts twitter2017/valid.txt --pairs mnre/val.txt
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fresh import forget
from machine import threads, with_arithmetic
from rows import Row, compare, save
from torch import Tensor

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.evaluation.ner import mention_scores
from moreie.evaluation.relation import relation_scores
from moreie.models.decoding import decode
from moreie.models.mixture import Mixed
from moreie.models.outputs import certainties, first_without_evidence
from moreie.schema import Post

CERTAINTIES = (0.7, 0.8, 0.9, 0.95)
TIMED = 0.9
LOSS = 0.3


def spared(extractor: Extractor, posts: Sequence[Post], repeats: int) -> Row:
    selective = extractor.selective(TIMED)

    def extracted(by: Extractor) -> None:
        forget(by)
        by.extract_batch(posts)

    return compare(
        f"extraction at certainty {TIMED}",
        f"{len(posts)} posts without pictures, {threads()}",
        partial(extracted, selective),
        partial(extracted, extractor),
        "all evidence read",
        amount=len(posts),
        unit="posts/s",
        repeats=repeats,
    )


def changes(
    what: str, mixed: Mixed, alone: Sequence[Tensor], answers: Callable[[list[Tensor]], list[Any]], f1: Any
) -> list[Row]:
    """Rows of one task: at each certainty the share of cases left to the expert `alone`, other answers, loss of F1."""
    sure = certainties(alone)
    whole = answers(mixed.log_probabilities)
    best = f1(whole)
    rows = []
    for certainty in CERTAINTIES:
        left = (sure >= certainty).tolist()
        said = answers(
            [a if alone_here else p for alone_here, a, p in zip(left, alone, mixed.log_probabilities, strict=True)]
        )
        other = sum(a != b for a, b in zip(said, whole, strict=True))
        own = f1(said)
        work = (
            f"{len(left)} {what}: {100 * sum(left) / len(left):.0f} % need no evidence, {other} answered otherwise; "
            f"F1 {best:.2f} with all evidence, {own:.2f} so"
        )
        name = f"certainty {certainty}: loss of F1 (at most), {what}"
        rows.append(Row(name, work, best - own, "points", target=LOSS, met=best - own <= LOSS))
    return rows


def of_entities(extractor: Extractor, posts: Sequence[Post], gold: Sequence[Post]) -> list[Row]:
    mixture = extractor.ner
    assert extractor.retrievers.text is not None
    evidence = [found.evidence for found in extractor.retrievers.text.retrieve(posts)]
    mixed = mixture(posts, {"text": evidence, "image": [()] * len(posts)})
    expected = [[(m.type or "", m.first, m.last) for m in post.mentions or ()] for post in gold]
    alone = answered_alone(mixture.experts, mixed)
    answers = partial(decode, mixture.experts[0].tagset, threshold=mixture.threshold)
    return changes("posts", mixed, alone, answers, lambda found: mention_scores(expected, found)["micro"].f1)


def of_pairs(extractor: Extractor, posts: Sequence[Post], gold: Sequence[Post]) -> list[Row]:
    mixture = extractor.relations
    assert mixture is not None
    assert extractor.retrievers.text is not None
    found = [found.evidence for found in extractor.retrievers.text.retrieve(posts)]
    cases, rows, expected = [], [], []
    for post, own, evidence in zip(posts, gold, found, strict=True):
        mentions = own.mentions or ()
        for relation in own.relations or ():
            cases.append((post, mentions[relation.head], mentions[relation.tail]))
            rows.append(evidence)
            expected.append(relation.type)
    mixed = mixture(cases, {"text": rows, "image": [()] * len(cases)})

    def answers(log_p: list[Tensor]) -> list[Any]:
        return [mixture.labels[i] for i in torch.stack(log_p).argmax(1).tolist()]

    alone = answered_alone(mixture.experts, mixed)
    return changes("pairs", mixed, alone, answers, lambda found: relation_scores(expected, found)["micro"].f1)


def answered_alone(experts: Sequence[Any], mixed: Mixed) -> list[Tensor]:
    first = first_without_evidence(experts)
    assert first is not None
    return [p for p in mixed.outputs.log_probabilities[first] if p is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="posts of a timed run; F1 is of all")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    extractor = Extractor.from_pretrained()
    gold, gold_pairs = list(read_posts(arguments.posts)), list(read_posts(arguments.pairs))
    posts, pairs = ([replace(post, image=None) for post in own] for own in (gold, gold_pairs))
    rows = [spared(extractor, posts[: arguments.count], arguments.repeats)]
    rows += of_entities(extractor, posts, gold)
    rows += of_pairs(extractor, pairs, gold_pairs)
    save(with_arithmetic("certainty"), rows)


if __name__ == "__main__":
    main()
