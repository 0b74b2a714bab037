"""An extraction in the terminal: coloured mentions, relations, evidence, gate bars, warnings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from moreie.schema import Attribution, Evidence, Extraction, GateWeights, Influence

COLOURS = {"PER": "bright_magenta", "LOC": "bright_green", "ORG": "bright_cyan", "MISC": "bright_yellow"}
OTHER_COLOUR = "bright_blue"
BAR_WIDTH = 24


def render(extraction: Extraction, passages: int = 3) -> RenderableType:
    """The whole extraction; `passages`: how many passages of each retriever are shown."""
    parts: list[RenderableType] = [highlighted(extraction)]
    if extraction.relations:
        parts.append(Text())
        parts += [_relation(extraction, i) for i in range(len(extraction.relations))]
    parts += [Text(), gate_bars(extraction.gate)]
    if extraction.evidence:
        parts += [Text(), _evidence(extraction.evidence, passages)]
    parts += [Text.from_markup(f"[yellow]![/] [dim]{escape(warning)}[/]") for warning in extraction.warnings]
    picture = f" 🖼  {escape(extraction.image.name)}" if extraction.image else ""
    return Panel(Group(*parts), title=f"[bold]{escape(extraction.id)}[/]{picture}", title_align="left")


def highlighted(extraction: Extraction) -> Text:
    """The post's text with each mention in its type's colour, type and confidence behind it."""
    text = Text()
    position = 0
    for mention in sorted(extraction.mentions, key=lambda m: m.start):
        text.append(extraction.text[position : mention.start])
        colour = COLOURS.get(mention.type or "", OTHER_COLOUR)
        text.append(extraction.text[mention.start : mention.end], style=f"bold {colour}")
        text.append(f" {mention.type} {mention.confidence:.2f}", style=f"dim {colour}")
        if mention.linked:
            text.append(f" = {mention.linked}", style="italic dim")
        position = mention.end
    text.append(extraction.text[position:])
    return text


def _relation(extraction: Extraction, index: int) -> Text:
    relation = extraction.relations[index]
    head, tail = extraction.mentions[relation.head], extraction.mentions[relation.tail]
    text = Text("  ")
    for mention, end in ((head, f" ──{relation.type}──▶ "), (tail, f"  {relation.confidence:.2f}")):
        style = f"bold {COLOURS.get(mention.type or '', OTHER_COLOUR)}"
        text.append(extraction.text[mention.start : mention.end], style=style)
        text.append(end, style="dim")
    return text


def render_influences(attribution: Attribution, strongest: int = 3) -> RenderableType:
    """For each answer the passages that speak most for it or against it, and by how much."""
    extraction = attribution.extraction
    table = Table(box=None, padding=(0, 1), show_header=False)
    for m, (surface, _) in enumerate(extraction.entities):
        _influence_rows(table, extraction, surface, attribution.of_mention(m)[:strongest])
    for r in range(len(extraction.relations)):
        answer = _relation(extraction, r).plain.strip()
        _influence_rows(table, extraction, answer, attribution.of_relation(r)[:strongest])
    return Padding(table, (0, 0, 1, 2))


def _influence_rows(table: Table, extraction: Extraction, answer: str, influences: Sequence[Influence]) -> None:
    for n, influence in enumerate(influences):
        e = extraction.evidence[influence.evidence]
        colour = "green" if influence.change > 0 else "red" if influence.change < 0 else "dim"
        table.add_row(
            Text(answer if n == 0 else "", style="bold"),
            Text(f"{influence.change:+.3f}", style=colour),
            f"{e.retriever} {e.rank}",
            Text(e.passage.title),
        )


def gate_bars(gate: GateWeights) -> RenderableType:
    """A line for each expert of each task: its name, a bar, its weight."""
    lines = Table.grid(padding=(0, 1))
    for task, weights in (("entities", gate.entities), ("relations", gate.relations)):
        for i, (name, weight) in enumerate(weights.items()):
            filled = round(weight * BAR_WIDTH)
            bar = Text("█" * filled, style="bright_blue").append("░" * (BAR_WIDTH - filled), style="dim")
            lines.add_row(Text(f"gate ({task})" if i == 0 else "", style="bold"), name, bar, f"{weight:.2f}")
    return lines


def _evidence(evidence: Iterable[Evidence], passages: int) -> RenderableType:
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(justify="left", style="bold")
    table.add_column(justify="right", style="dim")
    table.add_column()
    for e in evidence:
        if e.rank > passages:
            continue
        shown = e.passage.sentence or e.passage.text
        shown = shown if len(shown) <= 160 else shown[:159] + "…"
        picture = f" [dim](picture {escape(e.passage.image)})[/]" if e.passage.image else ""
        table.add_row(
            f"{e.retriever} {e.rank}",
            f"{e.score:.2f}",
            f"[bold]{escape(e.passage.title)}[/]{picture} {escape(shown)}",
        )
    return Padding(table, (0, 0, 0, 0))
