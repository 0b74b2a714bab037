"""A corpus built from a dump with two workers: pages a second, and peak memory as the dump grows.

python benchmarks/dump_memory.py enwiki-pages-articles.xml.bz2 [more dumps …]

The pages are written into one dump 4, 16 and 48 times, each time under other ids and titles.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dump import pages_of, write_dump
from rows import Row, save

BUILD = """
import resource, sys
from pathlib import Path
from joblib.externals.loky import get_reusable_executor
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.workers import LocalWorkers
build_corpus(sys.argv[2], Sources(dumps=(Path(sys.argv[1]),)), workers=LocalWorkers(2))
get_reusable_executor().shutdown(wait=True)
print(*(resource.getrusage(who).ru_maxrss / 1e3 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dumps", type=Path, nargs="+")
    arguments = parser.parse_args()
    pages = pages_of(arguments.dumps)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "dump.xml"
        for times in (4, 16, 48):
            write_dump(dump, pages, times)
            start = time.perf_counter()
            command = [sys.executable, "-c", BUILD, str(dump), f"{folder}/corpus{times}"]
            environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            taken = time.perf_counter() - start
            builder, worker = map(float, done.stdout.split()[-2:])
            work = f"{dump.stat().st_size / 1e6:.0f} MB of XML, two workers"
            rows += [
                Row("corpus from a dump: peak memory of the builder", work, builder, "MB"),
                Row("corpus from a dump: peak memory of a worker", work, worker, "MB"),
                Row("corpus from a dump: whole build", work, times * len(pages) / taken, "pages/s"),
            ]
    save("dump_memory", rows)


if __name__ == "__main__":
    main()
