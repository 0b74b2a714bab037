"""A small corpus whose articles link to each other, with namesakes and a redirect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moreie.knowledge.build import Sources, build_corpus


def paragraph(text: str, **links: str) -> dict[str, Any]:
    """A paragraph in which each named anchor (underscores are spaces) leads to a title."""
    places = []
    for anchor, target in links.items():
        start = text.index(anchor.replace("_", " "))
        places.append({"start": start, "end": start + len(anchor), "target": target})
    return {"text": text, "introduction": True, "links": places}


ARTICLES: list[dict[str, Any]] = [
    {
        "id": "m1",
        "title": "Mercury (planet)",
        "url": "https://example.org/Mercury_(planet)",
        "paragraphs": [
            paragraph("Mercury is the smallest planet of the solar system and orbits close to the sun.", sun="Sun")
        ],
    },
    {
        "id": "m2",
        "title": "Mercury (element)",
        "paragraphs": [paragraph("Mercury is a chemical element, a liquid metal used in thermometers.")],
    },
    {
        "id": "s1",
        "title": "Sun",
        "redirects": ["Sol"],
        "paragraphs": [
            paragraph("The sun is the star around which Mercury and the Earth turn.", Mercury="mercury_(planet)#orbit"),
        ],
    },
    {
        "id": "t1",
        "title": "Thermometer",
        "paragraphs": [
            paragraph("A thermometer may hold Mercury.", Mercury="Mercury (element)"),
            paragraph("Merkur, as Germans call Mercury, moves fast.", Merkur="Mercury (planet)", Mercury="Mercury"),
            paragraph("The planet Mercury is near to Sol.", Mercury="Mercury (planet)", Sol="Sol"),
        ],
    },
]


@pytest.fixture(scope="session")
def linked_corpus(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The genuine articles of the other tests and those above, in one corpus folder."""
    folder = tmp_path_factory.mktemp("linked")
    own = folder / "own.jsonl"
    own.write_text("".join(json.dumps(article) + "\n" for article in ARTICLES), encoding="utf-8")
    build_corpus(folder / "corpus", Sources(articles=(data / "articles.jsonl", own)))
    return folder / "corpus"
