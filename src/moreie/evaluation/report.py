"""The results page: scores of all recipes from `summary.json` at a glance, and a page for each recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path

from moreie.errors import MoreieError
from moreie.evaluation.plots import MixtureGain, plot_gains, plot_k
from moreie.evaluation.predictions import BASELINE, MIXTURE
from moreie.evaluation.published import Published, read_published
from moreie.evaluation.recipe_page import GENERATED, MAIN, write_recipe_page
from moreie.evaluation.recompute import load_evaluations
from moreie.evaluation.summary import Result, read_summary
from moreie.rendering.progress import Each, untracked

# Name and F1.
BestExpert = tuple[str, float]
OWN_K = re.compile(r"-k\d+$")


def write_report(results: Path, page: Path, each: Each[list[Result]] = untracked) -> list[Path]:
    """Write `page` (Markdown), and in a folder of its name a page for each recipe and all plots; returns all files.

    Raises:
        MoreieError: no results there, or predictions are missing or damaged.
    """
    rows = read_summary(results)
    if not rows:
        raise MoreieError(f"{results}: no results; run `moreie evaluate … --results {results}` first")
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row.recipe, row.split))]
    recipes = [list(chain.from_iterable(own)) for _, own in groupby(groups, key=lambda group: group[0].recipe)]
    written, best = [page], dict[tuple[str, str], BestExpert | None]()
    for own in each(recipes, "pages of recipes"):
        splits = [list(group) for _, group in groupby(own, key=lambda row: row.split)]
        evaluations = [load_evaluations(results, split[0]) for split in splits]
        pairs = list(zip(splits, evaluations, strict=True))
        written += write_recipe_page(results, folder / f"{own[0].recipe}.md", page, pairs)
        best |= {(own[0].recipe, split[0].split): _best_expert(split, said[0].names) for split, said in pairs}
    gains, published = folder / "gains.svg", read_published(results)
    plot_gains(_gains([group for group in groups if best[group[0].recipe, group[0].split]], published), gains)
    written.append(gains)
    parts = [
        f"{GENERATED}\n\n# Results\n",
        "What the mixture of experts adds to the same encoder without evidence, in points of F1; the bars are 95 % "
        "intervals over posts and seeds, hollow points have too few seeds for one; squares are published gains.\n",
        f"![Gain of the mixture over the baseline, by recipe]({folder.name}/{gains.name})\n",
        _scores(groups, best, published, folder.name),
    ]
    for plot, lines in _lines_over_k(folder, groups):
        plot_k(lines, plot)
        written.append(plot)
        parts.append(_over_k(plot, lines, folder.name))
    page.write_text("\n".join(parts), encoding="utf-8")
    return written


def _best_expert(rows: Sequence[Result], members: Sequence[str]) -> BestExpert | None:
    """The best expert in the mixture that is not the baseline."""
    scores = {row.variant: row.mean for row in rows if row.variant in members and row.variant != BASELINE}
    name = max(scores, key=lambda variant: scores[variant], default=None)
    return None if name is None else (name, scores[name])


def _gains(groups: Sequence[Sequence[Result]], published: Published | None) -> list[MixtureGain]:
    """Of each data set the published one, then ours."""
    gains = []
    for dataset in _datasets(groups, published):
        scores = published.f1.get(dataset, {}) if published else {}
        if published and {BASELINE, MIXTURE} <= scores.keys():
            name = f"published, {published.encoder}, {dataset} {published.split}"
            gains.append(MixtureGain(name, scores[MIXTURE] - scores[BASELINE], published=True))
        for rows in groups:
            own = {row.variant: row for row in rows if row.dataset == dataset}
            if {BASELINE, MIXTURE} <= own.keys():
                mixture = own[MIXTURE]
                name = f"{mixture.recipe}, {mixture.split}"
                gains.append(MixtureGain(name, mixture.mean - own[BASELINE].mean, mixture.gain_interval))
    return gains


def _datasets(groups: Sequence[Sequence[Result]], published: Published | None) -> list[str]:
    known = published.f1 if published else {}
    return list(dict.fromkeys([*known, *(group[0].dataset for group in groups)]))


def _scores(
    groups: Sequence[Sequence[Result]],
    best: Mapping[tuple[str, str], BestExpert | None],
    published: Published | None,
    folder: str,
) -> str:
    """A row for each recipe and split, those published among them."""
    headings = ("recipe", "encoder", "split", "seeds", "baseline", "best expert", "mixture", "gain", "p")
    lines = [
        "\n## Scores\n",
        "Micro-F1, mean and standard deviation over seeds; gain: mixture − baseline; p: paired approximate "
        "randomisation of the two over posts or pairs, seeds together. Tables per type, plots, errors and costs are on "
        "the page of each recipe.\n",
    ]
    if published:
        lines.append(
            f"*Published*: {published.source}. Ours have the encoder and the split that the row says: compare what "
            "evidence and gate add, not the height.\n"
        )
    known = published.f1 if published else {}
    for dataset in _datasets(groups, published):
        lines += [f"\n### {dataset}\n", "| " + " | ".join(headings) + " |", "|---|---|---|" + "---:|" * 6]
        if published and dataset in known:
            lines.append(_published_row(known[dataset], published))
        lines += [_own_row(g, best[g[0].recipe, g[0].split], folder) for g in groups if g[0].dataset == dataset]
    return "\n".join(lines) + "\n"


def _published_row(scores: Mapping[str, float], published: Published) -> str:
    experts = {name: scores[name] for name in MAIN[1:-1] if name in scores}
    name = max(experts, key=lambda variant: experts[variant], default=None)
    best = f"{name} {experts[name]:.2f}" if name else ""
    own = [f"{scores[variant]:.2f}" if variant in scores else "" for variant in (BASELINE, MIXTURE)]
    gain = f"{scores[MIXTURE] - scores[BASELINE]:+.2f}" if {BASELINE, MIXTURE} <= scores.keys() else ""
    cells = ["published", published.encoder, published.split, "", own[0], best, own[1], gain, ""]
    return "| " + " | ".join(cells) + " |"


def _own_row(rows: Sequence[Result], best: BestExpert | None, folder: str) -> str:
    first, by_variant = rows[0], {row.variant: row for row in rows}
    baseline, mixture = by_variant.get(BASELINE), by_variant.get(MIXTURE)
    gain = f"{mixture.mean - baseline.mean:+.2f}" if baseline and mixture else ""
    p = "" if mixture is None or mixture.p_value_vs_baseline is None else f"{mixture.p_value_vs_baseline:.4f}"
    cells = [
        f"[{first.recipe}]({folder}/{first.recipe}.md)",
        first.encoder,
        first.split,
        str(len(first.seeds)),
        _mean(baseline),
        f"{best[0]} {best[1]:.2f}" if best else "",
        _mean(mixture),
        gain,
        p,
    ]
    return "| " + " | ".join(cells) + " |"


def _mean(row: Result | None) -> str:
    return "" if row is None else row.mean_and_std


def _over_k(plot: Path, lines: Mapping[str, Sequence[Result]], folder: str) -> str:
    ks = sorted({row.k or 0 for rows in lines.values() for row in rows})
    table = ["| passages | " + " | ".join(map(str, ks)) + " |", "|---|" + "---:|" * len(ks)]
    for variant, rows in lines.items():
        by_k = {row.k or 0: row for row in rows}
        table.append(f"| {variant} | " + " | ".join(_mean(by_k.get(k)) for k in ks) + " |")
    name = plot.stem.removesuffix("-k")
    return "\n".join([f"\n## F1 against k: {name}\n", f"![F1 against k]({folder}/{plot.name})\n", *table, ""])


def _lines_over_k(
    folder: Path, groups: Sequence[Sequence[Result]]
) -> Iterable[tuple[Path, Mapping[str, Sequence[Result]]]]:
    """Plot and lines for each split and recipe that was run with several k (`moreie reproduce -k`)."""

    def place(rows: Sequence[Result]) -> tuple[str, str]:
        return OWN_K.sub("", rows[0].recipe), rows[0].split

    for names, runs in groupby(sorted(groups, key=place), key=place):
        rows = list(chain.from_iterable(runs))
        lines: dict[str, list[Result]] = {}
        for variant in MAIN[1:]:
            by_k = {row.k: row for row in rows if row.variant == variant and row.k}
            if len(by_k) > 1:
                without = [row.model_copy(update={"k": 0}) for row in rows if row.variant == BASELINE][:1]
                lines[variant] = [*without, *(by_k[k] for k in sorted(by_k, key=lambda k: k or 0))]
        if lines:
            yield folder / ("-".join([*names, "k"]) + ".svg"), lines
