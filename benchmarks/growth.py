"""How time and memory grow with the work: posts, evidence, experts, the corpus, threads and processes.

A row gives the figure at the largest size beside the smallest, and by which power of the size seconds grow there (the
slope between logarithms): 1 is linear; more than 1.1 is missed. Curves are drawn into docs/growth.svg.

python benchmarks/growth.py --posts twitter2017/valid.txt --articles wikipedia-408k.jsonl.zst
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import zstandard
from full_extraction import peak
from machine import threads
from matplotlib.figure import Figure
from rows import Row, save

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.models.mixture import Mixture
from moreie.models.outputs import run_experts
from moreie.retrieval.text import TextRetriever
from moreie.schema import Post

PLOT = Path(__file__).parents[1] / "docs" / "growth.svg"
LINEAR = 1.1
POSTS = (10, 100, 1_000, 10_000)
BUDGETS = (32, 64, 128, 256, 512)
ARTICLES = (500, 2_000, 20_000)


def alone() -> Extractor:
    """The first expert for entities, without retrieval."""
    return Extractor(Mixture([Extractor.from_pretrained().ner.experts[0]], None), None, corpus=None, image_encoder=None)


def many(posts: Sequence[Post], count: int) -> list[Post]:
    return [replace(p, id=f"{p.id}-{i}") for i, p in zip(range(count), itertools.cycle(posts), strict=False)]


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds, after one run that is not counted where there are several."""
    taken = []
    for repeat in range(repeats + (repeats > 1)):
        start = time.perf_counter()
        work()
        if repeat or repeats == 1:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def process(kind: str, arguments: argparse.Namespace, *more: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--posts", str(arguments.posts), "--child", kind, *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(kind: str, size: int, arguments: argparse.Namespace) -> None:
    """In a fresh process: seconds for `size` posts by one expert (streamed, nothing kept), and the peak in MB."""
    if kind == "share":
        torch.set_num_threads(1)
    extractor = alone()
    posts = [replace(p, image=None) for p in read_posts(arguments.posts)]
    extractor.extract_batch(posts[:64])
    start = time.perf_counter()
    for _ in extractor.stream(many(posts, size)):
        pass
    print(json.dumps({"seconds": time.perf_counter() - start, "MB": peak()}))


def by_posts(arguments: argparse.Namespace) -> dict[int, dict[str, float]]:
    return {n: process("posts", arguments, "--size", str(n)) for n in POSTS if n <= arguments.most}


def by_evidence(posts: Sequence[Post], repeats: int) -> dict[int, dict[str, float]]:
    """By sub-tokens of an input, evidence included."""
    expert = next(e for e in Extractor.from_pretrained().ner.experts if e.spec.view.retriever == "text")
    view = expert.spec.view
    text = Extractor.from_pretrained().text_retriever
    assert text is not None
    evidence = [r.evidence * 8 for r in text.retrieve(posts)]
    curve = {}
    for budget in BUDGETS:
        expert.spec = expert.spec.model_copy(update={"view": replace(view, budget=budget, k=80)})
        inputs = expert.assemble(posts, evidence)
        length = round(statistics.mean(len(x.input_ids) for x in inputs))
        curve[length] = {"seconds": timed(lambda inputs=inputs: expert.log_probabilities(inputs), repeats)}
    return curve


def by_experts(posts: Sequence[Post], repeats: int) -> dict[int, dict[str, float]]:
    """The entity experts as often as it takes, each with the same evidence."""
    mixture = Extractor.from_pretrained().ner
    text = next(e for e in mixture.experts if e.spec.view.retriever == "text")
    retriever = Extractor.from_pretrained().text_retriever
    assert retriever is not None
    evidence = {"text": [r.evidence for r in retriever.retrieve(posts)]}
    return {m: {"seconds": timed(lambda m=m: run_experts([text] * m, posts, evidence), repeats)} for m in (1, 2, 4, 8)}


def by_corpus(posts: Sequence[Post], articles: Path, repeats: int) -> dict[int, dict[str, float]]:
    """Seconds of retrieval for all posts, and of the build, by the corpus' sentences."""
    curve = {}
    with tempfile.TemporaryDirectory() as place:
        for count in ARTICLES:
            source, folder = Path(place) / f"{count}.jsonl", str(Path(place) / str(count))
            with zstandard.open(articles, "rt", encoding="utf-8") as lines, source.open("w") as out:
                out.writelines(itertools.islice(lines, count))
            start = time.perf_counter()
            command = [sys.executable, "-m", "moreie", "corpus", "build", folder, "--articles", str(source)]
            subprocess.run(command, check=True, capture_output=True)
            built = time.perf_counter() - start
            corpus = KnowledgeCorpus.open(folder)
            retriever = TextRetriever(corpus, 10)
            seconds = timed(lambda retriever=retriever: retriever.retrieve(posts), repeats)
            curve[corpus.manifest.sentences] = {"seconds": seconds, "build": built}
    return curve


def by_workers(
    arguments: argparse.Namespace, size: int
) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    """Seconds for as many posts a worker as alone: threads of one process, and processes of one thread each."""
    cores = range(1, (torch.get_num_threads() or 1) + 1)
    threads_curve, processes = {}, {}
    extractor = alone()
    posts = many([replace(p, image=None) for p in read_posts(arguments.posts)], size)
    before = torch.get_num_threads()
    for count in cores:
        torch.set_num_threads(count)
        threads_curve[count] = {"seconds": timed(lambda: extractor.extract_batch(posts), 3)}
    torch.set_num_threads(before)
    command = [sys.executable, __file__, "--posts", str(arguments.posts), "--child", "share"]
    for count in cores:
        running = [
            subprocess.Popen([*command, "--size", str(size // count)], stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        said = [json.loads(p.communicate()[0].splitlines()[-1]) for p in running]
        processes[count] = {"seconds": max(s["seconds"] for s in said)}
    return threads_curve, processes


def slope(curve: dict[int, dict[str, float]], key: str = "seconds") -> float:
    """The power of the size by which `key` grows between the two largest sizes."""
    a, b = sorted(curve)[-2:]
    return math.log(curve[b][key] / curve[a][key]) / math.log(b / a)


def row(name: str, what: str, curve: dict[int, dict[str, float]], key: str = "seconds", unit: str = "s") -> Row:
    sizes = sorted(curve)
    power = slope(curve, key)
    shown = ", ".join(f"{size:,}: {curve[size][key]:.3g}" for size in sizes)
    work = f"{what}: {shown} {unit}; the power of the size is {power:.2f}"
    return Row(name, work, curve[sizes[-1]][key], unit, target=LINEAR, met=power <= LINEAR)


def draw(curves: dict[str, tuple[str, dict[int, dict[str, float]]]]) -> None:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    for axes, (title, (axis, curve)) in zip(figure.subplots(2, 3).flat, curves.items(), strict=False):
        sizes = sorted(curve)
        axes.loglog(sizes, [curve[s]["seconds"] for s in sizes], marker="o", color="#4878a8")
        first = curve[sizes[0]]["seconds"] / sizes[0]
        axes.loglog(sizes, [first * s for s in sizes], linestyle=":", color="#999999")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(axis, fontsize=8)
        axes.set_ylabel("seconds (dotted: linear)", fontsize=8)
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument(
        "--articles", type=Path, help="articles to build corpora of; without them that curve is left out"
    )
    parser.add_argument("--most", type=int, default=10_000, help="posts at the end of the first curve")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child, arguments.size, arguments)
    posts = [replace(p, image=None) for p in read_posts(arguments.posts)[:100]]
    few = posts[:32]
    streamed = by_posts(arguments)
    evidence = by_evidence(few, arguments.repeats)
    experts = by_experts(few, arguments.repeats)
    in_threads, in_processes = by_workers(arguments, 200)
    curves: dict[str, tuple[str, Any]] = {
        "posts, one expert": ("posts", streamed),
        "evidence, 32 posts": ("sub-tokens of an input", evidence),
        "experts, 32 posts": ("experts", experts),
    }
    rows = [
        row("growth with posts", f"one expert, {threads()}", streamed),
        row("growth of memory with posts", "peak of a fresh process", streamed, "MB", "MB"),
        row("growth with evidence", f"32 posts, by sub-tokens of an input, {threads()}", evidence),
        row("growth with experts", f"32 posts with evidence, {threads()}", experts),
    ]
    if arguments.articles:
        corpus = by_corpus(posts, arguments.articles, arguments.repeats)
        curves["retrieval, 100 posts"] = ("sentences of the corpus", corpus)
        rows.append(row("growth of retrieval with the corpus", "100 posts, by sentences", corpus))
        rows.append(row("growth of the build with the corpus", "by sentences", corpus, "build"))
    for name, curve in (("threads", in_threads), ("processes", in_processes)):
        curves[name] = (name, curve)
        shown = ", ".join(f"{n}: {200 / v['seconds']:.3g}" for n, v in curve.items())
        best = max(200 / v["seconds"] for v in curve.values())
        rows.append(Row(f"growth with {name}", f"200 posts, one expert, posts/s by {name}: {shown}", best, "posts/s"))
    draw(curves)
    save("growth", rows)
    return None


if __name__ == "__main__":
    main()
