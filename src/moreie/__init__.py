"""Named entities and relations in posts that carry a picture, found with retrieved evidence.

>>> from moreie import Extractor                          # doctest: +SKIP
>>> print(Extractor.from_pretrained().extract("…"))       # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from moreie.extractor import Extractor
    from moreie.knowledge.corpus import KnowledgeCorpus
    from moreie.linking.linker import Linker
    from moreie.schema import Article, Evidence, Extraction, LinkedArticle, Mention, Passage, Post, Relation

__all__ = [
    "Article",
    "Evidence",
    "Extraction",
    "Extractor",
    "KnowledgeCorpus",
    "LinkedArticle",
    "Linker",
    "Mention",
    "Passage",
    "Post",
    "Relation",
]

_HOME = {
    "Extractor": "moreie.extractor",
    "KnowledgeCorpus": "moreie.knowledge.corpus",
    "Linker": "moreie.linking.linker",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'moreie' has no attribute {name!r}")
    from moreie.starting import collecting_later

    with collecting_later():
        return getattr(import_module(_HOME.get(name, "moreie.schema")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
