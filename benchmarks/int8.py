"""Extraction with text encoders in 8 bits beside our own in float32: posts a second, and F1 on gold entities. Where the
processor has units for bfloat16, which extraction uses by itself, that beside float32, too.

F1 is that of the shipped model on all posts, with text retrieval from the demo corpus and no pictures. In 8 bits
an answer depends a little on the posts that it is computed together with, so F1 is the mean over several orders of the
posts; float32's is the same in all.

python benchmarks/int8.py --posts twitter2017/valid.txt
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from fresh import forget
from full_extraction import of_mixtures
from machine import threads, with_arithmetic
from rows import Row, beside, save

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.encoders.precision import bf16_is_fast, float32
from moreie.evaluation.ner import mention_counts, mention_scores
from moreie.evaluation.significance import paired_randomisation
from moreie.models.mixture import Mixture
from moreie.models.tagset import Span
from moreie.schema import Mention, Post

T = TypeVar("T")


def alone(extractor: Extractor) -> Extractor:
    """Its first expert for entities, without retrieval."""
    one = Mixture([extractor.ner.experts[0]], None, threshold=extractor.ner.threshold)
    return Extractor(one, None, corpus=None, image_encoder=None)


def spans(mentions: Sequence[Mention]) -> list[Span]:
    return [(m.type or "", m.first, m.last) for m in mentions]


@dataclass(frozen=True)
class Answers:
    """What an extractor finds in the posts in each of several orders, by post."""

    gold: list[list[Span]]
    found: list[list[list[Span]]]

    @classmethod
    def of(cls, extractor: Extractor, posts: Sequence[Post], orders: int) -> Answers:
        """Orders are those of the seeds 0, 1, …"""
        found = []
        for seed in range(orders):
            order = np.random.default_rng(seed).permutation(len(posts))
            said = extractor.extract_batch([posts[i] for i in order])
            found.append([spans(said[place].mentions) for place in np.argsort(order)])
        return cls([spans(p.mentions or ()) for p in posts], found)

    @property
    def f1(self) -> list[float]:
        """Of entities, in points, order by order."""
        return [mention_scores(self.gold, found)["micro"].f1 for found in self.found]

    def p_value(self, other: Answers) -> float:
        """Paired randomisation over posts, the orders' counts summed."""
        ours, theirs = (np.sum([mention_counts(self.gold, f) for f in a.found], axis=0) for a in (self, other))
        return paired_randomisation(ours, theirs)

    def differing(self, other: Answers) -> float:
        """Mean number of posts that are answered otherwise."""
        pairs = zip(self.found, other.found, strict=True)
        return float(np.mean([sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairs]))


def loss(
    kind: str, name: str, posts: Sequence[Post], where: str, full: Extractor, other: Extractor, orders: int
) -> Row:
    """F1 that arithmetic of this kind costs."""
    with float32():
        before = Answers.of(full, posts, orders)
    after = Answers.of(other, posts, orders)
    lost = [a - b for a, b in zip(before.f1, after.f1, strict=True)]
    work = (
        f"{len(posts)} posts of {where} in {orders} orders; {np.mean(before.f1):.2f} in float32, "
        f"{np.mean(after.f1):.2f} in {kind} ({min(after.f1):.2f} to {max(after.f1):.2f}, "
        f"p {after.p_value(before):.2f}), "
        f"{after.differing(before):.0f} posts answered otherwise"
    )
    mean = float(np.mean(lost))
    return Row(f"{kind}: loss of F1 (at most), {name}", work, mean, "points", target=0.3, met=mean <= 0.3)


def timed(make: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    made = make()
    return time.perf_counter() - start, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="posts of a timed run; F1 is of all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--orders", type=int, default=5, help="orders of the posts that F1 is the mean of")
    arguments = parser.parse_args()
    posts = [replace(post, image=None) for post in read_posts(arguments.posts)]
    few = posts[: arguments.count]
    full = Extractor.from_pretrained()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MOREIE_CACHE"] = cache
        making, small = timed(full.quantized)
        again, _ = timed(full.quantized)
    pairs = {
        "entities, one expert, no retrieval": (alone(full), alone(small)),
        "entities, all experts, text retrieval": tuple(of_mixtures(e, e.ner, None) for e in (full, small)),
    }
    work = f"{len(few)} posts of {arguments.posts.parent.name}, {threads()}"
    rows = []
    native = ["bfloat16"] if bf16_is_fast("cpu") else []
    for name, (full_one, small_one) in (pairs | {"entities and relations, the same": (full, small)}).items():
        runs = {"float32": full_one, "int8": small_one, **dict.fromkeys(native, full_one)}
        taken: dict[str, list[float]] = {kind: [] for kind in runs}
        for repeat in range(arguments.repeats + 1):
            for kind, extractor in runs.items():
                forget(extractor)
                with float32() if kind == "float32" else nullcontext():
                    seconds, _ = timed(partial(extractor.extract_batch, few))
                if repeat:  # the first warms up
                    taken[kind].append(seconds)
        rows += [
            beside(f"{kind}: {name}", work, len(few), taken[kind], taken["float32"], "ours in float32", 2.0)
            for kind in ("int8", *native)
        ]
    rows.append(Row("int8: making the 8-bit extractor", "six adapters and the bare encoder", making, "s"))
    rows.append(Row("int8: the 8-bit extractor at the next start", "the same, kept on disk", again, "s"))
    for name, (full_one, small_one) in pairs.items():
        for kind, other in {"int8": small_one, **dict.fromkeys(native, full_one)}.items():
            rows.append(loss(kind, name, posts, arguments.posts.parent.name, full_one, other, arguments.orders))
    save(with_arithmetic("int8"), rows)


if __name__ == "__main__":
    main()
