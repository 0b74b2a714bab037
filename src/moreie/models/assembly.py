"""Input assembly: the post, the separator `[X]`, then evidence in rank order until the budget is full (paper, §3.2).

A passage that does not fit is left out and the next one is tried; nothing is cut in the middle of a sentence. How
many passages were left out is part of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from moreie.encoders.text import HEAD_END, HEAD_START, SEPARATOR, TAIL_END, TAIL_START, TextEncoder
from moreie.errors import MoreieError
from moreie.knowledge.sentences import split_sentences
from moreie.models.tweets import plain_words
from moreie.schema import Evidence, Mention, Passage, Post

PAIR_MARKERS = 4
"""Levitated markers of a pair: where head and tail begin and end."""
LEVITATED_ANCHORS = 4
"""The two opening ones, and what they stand at: the text does not read them, so that it has states of its own."""


class EvidenceForm(str, Enum):
    """What of a passage an expert reads."""

    sentence = "sentence"
    """Title and the sentence that matched (the first sentence where none did)."""
    paragraph = "paragraph"
    """Title and the whole paragraph (the paper's form)."""
    anchors = "anchors"
    """The paragraph with its hyperlinks: `<e:Title>mention</e>` (Wang et al., SemEval 2022, "DAMO-NLP")."""
    lead = "lead"
    """Title and as many leading sentences as fit in `passage_limit` sub-tokens."""


@dataclass(frozen=True, slots=True)
class View:
    """An expert's view of the evidence.

    `retriever` is the kind of evidence the expert reads, None for the baseline expert that reads none. `budget`
    counts all sub-tokens of the input: a post is never cut, and evidence is added while the budget lasts (none where
    the post alone exceeds it). `passage_limit` bounds one passage, None for no bound but the budget. `markers` (RE):
    see `assemble_pairs`. `words`: the post's as they are written, or what is particular to tweets made plain
    (`models.tweets`).
    """

    retriever: str | None
    form: EvidenceForm = EvidenceForm.paragraph
    k: int = 10
    budget: int = 512
    passage_limit: int | None = None
    markers: Literal["plain", "typed", "levitated"] = "plain"
    words: Literal["written", "plain"] = "written"


@dataclass(frozen=True, slots=True)
class Assembled:
    """One encoder input. `anchors`: position of each word's first sub-token (NER), or of the two opening markers (RE),
    behind which stand, if these are levitated, those of the sub-tokens that head and tail begin with.

    `used` and `dropped` count evidence passages that are in the input, and that found no room. `levitated`: the places
    in the text of the markers that stand behind it, PAIR_MARKERS for each pair; none where markers stand in the text.
    """

    input_ids: tuple[int, ...]
    anchors: tuple[int, ...]
    used: int
    dropped: int
    levitated: tuple[int, ...] = ()


def evidence_text(passage: Passage, form: EvidenceForm) -> list[str]:
    """The pieces of a passage that may be kept, first to last: the first is needed, each further one optional."""
    lead = f"{passage.title}: " if passage.title else ""
    if form is EvidenceForm.paragraph:
        return [lead + passage.text]
    if form is EvidenceForm.anchors:
        return [lead + anchored_text(passage)]
    if form is EvidenceForm.sentence and passage.sentence:
        return [lead + passage.sentence]
    sentences = [passage.text[start:end].strip() for start, end in split_sentences(passage.text)] or [passage.text]
    if form is EvidenceForm.sentence:
        return [lead + sentences[0]]
    return [lead + sentences[0], *sentences[1:]]


def anchored_text(passage: Passage) -> str:
    """A passage's text, its hyperlinks written as `<e:Title>mention</e>`; of links that overlap the first stays."""
    pieces, position = [], 0
    for link in sorted(passage.links, key=lambda link: (link.start, link.end)):
        if position <= link.start < link.end <= len(passage.text):
            mention = passage.text[link.start : link.end]
            pieces += [passage.text[position : link.start], f"<e:{link.target}>{mention}</e>"]
            position = link.end
    return "".join([*pieces, passage.text[position:]])


def assemble_posts(
    encoder: TextEncoder,
    posts: Sequence[Post],
    evidence: Sequence[Sequence[Evidence]],
    view: View,
) -> list[Assembled]:
    """NER inputs: anchors are the first sub-token of each of the post's words.

    Raises:
        MoreieError: a post alone exceeds what the encoder can read (cut it first: `models.windows`).
    """
    words = _word_tokens(encoder, posts, view)
    found = _evidence_tokens(encoder, evidence, view)
    results = []
    for post, pieces, own in zip(posts, words, found, strict=True):
        ids: list[int] = []
        anchors = []
        for piece in pieces:
            anchors.append(len(ids))
            ids += piece
        results.append(_join(encoder, post.id, ids, anchors, own, view.budget))
    return results


def assemble_pairs(
    encoder: TextEncoder,
    pairs: Sequence[tuple[Post, Mention, Mention]],
    evidence: Sequence[Sequence[Evidence]],
    view: View,
) -> list[Assembled]:
    """RE inputs: `[E1] head [/E1]` and `[E2] tail [/E2]` inside the post; anchors are the two opening markers.

    Typed markers (Zhou & Chen, AACL 2022) are `[E1] PER : head [/E1]`: the type in words, as in that paper's `punct`
    variant, since a token of its own for every type would change the encoder that experts share. A mention of unknown
    type has plain ones.

    Levitated markers stand behind the input and take the places of their mention's ends: they read the text and each
    other, the text does not read them (Zhong & Chen, NAACL 2021, §3.3, "approximation"). So a text has the same states
    whatever pair is asked about, and is read once for all of its pairs (`models.pair_packing`).
    """
    words = _word_tokens(encoder, [post for post, _, _ in pairs], view)
    found = _evidence_tokens(encoder, evidence, view)
    if view.markers == "levitated":
        return _levitated(encoder, pairs, words, found, view.budget)
    types = _type_tokens(encoder, pairs) if view.markers == "typed" else {}
    head_start, head_end, tail_start, tail_end = encoder.marker_ids(HEAD_START, HEAD_END, TAIL_START, TAIL_END)
    results = []
    for (post, head, tail), pieces, own in zip(pairs, words, found, strict=True):
        ids: list[int] = []
        anchors = [0, 0]
        for position, piece in enumerate(pieces):
            if position == head.first:
                anchors[0] = len(ids)
                ids += [head_start, *types.get(head.type, ())]
            if position == tail.first:
                anchors[1] = len(ids)
                ids += [tail_start, *types.get(tail.type, ())]
            ids += piece
            if position == tail.last:
                ids.append(tail_end)
            if position == head.last:
                ids.append(head_end)
        results.append(_join(encoder, post.id, ids, anchors, own, view.budget))
    return results


def _levitated(
    encoder: TextEncoder,
    pairs: Sequence[tuple[Post, Mention, Mention]],
    words: Sequence[Sequence[Sequence[int]]],
    found: Sequence[list[Sequence[int]]],
    budget: int,
) -> list[Assembled]:
    markers = encoder.marker_ids(HEAD_START, HEAD_END, TAIL_START, TAIL_END)
    lead = len(encoder.frame[0])
    results = []
    for (post, head, tail), pieces, own in zip(pairs, words, found, strict=True):
        ids: list[int] = []
        spans = []
        for piece in pieces:
            spans.append((lead + len(ids), lead + len(ids) + len(piece) - 1))
            ids += piece
        text = _join(encoder, post.id, ids, [], own, budget, len(markers))
        places = tuple(p for m in (head, tail) for p in (spans[m.first][0], spans[m.last][1]))
        behind = len(text.input_ids)
        anchors = (behind, behind + 2, places[0], places[2])
        results.append(replace(text, input_ids=(*text.input_ids, *markers), anchors=anchors, levitated=places))
    return results


def _word_tokens(encoder: TextEncoder, posts: Sequence[Post], view: View) -> list[list[Sequence[int]]]:
    words = [[w.text for w in post.words] for post in posts]
    return encoder.word_subtokens([plain_words(row) for row in words] if view.words == "plain" else words)


def _type_tokens(encoder: TextEncoder, pairs: Sequence[tuple[Post, Mention, Mention]]) -> dict[str | None, list[int]]:
    types = sorted({m.type for _, head, tail in pairs for m in (head, tail) if m.type})
    words = encoder.word_subtokens([[type, ":"] for type in types])
    return {type: [i for piece in pieces for i in piece] for type, pieces in zip(types, words, strict=True)}


def _evidence_tokens(
    encoder: TextEncoder, evidence: Sequence[Sequence[Evidence]], view: View
) -> list[list[Sequence[int]]]:
    if view.retriever is None:
        return [[] for _ in evidence]
    rows = [[e.passage for e in row[: view.k]] for row in evidence]
    # Passages by what they are known by: pairs of one post have the same, posts of one topic similar ones.
    passages = {(p.id, p.sentence): p for row in rows for p in row}
    pieces = [evidence_text(passage, view.form) for passage in passages.values()]
    ids = iter(encoder.subtokens([piece for row in pieces for piece in row]))
    kept = [_within_limit([next(ids) for _ in row], view.passage_limit) for row in pieces]
    found = dict(zip(passages, kept, strict=True))
    return [[found[p.id, p.sentence] for p in row] for row in rows]


def _within_limit(pieces: Sequence[Sequence[int]], limit: int | None) -> Sequence[int]:
    """The first piece, and of those behind it as many as `limit` has room for."""
    kept = list(pieces[0])
    for piece in pieces[1:]:
        if limit is not None and len(kept) + len(piece) > limit:
            break
        kept += piece
    return kept


def _join(
    encoder: TextEncoder,
    post_id: str,
    ids: list[int],
    anchors: list[int],
    passages: list[Sequence[int]],
    budget: int,
    behind: int = 0,
) -> Assembled:
    """`behind`: sub-tokens that are to stand behind the input."""
    first, last = encoder.frame
    others = len(first) + len(last) + behind
    limit = encoder.max_length - others
    if len(ids) > limit:
        raise MoreieError(f"post {post_id}: {len(ids)} sub-tokens, more than the {limit} that fit the encoder")
    room = min(budget - others, limit)
    (separator,) = encoder.marker_ids(SEPARATOR)
    used = dropped = 0
    for passage in passages:
        if len(ids) + 1 + len(passage) <= room:
            # One separator before each passage keeps neighbouring passages apart.
            ids = [*ids, separator, *passage]
            used += 1
        else:
            dropped += 1
    return Assembled((*first, *ids, *last), tuple([a + len(first) for a in anchors]), used, dropped)
