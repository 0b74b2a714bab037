"""What a check found."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from moreie.datasets.published import published_count
from moreie.errors import DataFormatError
from moreie.schema import Post

Level = Literal["error", "warning", "note"]
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem in one place, however often it occurs there.

    `error`: training or scoring would end with an error, or data would be lost; `warning`: results would suffer or
    scores mislead; `note`: good to know. `kind` is a stable name, `where` a file, a split or two. `remedy` says what to
    do, "" where that is plain.
    """

    level: Level
    kind: str
    where: str
    said: str
    count: int
    examples: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class CheckedFile:
    """A file of posts as it was read: those that could be, and what is wrong with the other lines.

    `split` is its part in a recipe, "" for a file by itself. `tasks`: what can be learnt from it.
    """

    path: Path
    posts: tuple[Post, ...]
    bad: tuple[DataFormatError, ...] = ()
    split: str = ""
    tasks: frozenset[str] = frozenset()

    @property
    def where(self) -> str:
        return f"{self.split} ({self.path})" if self.split else str(self.path)

    def to_dict(self) -> dict[str, Any]:
        published = published_count(self.path)
        return {
            "path": str(self.path),
            "split": self.split or None,
            "posts": len(self.posts),
            "published": published,
            "words": sum(len(p.words) for p in self.posts),
            "mentions": dict(Counter(m.type or "untyped" for p in self.posts for m in p.mentions or ())),
            "relations": dict(Counter(r.type for p in self.posts for r in p.relations or ())),
            "pictures": sum(p.image is not None and p.image.is_file() for p in self.posts),
            "bad_lines": len(self.bad),
        }


@dataclass(frozen=True, slots=True)
class ExpertCost:
    """What training one expert of a recipe takes, a seed: sub-tokens an epoch and in its longest input, passages that
    find no room, and seconds (None where that was not measured; early stopping may end it sooner)."""

    expert: str
    epochs: int
    tokens: int
    longest: int
    dropped: int
    seconds: float | None


@dataclass(frozen=True)
class Report:
    """Everything that was found; `costs` for a recipe, `runs` how often each expert is trained (seeds and folds)."""

    files: tuple[CheckedFile, ...]
    findings: tuple[Finding, ...]
    costs: tuple[ExpertCost, ...] = ()
    runs: int = 1
    levels: tuple[Level, ...] = field(default=("error", "warning", "note"), repr=False)

    @property
    def failed(self) -> bool:
        """Is there an error?"""
        return any(f.level == "error" for f in self.findings)

    @property
    def sorted_findings(self) -> list[Finding]:
        """Errors first, then warnings, then notes."""
        return sorted(self.findings, key=lambda f: self.levels.index(f.level))

    def to_dict(self) -> dict[str, Any]:
        return {
            "files": [file.to_dict() for file in self.files],
            "findings": [asdict(finding) for finding in self.sorted_findings],
            "costs": [asdict(cost) for cost in self.costs],
            "runs": self.runs,
            "failed": self.failed,
        }


def quoted(text: str, longest: int = 60) -> str:
    """A text as an example shows it."""
    return repr(text if len(text) <= longest else text[: longest - 1] + "…")
