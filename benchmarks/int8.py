"""Extraction with text encoders in 8 bits beside our own in float32: posts a second, and F1 on gold entities.

F1 is that of the shipped model on all posts, with text retrieval from the demo corpus and no pictures.

python benchmarks/int8.py --posts twitter2017/valid.txt
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fresh import forget
from full_extraction import of_mixtures
from machine import threads
from rows import Row, beside, save

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.evaluation.ner import Span, mention_scores
from moreie.models.mixture import Mixture
from moreie.schema import Mention, Post


def alone(extractor: Extractor) -> Extractor:
    """Its first expert for entities, without retrieval."""
    return Extractor(Mixture([extractor.ner.experts[0]], None), None, corpus=None, image_encoder=None)


def spans(mentions: Sequence[Mention]) -> list[Span]:
    return [(m.type or "", m.first, m.last) for m in mentions]


def f1(extractor: Extractor, posts: Sequence[Post]) -> float:
    """Of entities, in points."""
    found = extractor.extract_batch(posts)
    return mention_scores([spans(p.mentions or ()) for p in posts], [spans(e.mentions) for e in found])["micro"].f1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="posts of a timed run; F1 is of all")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    posts = [replace(post, image=None) for post in read_posts(arguments.posts)]
    few = posts[: arguments.count]
    full = Extractor.from_pretrained()
    start = time.perf_counter()
    small = full.quantized()
    making = time.perf_counter() - start
    pairs = {
        "entities, one expert, no retrieval": (alone(full), alone(small)),
        "entities, all experts, text retrieval": tuple(of_mixtures(e, e.ner, None) for e in (full, small)),
    }
    work = f"{len(few)} posts of {arguments.posts.parent.name}, {threads()}"
    rows = []
    for name, pair in pairs.items():
        taken: tuple[list[float], list[float]] = ([], [])
        for repeat in range(arguments.repeats + 1):
            for extractor, times in zip(pair, taken, strict=True):
                forget(extractor)
                start = time.perf_counter()
                extractor.extract_batch(few)
                if repeat:  # the first warms up
                    times.append(time.perf_counter() - start)
        rows.append(beside(f"int8: {name}", work, len(few), taken[1], taken[0], "ours in float32", 2.0))
    rows.append(Row("int8: making the 8-bit extractor", work, making, "s"))
    for name, pair in pairs.items():
        before, after = (f1(extractor, posts) for extractor in pair)
        where = f"{len(posts)} posts of {arguments.posts.parent.name}; {before:.2f} in float32, {after:.2f} in int8"
        loss = before - after
        rows.append(Row(f"int8: loss of F1 (at most), {name}", where, loss, "points", target=0.3, met=loss <= 0.3))
    save("int8", rows)


if __name__ == "__main__":
    main()
