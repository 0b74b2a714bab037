"""Evidence files of a recipe: are they there, and of these posts?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from moreie.checking.findings import CheckedFile, Finding
from moreie.errors import DataFormatError
from moreie.retrieval.cache import load_evidence
from moreie.training.recipe import Recipe

# Share of posts without a passage from which an expert hardly differs from the baseline.
MANY_WITHOUT = 0.5


def evidence_findings(recipe: Recipe, split: str, file: CheckedFile, path: Path) -> Iterator[Finding]:
    """Evidence of one split; `path`: the recipe's."""
    for retriever, place in recipe.splits[split].evidence.items():
        where = f"{split}, {retriever} evidence ({place})"
        again = f"moreie retrieve --recipe {path}" if recipe.retrieval else "moreie retrieve --input … --save …"
        if not place.is_file():
            yield Finding("error", "missing-evidence", where, "the file is not there", 1, remedy=again)
            continue
        try:
            header, rows = load_evidence(place, file.posts)
        except DataFormatError as problem:
            yield Finding("error", "misfit-evidence", where, f"not of these posts: {problem.problem}", 1, remedy=again)
            continue
        wanted = max((e.view.k for e in recipe.experts if e.view.retriever == retriever), default=0)
        if header.k < wanted and header.source is None:
            yield Finding(
                "note", "few-passages", where, f"keeps {header.k} passages a post, experts may read {wanted}", header.k
            )
        without = sum(not row for row in rows)
        if without:
            yield Finding(
                "warning" if without >= MANY_WITHOUT * len(rows) else "note",
                "no-evidence",
                where,
                f"{without:,} of {len(rows):,} posts have none; the gate gives the expert no weight there",
                without,
            )
