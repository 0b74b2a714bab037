"""The words of the project as frozen data classes: Post, Mention, Relation, Article, Passage, Evidence, Extraction."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moreie.errors import MoreieError

if TYPE_CHECKING:
    import pandas
    import spacy

SCHEMA_VERSION = 1
NO_RELATION = "None"


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a post; `start` and `end` are character offsets into the post's text."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LinkedArticle:
    """What a mention refers to: an article of the corpus, or none of them (NIL: id and title are None).

    `score`: probability of that answer among the articles that were weighed.
    """

    article_id: str | None
    title: str | None
    url: str | None
    score: float

    def to_dict(self) -> dict[str, Any]:
        return {"article": self.article_id, "title": self.title, "url": self.url, "score": self.score}

    def __str__(self) -> str:
        return f"{'no article' if self.title is None else self.title} {self.score:.2f}"


@dataclass(frozen=True, slots=True)
class Mention:
    """A typed span. `first` and `last` are word indices (both inclusive); `start` and `end` character offsets.

    `type` is None where a data set gives the span but not its type (MNRE's heads and tails).
    `confidence` is 1.0 for gold mentions. `linked` is None where nobody asked what the mention refers to.
    """

    type: str | None
    first: int
    last: int
    start: int
    end: int
    confidence: float = 1.0
    linked: LinkedArticle | None = None


@dataclass(frozen=True, slots=True)
class Relation:
    """A typed, directed pair; `head` and `tail` index the mentions of the same post or extraction."""

    head: int
    tail: int
    type: str
    confidence: float = 1.0


@dataclass(frozen=True)
class Post:
    """One post: text, its words, and what may come with it.

    `image` is a file on disk; `image_id` the data set's name of the picture, kept even when the file is not to be had.
    `mentions` / `relations` are gold annotation, None when the post is not annotated for that task.
    """

    id: str
    text: str
    words: tuple[Word, ...]
    image: Path | None = None
    image_id: str | None = None
    caption: str | None = None
    mentions: tuple[Mention, ...] | None = None
    relations: tuple[Relation, ...] | None = None

    def mention(self, type: str | None, first: int, last: int, confidence: float = 1.0) -> Mention:
        """The mention over words `first..last` (inclusive), its character offsets taken from the words."""
        if not 0 <= first <= last < len(self.words):
            raise MoreieError(f"post {self.id}: word span {first}..{last} lies outside its {len(self.words)} words")
        return Mention(type, first, last, self.words[first].start, self.words[last].end, confidence)

    def surface(self, mention: Mention) -> str:
        """The text under a mention, exactly as the user wrote it."""
        return self.text[mention.start : mention.end]


@dataclass(frozen=True, slots=True)
class Link:
    """A hyperlink inside a paragraph: character offsets of its anchor, and the title it leads to."""

    start: int
    end: int
    target: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Plain text of one paragraph. `introduction`: it stands before the first section heading."""

    text: str
    introduction: bool
    section: str = ""
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class ArticleImage:
    """A picture of an article: file name as the source names it, caption, local path once it is found, section."""

    file: str
    caption: str = ""
    path: Path | None = None
    section: str = ""


@dataclass(frozen=True, slots=True)
class Article:
    """A knowledge source document."""

    id: str
    title: str
    paragraphs: tuple[Paragraph, ...]
    url: str | None = None
    redirects: tuple[str, ...] = ()
    images: tuple[ArticleImage, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """What is retrieved: a paragraph with its title.

    `sentence` is the sentence that matched (text retrieval) or None; `image` the article picture that matched
    (image retrieval; a path relative to the corpus folder, or the source's file name) or None.
    """

    id: str
    article_id: str
    title: str
    text: str
    introduction: bool
    sentence: str | None = None
    links: tuple[Link, ...] = ()
    url: str | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage with the retriever that found it, its 1-based rank and that retriever's score."""

    passage: Passage
    retriever: str
    rank: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        p = self.passage
        return {
            "retriever": self.retriever,
            "rank": self.rank,
            "score": self.score,
            "article": p.article_id,
            "title": p.title,
            "url": p.url,
            "sentence": p.sentence,
            "text": p.text,
            "image": p.image,
        }


@dataclass(frozen=True, slots=True)
class GateWeights:
    """The weight of each expert in the answer, by task; each non-empty dict sums to 1."""

    entities: dict[str, float] = field(default_factory=dict)
    relations: dict[str, float] = field(default_factory=dict)


def mention_dict(mention: Mention, text: str) -> dict[str, Any]:
    """A mention of this text in the JSON form."""
    return {
        "text": text[mention.start : mention.end],
        "type": mention.type,
        "start": mention.start,
        "end": mention.end,
        "confidence": mention.confidence,
        **({"link": mention.linked.to_dict()} if mention.linked else {}),
    }


def relation_dict(relation: Relation) -> dict[str, Any]:
    """A relation in the JSON form."""
    return {
        "head": relation.head,
        "tail": relation.tail,
        "type": relation.type,
        "confidence": relation.confidence,
    }


@dataclass(frozen=True)
class Extraction:
    """The result for one post: what was found, how surely, on what evidence, and what to be wary of.

    `words`: those of the post, which mentions count by. `exports` has an extraction in the forms of other tools.
    """

    id: str
    text: str
    mentions: tuple[Mention, ...]
    relations: tuple[Relation, ...]
    evidence: tuple[Evidence, ...]
    gate: GateWeights
    warnings: tuple[str, ...]
    model: str
    corpus: str | None
    image: Path | None = None
    words: tuple[Word, ...] = ()

    @cached_property
    def entities(self) -> list[tuple[str, str | None]]:
        """Surface and type of each mention, in order."""
        return [(self.text[m.start : m.end], m.type) for m in self.mentions]

    def to_dict(self) -> dict[str, Any]:
        """The stable JSON form (`docs/extraction-json.md`)."""
        return {
            "schema": SCHEMA_VERSION,
            "id": self.id,
            "text": self.text,
            "image": str(self.image) if self.image else None,
            "mentions": [mention_dict(m, self.text) for m in self.mentions],
            "relations": [relation_dict(r) for r in self.relations],
            "evidence": [e.to_dict() for e in self.evidence],
            "gate": {"entities": self.gate.entities, "relations": self.gate.relations},
            "warnings": list(self.warnings),
            "model": self.model,
            "corpus": self.corpus,
        }

    def to_json(self) -> str:
        """The JSON form as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_spacy(self) -> spacy.tokens.Doc:
        """A spaCy document of the post's words (`integrations.spacy.as_doc`); needs spaCy."""
        from moreie.integrations.spacy import as_doc

        return as_doc(self)

    def to_pandas(self) -> pandas.Series:
        """A row of a table (`exports.table`); needs pandas."""
        from moreie.exports.table import series

        return series(self)

    def to_conll(self) -> str:
        """`IMGID:` line, then a word and its BIO tag a line (`exports.conll`)."""
        from moreie.exports.conll import columns

        return columns(self)

    def to_brat(self) -> tuple[str, str]:
        """The contents of brat's `.txt` and `.ann` (`exports.brat`)."""
        from moreie.exports.brat import standoff

        parts = standoff(self)
        return parts.text, parts.annotation

    def to_label_studio(self) -> dict[str, Any]:
        """A Label Studio task with what was found as its prediction (`exports.label_studio`)."""
        from moreie.exports.label_studio import task

        return task(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: highlighted mentions, relations, gate, evidence with its pictures."""
        from moreie.rendering.html import notebook_html

        return notebook_html(self)

    def __str__(self) -> str:
        lines = [self.text]
        for m in self.mentions:
            refers = f" = {m.linked}" if m.linked else ""
            lines.append(f"  {m.type:5} {self.text[m.start : m.end]!r} [{m.start}:{m.end}] {m.confidence:.2f}{refers}")
        for r in self.relations:
            head, tail = self.mentions[r.head], self.mentions[r.tail]
            lines.append(
                f"  {self.text[head.start : head.end]!r} -{r.type}-> {self.text[tail.start : tail.end]!r} "
                f"{r.confidence:.2f}"
            )
        lines += [f"  {e.retriever} {e.rank}. {e.passage.title} ({e.score:.2f})" for e in self.evidence]
        lines += [f"  ! {w}" for w in self.warnings]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Influence:
    """What one passage does for one answer: the answer's confidence with all evidence, less that without the passage.

    `evidence` indexes the extraction's evidence; one of `mention` and `relation` is given, the other None. A positive
    change: the passage speaks for the answer.
    """

    evidence: int
    mention: int | None
    relation: int | None
    change: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "evidence": self.evidence,
            "mention": self.mention,
            "relation": self.relation,
            "change": self.change,
        }


@dataclass(frozen=True)
class Attribution:
    """An extraction, and what each passage that an expert read does for each of its answers."""

    extraction: Extraction
    influences: tuple[Influence, ...]

    def of_mention(self, mention: int) -> list[Influence]:
        """Those of one mention, the strongest first."""
        return sorted((i for i in self.influences if i.mention == mention), key=lambda i: -abs(i.change))

    def of_relation(self, relation: int) -> list[Influence]:
        """Those of one relation, the strongest first."""
        return sorted((i for i in self.influences if i.relation == relation), key=lambda i: -abs(i.change))

    def to_dict(self) -> dict[str, Any]:
        """The extraction's JSON form with `influences` beside it."""
        return {**self.extraction.to_dict(), "influences": [i.to_dict() for i in self.influences]}


@dataclass(frozen=True)
class Comparison:
    """An extraction, and what each expert would answer alone, by its name as in the gate's weights.

    An expert that had nothing to read has no answer and is left out. Confidences are read at the mixture's temperature.
    All relation experts are asked about the same pairs, so their relations index the extraction's mentions.
    """

    extraction: Extraction
    entities: dict[str, tuple[Mention, ...]]
    relations: dict[str, tuple[Relation, ...]]

    def to_dict(self) -> dict[str, Any]:
        """The extraction's JSON form with `experts` beside it."""
        text = self.extraction.text
        experts = {
            "entities": {name: [mention_dict(m, text) for m in own] for name, own in self.entities.items()},
            "relations": {name: [relation_dict(r) for r in own] for name, own in self.relations.items()},
        }
        return {**self.extraction.to_dict(), "experts": experts}
