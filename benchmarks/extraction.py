"""Where the time of `moreie extract` goes, for 100 posts with pictures.

python benchmarks/extraction.py --posts twitter2017/test.txt --corpus wiki
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from fresh import forget
from pictures import with_pictures
from rows import Row, save

from moreie import Extractor
from moreie.datasets import read_posts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--corpus", default=None, help="default: the demo corpus")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    started = time.perf_counter()
    extractor = Extractor.from_pretrained(corpus=arguments.corpus)
    loading = time.perf_counter() - started
    pictures = tempfile.TemporaryDirectory()
    posts = with_pictures(read_posts(arguments.posts)[: arguments.count], Path(pictures.name))
    stages: dict[str, list[float]] = defaultdict(list)
    totals = []
    extractor.extract_batch(posts)
    for _ in range(arguments.repeats):
        lap: dict[str, float] = defaultdict(float)

        def heard(stage: str, seconds: float, lap: dict[str, float] = lap) -> None:
            lap[stage] += seconds

        forget(extractor)
        start = time.perf_counter()
        extractor.extract_batch(posts, on_stage=heard)
        totals.append(time.perf_counter() - start)
        for stage, value in lap.items():
            stages[stage].append(value)
    assert extractor.corpus is not None
    manifest = extractor.corpus.manifest
    work = (
        f"{len(posts)} posts of {arguments.posts.parent.name}, each with a picture of its own; "
        f"{manifest.articles:,} articles, {manifest.images} pictures"
    )
    rows = [
        Row("extract: loading model and corpus", work, loading, "s"),
        Row(
            "extract: whole", work, len(posts) / statistics.median(totals), "posts/s", spread=(min(totals), max(totals))
        ),
    ]
    rows += [
        Row(f"extract: {stage}", work, statistics.median(values), "s", spread=(min(values), max(values)))
        for stage, values in stages.items()
    ]
    name = "extraction" if arguments.corpus is None else "extraction-large"
    save(name, rows)


if __name__ == "__main__":
    main()
