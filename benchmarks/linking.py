"""Does a mention get the article it refers to? Measured on links of Wikipedia pages; and how much of tweets is linked.

python benchmarks/linking.py --corpus wiki --posts twitter2017/valid.txt [--write-weights]

The corpus holds pages with links (built with --dump). A link is a mention in its sentence; its target is the answer. A
third of the pages tests, two thirds fit the weights and, a part of them, the threshold. Whatever a page says is hidden
from what its own links are judged by: its links are taken from the counts, it and near-copies of the sentence from the
evidence. Only links that begin with a capital or digit are taken, 40 of a page at most. Each link to an article of the
corpus is judged twice, as it is and as if the corpus lacked that article: then none (NIL) is right.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from linked_pages import Held, K, LinkedMention, both_ways, chosen, read_links, share, with_evidence
from rows import Row, save

from moreie.datasets import read_posts
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.linking.anchors import anchors_folder
from moreie.linking.candidates import MentionsInText
from moreie.linking.counting import anchors_of
from moreie.linking.features import article_features, nil_features
from moreie.linking.fitting import Example, best_threshold, fit_weights
from moreie.linking.linker import Linker
from moreie.linking.model import SHIPPED_WEIGHTS
from moreie.retrieval.text import TextRetriever

TWEETS = 100


def example(link: LinkedMention) -> Example:
    titles = [candidate.passage.title for candidate in link.found.articles]
    right = titles.index(link.title) if link.here and link.title in titles else len(titles)
    return Example(article_features(link.text, link.found, link.anchors), nil_features(link.found), right)


Answer = Callable[[LinkedMention], str | None]


def exact_title(mention: LinkedMention) -> str | None:
    return next((c.passage.title for c in mention.found.articles if c.passage.title == mention.found.surface), None)


def commonest(mention: LinkedMention) -> str | None:
    """What most links of that text lead to; where there are none, the article of exactly that title."""
    counts = mention.found.anchors
    if not counts.total:
        return exact_title(mention)
    best = max(mention.found.articles, key=lambda c: c.anchored, default=None)
    return best.passage.title if best and best.anchored >= max(counts.outside, 1) else None


def scores(answers: Sequence[tuple[LinkedMention, str | None]]) -> dict[str, float]:
    """Shares of right answers, of all links, of those whose target the corpus has, of those of them with two candidates
    or more; precision and recall of NIL, and F1."""
    right = [said == (m.title if m.here else None) for m, said in answers]
    here = [r for (m, _), r in zip(answers, right, strict=True) if m.here]
    several = [r for (m, _), r in zip(answers, right, strict=True) if m.here and len(m.found.articles) > 1]
    nil_said = [not m.here for m, said in answers if said is None]
    nil = [said is None for m, said in answers if not m.here]
    precision, recall = float(np.mean(nil_said or [0])), float(np.mean(nil or [0]))
    return {
        "all": float(np.mean(right)),
        "target in corpus": float(np.mean(here or [0])),
        "target in corpus, several candidates": float(np.mean(several or [0])),
        "NIL precision": precision,
        "NIL recall": recall,
        "NIL F1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    }


def calibration_error(sure: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    places = np.minimum((np.array(sure) * bins).astype(int), bins - 1)
    error = 0.0
    for place in range(bins):
        inside = places == place
        if inside.any():
            error += inside.mean() * abs(np.array(sure)[inside].mean() - np.array(right)[inside].mean())
    return float(error)


Answers = Sequence[tuple[LinkedMention, str | None]]


def difference(ours: Answers, theirs: Answers) -> tuple[float, float, float]:
    """The share of right answers of ours less theirs, and the interval that it lies in by resampling pages."""
    pages: dict[str, list[int]] = defaultdict(list)
    for (link, mine), (_, other) in zip(ours, theirs, strict=True):
        wanted = link.title if link.here else None
        pages[link.page].append(int(mine == wanted) - int(other == wanted))
    sums, sizes = np.array([sum(p) for p in pages.values()]), np.array([len(p) for p in pages.values()])
    drawn = np.random.default_rng(0).integers(0, len(sums), (2_000, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / sizes[drawn].sum(1), [0.025, 0.975])
    return float(sums.sum() / sizes.sum()), float(low), float(high)


def judged(label: str, links: Sequence[LinkedMention], linker: Linker) -> list[Row]:
    """Rows of ours and of the baselines over links, each with its target in the corpus and without."""
    ours, sure = [], []
    for link in both_ways(links):
        said = Linker(linker.corpus, link.anchors, linker.weights).answer(link.text, link.found)
        ours.append((link, said.title))
        if link.found.articles:
            sure.append((said.score, said.title == (link.title if link.here else None)))
    here = [link for link in links if link.here]
    several = sum(len(link.found.articles) > 1 for link in here)
    pages = len({link.page for link in here})
    work = f"{len(here):,} links of {pages} pages, {several:,} with several candidates; each also without its target"
    systems = {
        "ours": ours,
        "most common target, else exact title": [(link, commonest(link)) for link, _ in ours],
        "exact title": [(link, exact_title(link)) for link, _ in ours],
    }
    measured = {system: scores(answers) for system, answers in systems.items()}
    rows = [
        Row(f"{label}: {what}: {system}", work, values[what], "share")
        for what in measured["ours"]
        for system, values in measured.items()
    ]
    better, low, high = difference(ours, systems["most common target, else exact title"])
    interval = f"95 % between {low:+.4f} and {high:+.4f}, by resampling pages"
    reached = float(np.mean([link.title in {c.passage.title for c in link.found.articles} for link in here]))
    error = calibration_error(*zip(*sure, strict=True))
    return [
        *rows,
        Row(f"{label}: all: ours less most common target", f"{work}; {interval}", better, "share"),
        Row(f"{label}: target among the candidates", work, reached, "share"),
        Row(f"{label}: calibration error, links with candidates: ours", work, error, "10 bins"),
    ]


def outside_row(links: Sequence[LinkedMention], linker: Linker) -> Row:
    lost = [link for link in links if not link.here]
    answers = [Linker(linker.corpus, x.anchors, linker.weights).answer(x.text, x.found) for x in lost]
    work = f"{len(lost):,} links to titles that the corpus lacks; unknown redirects among them are no NIL"
    return Row("links counted: NIL said: ours", work, float(np.mean([a.title is None for a in answers])), "share")


def counting_rows(corpus: str) -> list[Row]:
    """Time, memory and size of the anchors, counted in a process of their own."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "moreie", "corpus", "anchors", corpus], check=True)
    taken = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    opened = KnowledgeCorpus.open(corpus)
    anchors = anchors_of(opened)
    size = sum(f.stat().st_size for f in anchors_folder(corpus).iterdir()) / 1e6
    work = f"{opened.manifest.passages:,} passages, {anchors.links:,} links, {anchors.names:,} anchor texts"
    return [
        Row("corpus anchors: time", f"{work}; other work on the machine", taken, "s"),
        Row("corpus anchors: processor time", work, used.ru_utime + used.ru_stime, "s"),
        Row("corpus anchors: peak memory of the process", work, used.ru_maxrss / 1e3, "MB"),
        Row("corpus anchors: size on disk", work, size, "MB"),
    ]


def tweet_rows(path: Path, linker: Linker) -> list[Row]:
    """How many gold mentions of fixed posts are linked, whether rightly or not."""
    posts = read_posts(path)
    posts = posts[:: len(posts) // TWEETS][:TWEETS]
    evidence = [r.evidence for r in TextRetriever(linker.corpus, K).retrieve(posts)]
    texts = [MentionsInText(p.text, p.mentions or (), e) for p, e in zip(posts, evidence, strict=True)]
    linker.answers(texts)
    start = time.perf_counter()
    answers = linker.answers(texts)
    taken = time.perf_counter() - start
    kinds: dict[str, list[bool]] = defaultdict(list)
    for text, row in zip(texts, answers, strict=True):
        for mention, answer in zip(text.mentions, row, strict=True):
            kinds["all"].append(answer.title is not None)
            kinds[mention.type or ""].append(answer.title is not None)
            print(f"{mention.type} {text.text[mention.start : mention.end]!r} -> {answer.title} {answer.score:.2f}")
    work = f"{path.parent.name}/{path.stem}, {len(posts)} posts"
    rows = [
        Row(
            f"tweets: gold mentions linked ({kind}), rightly or not",
            f"{work}, {len(v)} mentions",
            float(np.mean(v)),
            "share",
        )
        for kind, v in sorted(kinds.items())
    ]
    return [
        *rows,
        Row("linking: speed, evidence at hand", f"{work}, one batch", len(kinds["all"]) / taken, "mentions/s"),
    ]


def write_weights(held: Held, fitted: Sequence[str], validation: Sequence[str]) -> None:
    """Fit the shipped weights. Half of what they are fitted to knows no links, as in a corpus without them."""
    examples, known = (
        [example(link) for counted in (True, False) for link in both_ways(held.links(pages, counted=counted))]
        for pages in (fitted, validation)
    )
    weights = fit_weights(examples)
    each = "each with its target in the corpus and without, with links counted and without"
    made: dict[str, str | int | float] = {
        "command": "python benchmarks/linking.py --write-weights",
        "corpus": f"{held.corpus.manifest.articles:,} Wikipedia articles, {held.anchors.links:,} links of "
        f"{len(held.own)} pages",
        "fitted to": f"{len(examples) // 4:,} links of {len(fitted)} pages, {each}",
        "threshold from": f"{len(known) // 4:,} links of {len(validation)} pages, {each}",
    }
    weights = weights.model_copy(update={"threshold": best_threshold(weights, known), "made": made})
    SHIPPED_WEIGHTS.write_text(weights.model_dump_json(indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="a corpus folder with links")
    parser.add_argument("--posts", type=Path, required=True, help="annotated posts")
    parser.add_argument("--write-weights", action="store_true", help="fit the weights that moreie ships")
    arguments = parser.parse_args()
    rows = counting_rows(arguments.corpus)
    corpus = KnowledgeCorpus.open(arguments.corpus)
    anchors = anchors_of(corpus)
    sentences, own, titles = read_links(corpus)
    pages = chosen(sentences)
    print(f"{len(sentences):,} sentences with links, {len(pages)} pages", flush=True)
    test = sorted(page for page in pages if share(page) < 1 / 3)
    fitted = sorted(page for page in pages if 1 / 3 <= share(page) < 0.8)
    validation = sorted(page for page in pages if share(page) >= 0.8)
    flat = [s for page in pages.values() for s in page]
    texts = dict(zip(map(id, flat), with_evidence(corpus, flat), strict=True))
    print("evidence retrieved", flush=True)
    held = Held(corpus, anchors, {p: [(s, texts[id(s)]) for s in own] for p, own in pages.items()}, own, titles)
    if arguments.write_weights:
        write_weights(held, fitted, validation)
    linker = Linker.for_corpus(corpus)
    links = held.links(test)
    rows += judged("links counted", links, linker)
    rows += judged("links counted, no evidence", held.links(test, evidence=False), linker)
    rows += judged("no links counted", held.links(test, counted=False), linker)
    rows.append(outside_row(links, linker))
    rows += tweet_rows(arguments.posts, linker)
    save("linking", rows)


if __name__ == "__main__":
    main()
