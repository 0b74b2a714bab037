"""The analysis as Markdown for the results page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moreie.evaluation.analysis.errors import NOTHING, Category
from moreie.evaluation.analysis.figures import Analysis, Breakdown, Costs, Decided, Flip

ORDER = (*(category.value for category in Category), NOTHING)


def analysis_section(analysis: Analysis) -> str:
    """All tables of an analysis."""
    parts = [f"\n### What lies behind it: `{analysis.recipe}`, {analysis.split} split\n", _errors(analysis)]
    if analysis.flips:
        parts.append(_flips(analysis.flips))
    if analysis.decided:
        parts.append(_decided(analysis.decided, analysis.task))
    parts += [_breakdown(b, analysis.task) for b in analysis.breakdowns if len(b.buckets) > 1]
    if analysis.costs:
        parts.append(_costs(analysis.costs, analysis.task))
    return "\n".join(parts)


def _errors(analysis: Analysis) -> str:
    shown = [c.value for c in Category if any(row[c.value] for row in analysis.errors.values())]
    what = "mentions" if analysis.task == "ner" else "relations"
    rows = [[v, *(f"{counts[c]:g}" for c in shown)] for v, counts in analysis.errors.items()]
    return f"Gold {what} by what became of them, and spurious ones; means over seeds.\n\n" + _table(
        ["variant", *shown], rows
    )


def _flips(flips: Sequence[Flip]) -> str:
    counts = {(f.before, f.after): f.count for f in flips}
    before, after = ([name for name in ORDER if name in names] for names in zip(*counts, strict=True))
    rows = [[a, *(f"{counts[a, b]:g}" if (a, b) in counts else "" for b in after)] for a in before]
    return "From the baseline (rows) to the mixture (columns).\n\n" + _table(["baseline", *after], rows)


def _decided(rows: Sequence[Decided], task: str) -> str:
    what, cases = ("mentions", "posts") if task == "ner" else ("relations", "pairs")
    heading = ["expert", f"mended {what}", f"in {cases}", f"spoilt {what}", f"in {cases}", "no other expert", "kept"]
    cells = [
        [d.expert, *(f"{x:g}" for x in (d.mended, d.mended_cases, d.spoilt, d.spoilt_cases, d.alone, d.kept))]
        for d in rows
    ]
    return (
        f"What each expert decides against the baseline: {what} it has right and the baseline wrong, and the "
        "reverse; of the mended ones, those no other expert has right, and those the mixture keeps.\n\n"
        + _table(heading, cells)
    )


def _breakdown(breakdown: Breakdown, task: str) -> str:
    variants = list(breakdown.buckets[0].scores)
    rows = [
        [
            bucket.name,
            f"{bucket.support:g}",
            *(f"{s.recall:.1f} / {s.f1:.1f}" if (s := bucket.scores.get(v)) else "" for v in variants),
        ]
        for bucket in breakdown.buckets
    ]
    what = "mentions" if task == "ner" else "relations"
    return f"Recall / F1 by {breakdown.name}.\n\n" + _table([breakdown.name, f"gold {what}", *variants], rows)


def _costs(costs: Costs, task: str) -> str:
    one, many = ("post", "posts") if task == "ner" else ("pair", "pairs")
    rows = [
        [c.variant, f"{c.gflops:.3f}", f"{c.seconds_per_100:.2f}", f"{c.tokens:.1f}", f"{c.peak_mib:.0f}"]
        for c in costs.rows
    ]
    return (
        f"Cost, measured on {costs.cases} {many} ({costs.device}, {costs.threads} threads); the mixture is the sum "
        "of its experts and the gate.\n\n"
        + _table(["variant", f"GFLOPs a {one}", f"s for 100 {many}", f"tokens a {one}", "peak memory (MiB)"], rows)
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "---:|" * (len(headings) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
