"""Extraction with text encoders in 8 bits beside our own in float32: posts a second, and F1 on gold entities. Where the
processor has units for bfloat16, which extraction uses by itself, that beside float32, too.

F1 is that of the shipped model on all posts, with text retrieval from the demo corpus and no pictures. `--as` keeps
torch, its libraries and our kernels to the instructions of a lesser processor.

python benchmarks/int8.py --posts twitter2017/valid.txt
python benchmarks/int8.py --posts twitter2017/valid.txt --as avx2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from fresh import forget
from full_extraction import of_mixtures
from machine import AVX2, AVX512, keep_to, threads, with_arithmetic
from rows import Row, beside, save

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.encoders import int8_product
from moreie.encoders.precision import bf16_is_fast, float32
from moreie.evaluation.ner import mention_counts, mention_scores
from moreie.evaluation.significance import paired_randomisation
from moreie.models.mixture import Mixture
from moreie.models.tagset import Span
from moreie.schema import Mention, Post

T = TypeVar("T")
LESSER = {"avx2": (AVX2, 0), "avx-vnni": (AVX2, 1), "avx512": (AVX512, 0), "avx512-vnni": (AVX512, 1)}
"""By what `--as` names: what torch and its libraries are told at their start, and how our kernel multiplies (1: by
instructions for dot products of bytes, VNNI; 0: without)."""


def alone(extractor: Extractor) -> Extractor:
    """Its first expert for entities, without retrieval."""
    one = Mixture([extractor.ner.experts[0]], None, threshold=extractor.ner.threshold)
    return Extractor(one, None, corpus=None, image_encoder=None)


def spans(mentions: Sequence[Mention]) -> list[Span]:
    return [(m.type or "", m.first, m.last) for m in mentions]


@dataclass(frozen=True)
class Answers:
    """What is known of the posts, and what an extractor finds in them."""

    gold: list[list[Span]]
    found: list[list[Span]]

    @classmethod
    def of(cls, extractor: Extractor, posts: Sequence[Post]) -> Answers:
        said = extractor.extract_batch(posts)
        return cls([spans(p.mentions or ()) for p in posts], [spans(e.mentions) for e in said])

    @property
    def f1(self) -> float:
        """Of entities, in points."""
        return mention_scores(self.gold, self.found)["micro"].f1

    def p_value(self, other: Answers) -> float:
        """Paired randomisation over posts."""
        ours, theirs = (mention_counts(self.gold, a.found) for a in (self, other))
        return paired_randomisation(ours, theirs)

    def differing(self, other: Answers) -> int:
        """Posts that are answered otherwise."""
        return sum(a != b for a, b in zip(self.found, other.found, strict=True))


def loss(kind: str, name: str, posts: Sequence[Post], where: str, full: Extractor, other: Extractor) -> Row:
    """F1 that arithmetic of this kind costs."""
    with float32():
        before = Answers.of(full, posts)
    after = Answers.of(other, posts)
    lost = before.f1 - after.f1
    work = (
        f"{len(posts)} posts of {where}; {before.f1:.2f} in float32, {after.f1:.2f} in {kind} "
        f"(p {after.p_value(before):.2f}), {after.differing(before)} posts answered otherwise"
    )
    return Row(f"{kind}: loss of F1 (at most), {name}", work, lost, "points", target=0.3, met=lost <= 0.3)


def timed(make: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    made = make()
    return time.perf_counter() - start, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="posts of a timed run; F1 is of all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--as", dest="lesser", choices=LESSER, help="keep to the instructions of such a processor")
    arguments = parser.parse_args()
    if arguments.lesser:
        told, method = LESSER[arguments.lesser]
        keep_to(arguments.lesser, told | {"MOREIE_PRECISION": "float32"})
        own = int8_product.kernels()
        if own is None or own.method < method:
            parser.error(f"--as {arguments.lesser}: this processor has no such instructions, or there are no kernels")
        int8_product.kernels = lambda: replace(own, method=method)
    posts = [replace(post, image=None) for post in read_posts(arguments.posts)]
    few = posts[: arguments.count]
    full = Extractor.from_pretrained()
    making, small = timed(full.quantized)
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
    for name, (full_one, small_one) in pairs.items():
        for kind, other in {"int8": small_one, **dict.fromkeys(native, full_one)}.items():
            rows.append(loss(kind, name, posts, arguments.posts.parent.name, full_one, other))
    save(f"int8_{arguments.lesser.replace('-', '_')}" if arguments.lesser else with_arithmetic("int8"), rows)


if __name__ == "__main__":
    main()
