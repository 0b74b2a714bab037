"""The spaCy component `moreie`, and extractions as spaCy documents.

>>> import spacy                                                                          # doctest: +SKIP
>>> nlp = spacy.blank("en")                                                               # doctest: +SKIP
>>> _ = nlp.add_pipe("moreie")                                                            # doctest: +SKIP
>>> nlp("Kawhi Leonard leads the Toronto Raptors").ents                                   # doctest: +SKIP

A document's picture is `doc._.image`, a path, set before the component runs. Behind it stand `doc.ents`,
`doc._.relations`, `doc._.evidence`, `doc._.gate`, `doc._.extraction` and, of each entity, `span._.confidence`; with
`config={"link": True}` also `span.kb_id_`, the id of the article it refers to, or `NIL`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from moreie.datasets import post_from_text
from moreie.errors import MoreieError
from moreie.extractor import Extractor
from moreie.linking.linker import Linker
from moreie.schema import Extraction, Post

# What spaCy's own entity linker gives an entity that is in no knowledge base.
NIL = "NIL"


@dataclass(frozen=True, slots=True)
class SpanRelation:
    """A relation between two entities of a document."""

    head: Span
    tail: Span
    type: str
    confidence: float


def register_extensions() -> None:
    """Make the attributes known that this module sets; those which others have set stay."""
    for name, default in (("image", None), ("extraction", None), ("relations", ()), ("evidence", ()), ("gate", None)):
        if not Doc.has_extension(name):
            Doc.set_extension(name, default=default)
    if not Span.has_extension("confidence"):
        Span.set_extension("confidence", default=None)


def as_doc(extraction: Extraction, vocab: Vocab | None = None) -> Doc:
    """The extraction as a document of the post's own words; its text is the post's, to the last space.

    spaCy has no place for more than one space behind a word: what is left of white space becomes a token, as in its
    own tokenizers.
    """
    words: list[str] = []
    spaces: list[bool] = []
    position = 0
    for word in (*extraction.words, None):
        gap = extraction.text[position : word.start if word else len(extraction.text)]
        if gap.startswith(" ") and words:
            spaces[-1], gap = True, gap[1:]
        if gap:
            words.append(gap)
            spaces.append(False)
        if word:
            words.append(word.text)
            spaces.append(False)
            position = word.end
    register_extensions()
    return annotate(Doc(vocab or Vocab(), words=words, spaces=spaces), extraction)


def annotate(doc: Doc, extraction: Extraction) -> Doc:
    """Give a document what was found in its text; a mention that ends inside a token takes the whole token.

    Raises:
        MoreieError: the extraction is of another, longer text.
    """
    spans: list[Span] = []
    for mention in extraction.mentions:
        kb_id = (mention.linked.article_id or NIL) if mention.linked else ""
        span = doc.char_span(mention.start, mention.end, label=mention.type or "", kb_id=kb_id, alignment_mode="expand")
        if span is None:
            raise MoreieError(f"extraction {extraction.id} is of another text: it ends before character {mention.end}")
        span._.confidence = mention.confidence
        spans.append(span)
    doc.set_ents(_without_overlaps(spans))
    doc._.extraction, doc._.evidence, doc._.gate = extraction, extraction.evidence, extraction.gate
    doc._.relations = tuple(
        SpanRelation(spans[r.head], spans[r.tail], r.type, r.confidence) for r in extraction.relations
    )
    return doc


def _without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """Spans in their order, less those that share a token with one before them: two mentions in one token."""
    kept: list[Span] = []
    for span in spans:
        if all(span.start >= other.end or span.end <= other.start for other in kept):
            kept.append(span)
    return kept


class MoreComponent:
    """A pipeline component over an extractor; `nlp.pipe` extracts in batches."""

    def __init__(self, extractor: Extractor, linker: Linker | None = None):
        register_extensions()
        self.extractor, self.linker = extractor, linker

    def __call__(self, doc: Doc) -> Doc:
        return annotate(doc, self._found([_post(doc, 0)])[0])

    def pipe(self, stream: Iterable[Doc], batch_size: int = 64) -> Iterator[Doc]:
        """Documents with what was found in them, in their order."""
        rest = iter(stream)
        while batch := list(islice(rest, batch_size)):
            posts = [_post(doc, i) for i, doc in enumerate(batch)]
            for doc, extraction in zip(batch, self._found(posts), strict=True):
                yield annotate(doc, extraction)

    def _found(self, posts: Sequence[Post]) -> list[Extraction]:
        found = self.extractor.extract_batch(posts, batch_size=len(posts))
        return self.linker.link_batch(found) if self.linker else found


def _post(doc: Doc, number: int) -> Post:
    # Split as the experts know words, not as the pipeline's tokenizer does: entities are brought to its tokens.
    image = doc._.image
    return post_from_text(doc.text, id=str(number), image=Path(image) if image else None)


@Language.factory("moreie", default_config={"model": None, "corpus": None, "link": False})
def create_component(nlp: Language, name: str, model: str | None, corpus: str | None, link: bool) -> MoreComponent:
    """`nlp.add_pipe("moreie", config={"model": folder or hub id, "corpus": folder or URI, "link": True})`; all may be
    left out."""
    extractor = Extractor.from_pretrained(model, corpus=corpus)
    return MoreComponent(extractor, Linker.for_corpus(extractor.corpus) if link and extractor.corpus else None)
