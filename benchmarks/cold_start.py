"""From nothing to the first answer: a fresh process opens a corpus and answers one query.

python benchmarks/cold_start.py --corpus wiki
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

from rows import Row, save

from moreie.knowledge.corpus import KnowledgeCorpus

FIRST = """
import json, sys, time
begin = time.perf_counter()
from moreie.knowledge.corpus import KnowledgeCorpus
import moreie.knowledge.stores.embedded
imported = time.perf_counter()
found = KnowledgeCorpus.open(sys.argv[1]).search_sentences(["Kawhi Leonard wins the fan vote of the Spurs"], 10)
answered = time.perf_counter()
print(json.dumps([imported - begin, answered - imported, len(found[0])]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    arguments = parser.parse_args()
    manifest = KnowledgeCorpus.open(arguments.corpus).manifest
    taken = []
    for _ in range(7):
        command = [sys.executable, "-c", FIRST, arguments.corpus]
        taken.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    work = f"{manifest.articles:,} articles, {manifest.sentences:,} sentences, files in the page cache"
    opening = statistics.median(answered for _, answered, _ in taken)
    save(
        "cold_start",
        [
            Row("corpus opened, first query answered", work, opening, "s", target=1.0, met=opening < 1.0),
            Row("importing the library before it", work, statistics.median(imported for imported, _, _ in taken), "s"),
        ],
    )


if __name__ == "__main__":
    main()
