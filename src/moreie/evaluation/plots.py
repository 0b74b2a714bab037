"""Plots of the results page as SVG; the same results give the same file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moreie.evaluation.calibration import Reliability
from moreie.evaluation.confusion import Confusion
from moreie.evaluation.predictions import Evaluation
from moreie.evaluation.summary import Result

BLUE, ORANGE, GREY = "#4878a8", "#c8702a", "#999999"


def plot_f1(rows: Sequence[Result], path: Path) -> None:
    """A bar for each variant, the standard deviation over seeds on it."""
    figure, axes = _figure(6, 0.45 * len(rows) + 0.9)
    names = [row.variant for row in rows]
    axes.barh(names, [row.mean for row in rows], xerr=[row.std or 0 for row in rows], color=BLUE, height=0.6)
    low, high = min(row.mean for row in rows), max(row.mean for row in rows)
    axes.set_xlim(max(0.0, low - 3), min(100.0, high + 3))
    for place, row in enumerate(rows):
        axes.text(row.mean + (row.std or 0) + 0.1, place, f"{row.mean:.2f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"F1, {rows[0].dataset} {rows[0].split} (axis does not start at 0)")
    _save(figure, path)


@dataclass(frozen=True)
class MixtureGain:
    """What a mixture gains over the baseline in points of F1; `interval` of 95 %, None where there is none."""

    name: str
    gain: float
    interval: tuple[float, float] | None = None
    published: bool = False


def plot_gains(gains: Sequence[MixtureGain], path: Path) -> None:
    """A line for each mixture: its gain and the interval of that; published ones are squares."""
    figure, axes = _figure(8, 0.28 * len(gains) + 1)
    axes.axvline(0, color=GREY, linewidth=1)
    for place, own in enumerate(gains):
        color = ORANGE if own.published else BLUE
        if own.interval:
            axes.plot(own.interval, [place, place], color=color, linewidth=2)
        filled = color if own.interval or own.published else "white"
        axes.plot(own.gain, place, marker="s" if own.published else "o", color=color, markerfacecolor=filled)
    axes.set_yticks(range(len(gains)), [own.name for own in gains], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("mixture − baseline, F1")
    _save(figure, path)


def plot_k(lines: Mapping[str, Sequence[Result]], path: Path) -> None:
    """F1 of each variant against the number of passages it may read."""
    figure, axes = _figure(6, 3.5)
    for name, rows in lines.items():
        k = [row.k for row in rows]
        axes.errorbar(k, [r.mean for r in rows], yerr=[r.std or 0 for r in rows], label=name, marker="o", capsize=3)
    axes.set_xticks(sorted({row.k or 0 for rows in lines.values() for row in rows}))
    axes.set_xlabel("passages (0: the baseline)")
    axes.set_ylabel("F1 (axis does not start at 0)")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def plot_gate(evaluations: Sequence[Evaluation], path: Path) -> None:
    """How often the gate gives an expert which weight."""
    figure, axes = _figure(6, 3)
    names = evaluations[0].names
    weights = np.concatenate([e.gate.numpy() for e in evaluations])
    edges = np.linspace(0, 1, 26)
    for name, column in zip(names, weights.T, strict=True):
        share = np.histogram(column, edges)[0] / len(column)
        axes.stairs(share, edges, label=f"{name} (mean {column.mean():.2f})", linewidth=1.5)
    axes.set_xlabel("gate weight")
    axes.set_ylabel("share of cases")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def plot_reliability(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Share of right answers against the mixture's confidence, before and after scaling; share of answers below."""
    before = [e.reliability for e in evaluations]
    after = [bins for e in evaluations if (bins := e.scaled_reliability) is not None]
    figure, axes = _figure(4.5, 4)
    size = np.sum([b.size for b in before], axis=0)
    edges = np.linspace(0, 1, len(size) + 1)
    axes.stairs(size / max(1, size.sum()), edges, fill=True, color=GREY, alpha=0.4, label="share of answers")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    if len(after) == len(before):
        axes.plot(*_curve(before), color=BLUE, marker="o", label="right, before scaling")
        axes.plot(*_curve(after), color=ORANGE, marker="s", label="right, at the temperature")
    else:
        axes.plot(*_curve(before), color=BLUE, marker="o", label="right")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence of the mixture")
    axes.set_ylabel("share that is right")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    _save(figure, path)


def _curve(seeds: Sequence[Reliability]) -> tuple[Any, Any]:
    """Mean confidence and share of right answers of each bin that holds any, seeds together."""
    size, confidence, right = (np.sum([getattr(b, k) for b in seeds], axis=0) for k in ("size", "confidence", "right"))
    filled = size > 0
    return confidence[filled] / size[filled], right[filled] / size[filled]


def plot_confusion(confusion: Confusion, path: Path) -> None:
    """Counts of gold (rows) by answer (columns), shaded by their share of the row."""
    rows, columns = confusion.counts.shape
    figure, axes = _figure(1.8 + 0.42 * columns, 1.5 + 0.32 * rows)
    share = confusion.counts / np.maximum(confusion.counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(confusion.counts > 0):
        dark = share[row, column] > 0.5
        number = str(confusion.counts[row, column])
        axes.text(column, row, number, ha="center", va="center", fontsize=6, color="white" if dark else "black")
    axes.set_xticks(range(columns), confusion.predicted, rotation=90, fontsize=7)
    axes.set_yticks(range(rows), confusion.gold, fontsize=7)
    axes.tick_params(length=0)
    axes.set_xlabel("answer")
    axes.set_ylabel("gold")
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    # Letters as text keep the files small; the salt makes ids the same every time.
    matplotlib.rcParams.update({"svg.hashsalt": "moreie", "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(width, height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
