"""What a benchmark leaves behind: one JSON file with rows of one form."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores, {model}"


def _command() -> str:
    script = Path(sys.argv[0])
    arguments = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{script.name}", *arguments])


@dataclass
class Row:
    """One measurement. `ours` and `theirs` are in `unit`; `ratio` says how many times better ours is.

    Rows without a peer leave `peer`, `theirs` and `ratio` empty; rows without a target leave `target` and `met`.
    """

    name: str
    work: str
    ours: float
    unit: str
    peer: str | None = None
    theirs: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    target: float | None = None
    met: bool | None = None
    machine: str = field(default_factory=_machine)
    date: str = field(default_factory=lambda: date.today().isoformat())
    command: str = field(default_factory=_command)


def save(name: str, rows: list[Row]) -> Path:
    """Write `results/<name>.json` and say what was measured."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for row in rows:
        peer = f" | {row.peer}: {row.theirs:.4g} | ratio {row.ratio:.2f}" if row.theirs and row.ratio else ""
        print(f"{row.name}: {row.ours:.4g} {row.unit}{peer}")
    return path


def load(name: str) -> list[Row]:
    """The rows of `results/<name>.json`; none where it is not there yet."""
    path = RESULTS / f"{name}.json"
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []


def seconds(work: Callable[[], object], repeats: int = 5) -> list[float]:
    """Seconds of each of `repeats` runs, after one that is not counted."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken


def compare(
    name: str,
    work: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    peer: str,
    *,
    amount: float = 1.0,
    unit: str = "items/s",
    target: float | None = None,
    repeats: int = 5,
) -> Row:
    """Medians of both, measured in turns so that both see the same machine; `amount` items of work in each run."""
    ours()
    theirs()
    mine, other = [], []
    for _ in range(repeats):
        for measured, taken in ((ours, mine), (theirs, other)):
            start = time.perf_counter()
            measured()
            taken.append(time.perf_counter() - start)
    ratios = sorted(b / a for a, b in zip(mine, other, strict=True))
    ratio = statistics.median(other) / statistics.median(mine)
    return Row(
        name=name,
        work=work,
        ours=amount / statistics.median(mine),
        theirs=amount / statistics.median(other),
        unit=unit,
        peer=peer,
        ratio=ratio,
        spread=(ratios[0], ratios[-1]),
        target=target,
        met=None if target is None else ratio >= target,
    )


def beside(
    name: str,
    work: str,
    amount: float,
    ours: Sequence[float],
    theirs: Sequence[float],
    peer: str,
    target: float | None,
    unit: str = "posts/s",
) -> Row:
    """A row of seconds taken in turns by both for `amount` of work; one figure of theirs stands beside each of ours."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    ratios = sorted(b / a for a, b in zip(ours, theirs if len(theirs) > 1 else [other] * len(ours), strict=True))
    return Row(
        name=name,
        work=work,
        ours=amount / mine,
        theirs=amount / other,
        unit=unit,
        peer=peer,
        ratio=other / mine,
        spread=(ratios[0], ratios[-1]),
        target=target,
        met=None if target is None else other / mine >= target,
    )
