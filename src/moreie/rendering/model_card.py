"""The card of a published model: what it finds, what its experts read, how it is used, what is not known of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from moreie.schema import NO_RELATION

if TYPE_CHECKING:
    from moreie.extractor import Extractor
    from moreie.models.mixture import Mixture


def model_card(
    extractor: Extractor, repo_id: str, *, licence: str | None = None, scores: Mapping[str, float] | None = None
) -> str:
    """Markdown with the hub's metadata before it. `licence`: an identifier as the hub has them (`apache-2.0`).

    `scores`: by name what its publisher measured, such as `{"F1, own test split": 81.3}`.
    """
    # Markdown for people and the hub, not HTML: nothing is escaped but what would end a table's cell.
    environment = Environment(
        loader=PackageLoader("moreie.rendering"), autoescape=False, undefined=StrictUndefined, trim_blocks=True
    )
    mixtures: list[tuple[str, Mixture[Any]]] = [("entities", extractor.ner)]
    if extractor.relations is not None:
        mixtures.append(("relations", extractor.relations))
    return environment.get_template("model_card.md.j2").render(
        name=extractor.name,
        repo_id=repo_id,
        licence=licence,
        entities=extractor.ner.labels,
        relations=[r for r in extractor.relations.labels if r != NO_RELATION] if extractor.relations else [],
        experts=[row for task, mixture in mixtures for row in _experts(task, mixture)],
        gates=[(task, ", ".join(m.gate.spec.inputs)) for task, m in mixtures if m.gate is not None],
        calibrated=[task for task, m in mixtures if m.fitted_temperature is not None],
        text_mode=extractor.text_mode,
        k=extractor.k,
        image_encoder=_shown(extractor.image_encoder.name) if extractor.image_encoder else None,
        attachable=extractor.attachable,
        scores=scores or {},
    )


def _experts(task: str, mixture: Mixture[Any]) -> list[dict[str, str]]:
    rows = []
    for expert in mixture.experts:
        spec, view = expert.spec, expert.spec.view
        adapter = f", adapter of rank {spec.adapter.rank}" if spec.adapter else ", trained whole"
        reads = f"{view.retriever}: {view.form.value}, {view.k} passages" if view.retriever else "the post alone"
        rows.append(
            {"task": task, "name": spec.name, "reads": reads, "encoder": f"{_shown(expert.encoder.name)}{adapter}"}
        )
    return rows


def _shown(encoder: str) -> str:
    return Path(encoder).name if Path(encoder).is_dir() else encoder
