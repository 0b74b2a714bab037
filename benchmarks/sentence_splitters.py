"""Sentence boundaries: `sentencex` (ours) against `pysbd`, on the paragraphs of the demo corpus.

python benchmarks/sentence_splitters.py          # needs: pip install pysbd
"""

from __future__ import annotations

import lancedb
import pysbd
from rows import Row, compare, save

from moreie.knowledge.sentences import split_sentences
from moreie.shipped import DEMO_CORPUS

PARAGRAPHS = 300


def main() -> None:
    table = lancedb.connect(DEMO_CORPUS).open_table("passages").to_arrow()
    paragraphs: list[str] = table["text"].to_pylist()[:PARAGRAPHS]
    splitter = pysbd.Segmenter(language="en", clean=False)

    def ends_of(pieces: list[str]) -> set[int]:
        ends, position = set(), 0
        for piece in pieces:
            position += len(piece)
            ends.add(position)
        return ends

    same = ours_only = theirs_only = 0
    for paragraph in paragraphs:
        ours = {end for _, end in split_sentences(paragraph)}
        theirs = ends_of(splitter.segment(paragraph))
        same += len(ours & theirs)
        ours_only += len(ours - theirs)
        theirs_only += len(theirs - ours)
    count = sum(len(split_sentences(p)) for p in paragraphs)
    speed = compare(
        "sentence boundaries",
        f"{len(paragraphs)} paragraphs of the demo corpus, {count} sentences",
        lambda: [split_sentences(p) for p in paragraphs],
        lambda: [splitter.segment(p) for p in paragraphs],
        "pysbd",
        amount=count,
        unit="sentences/s",
        repeats=3,
    )
    total = same + ours_only + theirs_only
    agreement = Row(
        name="sentence boundaries: agreement with pysbd",
        work=f"{speed.work}; {ours_only} boundaries only ours, {theirs_only} only pysbd's",
        ours=same / total,
        unit="share of all boundaries",
    )
    save("sentence_splitters", [speed, agreement])


if __name__ == "__main__":
    main()
