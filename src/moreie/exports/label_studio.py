"""Extractions as Label Studio tasks with predictions, to be corrected there (https://labelstud.io/guide/predictions)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from moreie.schema import Extraction


def task(extraction: Extraction) -> dict[str, Any]:
    """A task: the post as data, what was found as its prediction (score: the least confident answer's)."""
    found: list[dict[str, Any]] = [
        {
            "id": f"m{n}",
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {
                "start": mention.start,
                "end": mention.end,
                "text": extraction.text[mention.start : mention.end],
                "labels": [mention.type],
            },
            "score": mention.confidence,
        }
        for n, mention in enumerate(extraction.mentions)
    ]
    found += [
        {
            "type": "relation",
            "from_id": f"m{relation.head}",
            "to_id": f"m{relation.tail}",
            "direction": "right",
            "labels": [relation.type],
            "score": relation.confidence,
        }
        for relation in extraction.relations
    ]
    sure = [m.confidence for m in extraction.mentions] + [r.confidence for r in extraction.relations]
    data = {"id": extraction.id, "text": extraction.text}
    if extraction.image:
        data["image"] = extraction.image.name
    return {
        "data": data,
        "predictions": [{"model_version": extraction.model, "score": min(sure, default=1.0), "result": found}],
    }


def labelling_interface(entity_types: Sequence[str], relations: Sequence[str]) -> str:
    """The project's labelling configuration that the tasks fit."""
    labels = "".join(f"    <Label value={quoteattr(type)}/>\n" for type in entity_types)
    joins = "".join(f"    <Relation value={quoteattr(relation)}/>\n" for relation in relations)
    return (
        "<View>\n"
        f"  <Relations>\n{joins}  </Relations>\n"
        f'  <Labels name="label" toName="text">\n{labels}  </Labels>\n'
        '  <Text name="text" value="$text"/>\n'
        "</View>\n"
    )


def write(extractions: Sequence[Extraction], path: Path) -> None:
    """One JSON file of tasks, and beside it `<name>.xml`, the labelling configuration with the types that occur."""
    path.write_text(json.dumps([task(e) for e in extractions], ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    types = sorted({m.type for e in extractions for m in e.mentions if m.type})
    relations = sorted({r.type for e in extractions for r in e.relations})
    path.with_suffix(".xml").write_text(labelling_interface(types, relations), encoding="utf-8")
