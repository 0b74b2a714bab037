"""How time and memory grow with the work: posts, evidence, experts, the corpus, threads and processes.

Each point is a fresh process: median seconds of the work after one run that warms up, and the peak of its memory. A row
gives the figure at the largest size beside the smaller ones, and by which power of the size it grows there (the slope
between logarithms): 1 is linear; more than 1.1 is missed. Curves are drawn into docs/growth.svg.

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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import zstandard
from full_extraction import peak
from machine import threads
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from rows import Row, save, seconds

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.models.mixture import Mixture
from moreie.models.outputs import run_experts
from moreie.retrieval.text import TextRetriever
from moreie.schema import Evidence, Post

PLOT = Path(__file__).parents[1] / "docs" / "growth.svg"
LINEAR = 1.1
POSTS = (10, 100, 1_000, 10_000)
BUDGETS = (32, 64, 128, 256, 512)
EXPERTS = (1, 2, 4, 8)
ARTICLES = (1_500, 15_000, 150_000)
WORKER_POSTS = 400
WORKERS = ("threads", "processes")


@dataclass(frozen=True, slots=True)
class Point:
    """What a fresh process took for work of a size (posts, sub-tokens, experts, sentences, workers)."""

    size: int
    seconds: float
    MB: float
    build: float = math.nan


def many(posts: Sequence[Post], count: int) -> list[Post]:
    return [replace(p, id=f"{p.id}-{i}") for i, p in zip(range(count), itertools.cycle(posts), strict=False)]


def once(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds, after one run that warms up."""
    return statistics.median(seconds(work, repeats))


def fresh(kind: str, size: int, arguments: argparse.Namespace, *more: str) -> subprocess.Popen[str]:
    """A process of one point, begun."""
    own = ["--posts", str(arguments.posts), "--repeats", str(arguments.repeats), "--child", kind, "--size", str(size)]
    return subprocess.Popen([sys.executable, __file__, *own, *more], stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> Point:
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, process.args))} ended with {process.returncode}")
    return Point(**json.loads(said.splitlines()[-1]))


# --- in the fresh process -------------------------------------------------------------------------------------------


def streamed(posts: Sequence[Post], size: int) -> Point:
    """So many posts by the first expert for entities, without retrieval; extractions are not kept."""
    expert = Extractor.from_pretrained().ner.experts[0]
    extractor = Extractor(Mixture([expert], None), None, corpus=None, image_encoder=None)
    extractor.extract_batch(posts[:64])
    work = many(posts, size)
    taken = [once(lambda: sum(1 for _ in extractor.stream(work))) for _ in range(1 if size > 1_000 else 3)]
    return Point(size, statistics.median(taken), peak())


def evidence_of(extractor: Extractor, posts: Sequence[Post]) -> list[tuple[Evidence, ...]]:
    assert extractor.retrievers.text is not None
    return [r.evidence for r in extractor.retrievers.text.retrieve(posts)]


def with_evidence(posts: Sequence[Post], budget: int, repeats: int) -> Point:
    """32 posts by the text expert, whose inputs hold as much evidence as the budget allows; by their mean length."""
    extractor, few = Extractor.from_pretrained(), posts[:32]
    expert = next(e for e in extractor.ner.experts if e.spec.view.retriever == "text")
    expert.spec = expert.spec.model_copy(update={"view": replace(expert.spec.view, budget=budget, k=80)})
    inputs = expert.assemble(few, [own * 8 for own in evidence_of(extractor, few)])
    length = round(statistics.mean(len(x.input_ids) for x in inputs))
    return Point(length, timed(lambda: expert.log_probabilities(inputs), repeats), peak())


def by_experts(posts: Sequence[Post], count: int, repeats: int) -> Point:
    """32 posts by so many experts, each with the same evidence."""
    extractor, few = Extractor.from_pretrained(), posts[:32]
    expert = next(e for e in extractor.ner.experts if e.spec.view.retriever == "text")
    evidence = {"text": evidence_of(extractor, few)}
    return Point(count, timed(lambda: run_experts([expert] * count, few, evidence), repeats), peak())


def from_corpus(posts: Sequence[Post], folder: str, repeats: int) -> Point:
    """Text retrieval for 100 posts."""
    corpus = KnowledgeCorpus.open(folder)
    retriever, hundred = TextRetriever(corpus, 10), posts[:100]
    return Point(corpus.manifest.sentences, timed(lambda: retriever.retrieve(hundred), repeats), peak())


def child(arguments: argparse.Namespace) -> Point:
    posts = [replace(p, image=None) for p in read_posts(arguments.posts)]
    if arguments.child == "evidence":
        return with_evidence(posts, arguments.size, arguments.repeats)
    if arguments.child == "experts":
        return by_experts(posts, arguments.size, arguments.repeats)
    if arguments.child == "corpus":
        return from_corpus(posts, arguments.corpus, arguments.repeats)
    if arguments.child == "threads":
        torch.set_num_threads(arguments.size)
        return replace(streamed(posts, WORKER_POSTS), size=arguments.size)
    if arguments.child == "process":
        torch.set_num_threads(1)
    return streamed(posts, arguments.size)


# --- curves ---------------------------------------------------------------------------------------------------------


def curve(kind: str, sizes: Sequence[int], arguments: argparse.Namespace) -> list[Point]:
    return [ended(fresh(kind, size, arguments)) for size in sizes]


def by_corpus(arguments: argparse.Namespace) -> list[Point]:
    """By the corpus' sentences: retrieval, and the build."""
    points = []
    with tempfile.TemporaryDirectory() as place:
        for count in ARTICLES:
            source, folder = Path(place) / f"{count}.jsonl", str(Path(place) / str(count))
            with zstandard.open(arguments.articles, "rt", encoding="utf-8") as lines, source.open("w") as out:
                out.writelines(itertools.islice(lines, count))
            command = [sys.executable, "-m", "moreie", "corpus", "build", folder, "--articles", str(source)]
            built = once(lambda command=command: subprocess.run(command, check=True, capture_output=True))
            points.append(replace(ended(fresh("corpus", count, arguments, "--corpus", folder)), build=built))
    return points


def by_processes(cores: Sequence[int], arguments: argparse.Namespace) -> list[Point]:
    """As many posts by processes of one thread each, at the same time; the slowest counts, memory is that of all."""
    points = []
    for count in cores:
        running = [fresh("process", WORKER_POSTS // count, arguments) for _ in range(count)]
        said = [ended(process) for process in running]
        points.append(Point(count, max(p.seconds for p in said), sum(p.MB for p in said)))
    return points


def slope(points: Sequence[Point], of: Callable[[Point], float]) -> float:
    """The power of the size by which a figure grows between the two largest sizes."""
    a, b = points[-2:]
    return math.log(of(b) / of(a)) / math.log(b.size / a.size)


def rows_of(name: str, what: str, points: Sequence[Point]) -> list[Row]:
    rows = []
    for figure, of, unit in (
        ("", lambda p: p.seconds, "s"),
        (", memory", lambda p: p.MB, "MB"),
        (", build", lambda p: p.build, "s"),
    ):
        if math.isnan(of(points[-1])):
            continue
        power = slope(points, of)
        shown = ", ".join(f"{p.size:,}: {of(p):.3g}" for p in points)
        work = f"{what}: {shown} {unit}; the power of the size is {power:.2f}"
        rows.append(Row(f"{name}{figure}", work, of(points[-1]), unit, target=LINEAR, met=power <= LINEAR))
    return rows


def draw(curves: dict[str, tuple[str, list[Point]]]) -> None:
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (title, (axis, points)) in zip(figure.subplots(2, 3).flat, curves.items(), strict=False):
        sizes = [p.size for p in points]
        power = -1 if axis in WORKERS else 1  # more of them take less time for the same work
        axes.loglog(sizes, [p.seconds for p in points], marker="o", color="#4878a8")
        axes.loglog(sizes, [points[0].seconds * (s / sizes[0]) ** power for s in sizes], linestyle=":", color="#999999")
        axes.set_xticks(sizes, [f"{s:,}" for s in sizes], fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(axis, fontsize=8)
        axes.set_ylabel("seconds (dotted: linear)", fontsize=8, color="#4878a8")
        memory = axes.twinx()
        memory.plot(sizes, [p.MB for p in points], marker="s", markersize=3, color="#b5651d", linewidth=0.8)
        memory.set_ylim(0, 1.15 * max(p.MB for p in points))
        memory.set_ylabel("MB", fontsize=8, color="#b5651d")
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
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(asdict(child(arguments))))
        return
    cores = range(1, torch.get_num_threads() + 1)
    curves = {
        "posts, one expert": ("posts", curve("posts", [n for n in POSTS if n <= arguments.most], arguments)),
        "evidence, 32 posts": ("sub-tokens of an input", curve("evidence", BUDGETS, arguments)),
        "experts, 32 posts": ("experts", curve("experts", EXPERTS, arguments)),
    }
    if arguments.articles:
        curves["retrieval, 100 posts"] = ("sentences of the corpus", by_corpus(arguments))
    (_, posts), (_, evidence), (_, experts), *corpus = curves.values()
    rows = [
        *rows_of("growth with posts", f"one expert, {threads()}", posts),
        *rows_of("growth with evidence", f"32 posts, by sub-tokens of an input, {threads()}", evidence),
        *rows_of("growth with experts", f"32 posts with evidence, {threads()}", experts),
    ]
    if corpus:
        rows += rows_of("growth of retrieval with the corpus", "100 posts, by sentences", corpus[0][1])
    workers = (curve("threads", cores, arguments), by_processes(cores, arguments))
    for name, points in zip(WORKERS, workers, strict=True):
        curves[f"{name}, {WORKER_POSTS} posts"] = (name, points)
        rates = [WORKER_POSTS / p.seconds for p in points]
        shown = ", ".join(f"{p.size}: {rate:.3g} ({p.MB:.0f} MB)" for p, rate in zip(points, rates, strict=True))
        work = f"{WORKER_POSTS} posts, one expert, posts/s by {name}: {shown}"
        rows.append(Row(f"growth with {name}", work, max(rates), "posts/s"))
    draw(curves)
    save("growth", rows)


if __name__ == "__main__":
    main()
