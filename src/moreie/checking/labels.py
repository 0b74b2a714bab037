"""Labels: too rare to be learnt, in one file only, written in two ways, missing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from moreie.checking.findings import EXAMPLES, CheckedFile, Finding
from moreie.schema import NO_RELATION

RARE = 5
KINDS = {"ner": "entity type", "re": "relation"}


def label_counts(file: CheckedFile, task: str) -> Counter[str]:
    """How often each entity type, or each relation, occurs."""
    if task == "ner":
        return Counter(m.type for p in file.posts for m in p.mentions or () if m.type)
    return Counter(r.type for p in file.posts for r in p.relations or ())


def label_findings(files: Sequence[CheckedFile], known: Sequence[str] | None = None) -> Iterator[Finding]:
    """All about labels, by task; `known`: the labels of a recipe's label file."""
    for task, kind in KINDS.items():
        counts = [(file, label_counts(file, task)) for file in files if task in file.tasks]
        if not counts:
            continue
        yield from _variants(kind, counts)
        trained = next((own for file, own in counts if file.split == "train"), None)
        # Of files by themselves the largest is the one to learn from.
        largest = max(counts, key=lambda item: len(item[0].posts))
        for file, own in counts:
            if file.split == "train" or (trained is None and own is largest[1]):
                yield from _rare(kind, file, own)
        if trained is not None:
            yield from _unlearnt(kind, trained, counts, known)
        elif len(counts) > 1:
            yield from _one_file_only(kind, counts)


def _variants(kind: str, counts: Sequence[tuple[CheckedFile, Counter[str]]]) -> Iterator[Finding]:
    total: Counter[str] = sum((own for _, own in counts), Counter())
    forms: dict[str, set[str]] = defaultdict(set)
    for label in total:
        forms["".join(label.casefold().split())].add(label)
    found = [sorted(same, key=lambda label: -total[label]) for same in forms.values() if len(same) > 1]
    if found:
        yield Finding(
            "warning",
            "label-variants",
            ", ".join(file.where for file, _ in counts),
            f"{kind}s written in several ways, each of which is learnt as a label of its own: {len(found):,}",
            len(found),
            tuple(", ".join(f"{label!r} ({total[label]:,})" for label in same) for same in found[:EXAMPLES]),
            "write each in one way",
        )


def _rare(kind: str, file: CheckedFile, own: Counter[str]) -> Iterator[Finding]:
    if rare := {label: count for label, count in own.items() if count < RARE}:
        yield Finding(
            "warning",
            "rare-labels",
            file.where,
            f"{kind}s that occur fewer than {RARE} times and are hardly learnt: {len(rare):,}",
            len(rare),
            tuple(f"{label} ({count})" for label, count in sorted(rare.items(), key=lambda i: i[1])[:EXAMPLES]),
            "annotate more of them, or merge them into others",
        )


def _unlearnt(
    kind: str,
    trained: Counter[str],
    counts: Sequence[tuple[CheckedFile, Counter[str]]],
    known: Sequence[str] | None,
) -> Iterator[Finding]:
    """Labels in other splits that training posts, or the label file, do not know: an error there."""
    for file, own in counts:
        unknown = own.keys() - (set(known) if known and kind == KINDS["re"] else trained.keys())
        if unknown:
            yield Finding(
                "error",
                "unknown-labels",
                file.where,
                f"{kind}s that are not among the labels learnt: {len(unknown):,}",
                len(unknown),
                tuple(f"{label} ({own[label]:,})" for label in sorted(unknown)[:EXAMPLES]),
                "move such posts into the training split, or rename the labels",
            )
        unseen = trained.keys() - own.keys() - {NO_RELATION}
        if unseen and file.split != "train":
            yield Finding(
                "note",
                "unscored-labels",
                file.where,
                f"{kind}s of the training split that do not occur, so that nothing is scored of them: {len(unseen):,}",
                len(unseen),
                tuple(sorted(unseen)[:EXAMPLES]),
            )


def _one_file_only(kind: str, counts: Sequence[tuple[CheckedFile, Counter[str]]]) -> Iterator[Finding]:
    for file, own in counts:
        others: set[str] = set().union(*(other.keys() for one, other in counts if one is not file))
        if alone := own.keys() - others:
            yield Finding(
                "warning",
                "labels-of-one-file",
                file.where,
                f"{kind}s that occur in this file only: {len(alone):,}",
                len(alone),
                tuple(f"{label} ({own[label]:,})" for label in sorted(alone)[:EXAMPLES]),
            )
