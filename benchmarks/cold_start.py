"""From nothing to the first answer: a fresh process opens a corpus and answers one query; another one runs
`moreie extract`, from the command to the printed answer, beside processes that do no more than import a peer. All have
their bytecode, as everything that pip installs: a checkout's is made first.

Peers need an environment of their own (flair needs transformers 4):

    python -m venv peers
    peers/bin/pip install flair==0.15.1 "transformers<5" "spacy<4" "spacy-curated-transformers<1"
    python benchmarks/cold_start.py --corpus wiki --peer-python peers/bin/python
"""

from __future__ import annotations

import argparse
import compileall
import json
import statistics
import subprocess
import sys
import time

from rows import Row, beside, save

import moreie
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


IMPORTS = {
    "import flair": "import flair",
    "import of a spaCy transformer pipeline": "import spacy, spacy_curated_transformers",
}
SHARE = 2.0  # half of the faster one's time


def process(command: list[str]) -> float:
    """Seconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def command_rows(peer_python: str | None) -> list[Row]:
    """`moreie extract` and the peers in turns."""
    extract = [sys.executable, "-m", "moreie", "extract", "--json", "--text", "Kawhi Leonard wins the fan vote"]
    runs = {"ours": extract}
    if peer_python:
        runs |= {name: [peer_python, "-W", "ignore", "-c", code] for name, code in IMPORTS.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(10):
        for name, command in runs.items():
            seconds = process(command)
            if repeat:  # the first fills the page cache
                taken[name].append(seconds)
    work = "a fresh process, the shipped model and demo corpus, one post of text"
    if len(taken) == 1:
        return [Row("moreie extract: whole command", work, statistics.median(taken["ours"]), "s")]
    medians = {name: statistics.median(t) for name, t in taken.items() if name != "ours"}
    name = "moreie extract: whole command"
    # The aim is of the faster peer.
    aims = {n: SHARE if value == min(medians.values()) else None for n, value in medians.items()}
    rows = [beside(name, work, 1, taken["ours"], taken[peer], peer, aims[peer], "runs/s") for peer in medians]
    return [*rows, Row(name, work, statistics.median(taken["ours"]), "s")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--peer-python", default=None, help="interpreter of an environment with the peers")
    arguments = parser.parse_args()
    compileall.compile_dir(moreie.__path__[0], quiet=1)
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
            *command_rows(arguments.peer_python),
        ],
    )


if __name__ == "__main__":
    main()
