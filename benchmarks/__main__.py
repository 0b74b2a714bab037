"""All benchmarks, one after the other, and then docs/performance.md. What lacks its data is named and left out.

python -m benchmarks --data experiments/data --peer-python peers/bin/python
python -m benchmarks ner_speed int8
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
# Arguments of each script; words with a slash are files of --data, PEERS is the peers' interpreter.
RUNS = (
    "ner_speed --posts twitter2017/valid.txt --flair-python PEERS",
    "ner_speed --posts twitter2017/valid.txt --flair-python PEERS --as avx2",
    "last_layer --posts twitter2017/valid.txt",
    "int8 --posts twitter2017/valid.txt",
    "int8 --posts twitter2017/valid.txt --as avx2",
    "int8 --posts twitter2017/valid.txt --as avx-vnni",
    "int8 --posts twitter2017/valid.txt --as avx512-vnni",
    "full_extraction --posts twitter2017/valid.txt",
    "full_extraction --posts twitter2017/valid.txt --as avx2",
    "certainty --posts twitter2017/valid.txt --pairs mnre/val.txt",
    "training --posts twitter2017/train.txt",
    "training --posts twitter2017/train.txt --as avx2",
    "cold_start --corpus wiki/ --peer-python PEERS",
    "growth --posts twitter2017/valid.txt --articles ./wikipedia-408k.jsonl.zst",
    "extraction --posts twitter2017/test.txt",
    "extraction --posts twitter2017/test.txt --corpus wiki/ --repeats 3",
    "crf",
    "crf --as avx2",
    "gpu --posts twitter2017/ --evidence evidence/",
    "image_index",
    "sentence_splitters",
    "query_analysis --posts twitter2017/valid.txt --corpus wiki/",
    "text_index --corpus wiki/ --posts twitter2017/valid.txt",
    "retrieval --articles ./wikipedia-408k.jsonl.zst --posts twitter2017/valid.txt",
    "engines --articles ./wikipedia-408k.jsonl.zst --posts twitter2017/valid.txt",
)


def command(run: str, data: Path, peers: str | None) -> list[str] | str:
    """The command of a run, or what it lacks."""
    script, *words = run.split()
    made = [sys.executable, str(HERE / f"{script}.py")]
    for word in words:
        if word == "PEERS":
            if peers is None:
                made.pop()  # its option
                continue
            made.append(peers)
        elif "/" in word:
            if not (path := (data / word).absolute()).exists():
                return f"no {path}"
            made.append(str(path))
        else:
            made.append(word)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scripts", nargs="*", help="only these [default: all]")
    parser.add_argument("--data", type=Path, default=Path("experiments/data"), help="see experiments/data/README.md")
    parser.add_argument("--peer-python", default=None, help="interpreter of an environment with flair (ner_speed.py)")
    arguments = parser.parse_args()
    known = {run.split()[0] for run in RUNS}
    if unknown := set(arguments.scripts) - known:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    failed = []
    for run in RUNS:
        if arguments.scripts and run.split()[0] not in arguments.scripts:
            continue
        made = command(run, arguments.data, arguments.peer_python)
        if isinstance(made, str):
            print(f"left out: {run.split()[0]}: {made}", flush=True)
            continue
        print(f"== {run}", flush=True)
        start = time.perf_counter()
        if subprocess.run(made, env=os.environ | {"PYTHONWARNINGS": "ignore"}).returncode:
            failed.append(run)
        print(f"   {time.perf_counter() - start:.0f} s", flush=True)
    subprocess.run([sys.executable, str(HERE / "report.py")], check=True)
    if failed:
        raise SystemExit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
