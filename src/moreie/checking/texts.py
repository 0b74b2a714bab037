"""Texts: empty, twice in a file, shared by two files, too long for the encoder, in a script it does not know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import regex

from moreie.checking.findings import EXAMPLES, CheckedFile, Finding, quoted

if TYPE_CHECKING:
    from moreie.encoders.text import TextEncoder
    from moreie.schema import Post

# Share of words with letters that the vocabulary has nothing for: above it, posts of the data are hardly read.
UNKNOWN_WORDS = 0.01
_LETTER = regex.compile(r"\p{L}")
_LATIN = regex.compile(r"\p{Latin}")
_SCRIPTS = ("Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Han", "Hiragana", "Katakana", "Hangul", "Thai")


def empty_texts(file: CheckedFile) -> Iterator[Finding]:
    """Posts without a word: training and scoring leave them out."""
    if found := [p.id for p in file.posts if not p.words]:
        yield Finding(
            "warning",
            "empty-texts",
            file.where,
            f"posts without words: {len(found):,}",
            len(found),
            tuple(found[:EXAMPLES]),
            "see whether their texts were lost; training and evaluation leave them out",
        )


def contradicting_copies(file: CheckedFile) -> Iterator[Finding]:
    """Posts of the same words with other entities."""
    known: dict[tuple[str, ...], list[Post]] = defaultdict(list)
    for post in file.posts:
        if post.words and post.mentions is not None and all(m.type for m in post.mentions):
            known[tuple(w.text for w in post.words)].append(post)
    found = [same for same in known.values() if len({_spans(p) for p in same}) > 1]
    if found and "ner" in file.tasks:
        yield Finding(
            "warning",
            "contradicting-copies",
            file.where,
            f"texts that stand there several times with different entities: {len(found):,}",
            len(found),
            tuple(f"{', '.join(p.id for p in same[:3])}: {quoted(same[0].text)}" for same in found[:EXAMPLES]),
            "give each text once, or the same entities each time",
        )


def _spans(post: Post) -> frozenset[tuple[str | None, int, int]]:
    return frozenset((m.type, m.first, m.last) for m in post.mentions or ())


def shared_texts(files: Sequence[CheckedFile]) -> Iterator[Finding]:
    """Texts in two files, letters' case and white space aside: what is scored there has been seen."""
    texts = [{_plain(p.text): p.id for p in file.posts if p.words} for file in files]
    for (one, own), (other, others) in combinations(zip(files, texts, strict=True), 2):
        if one.path.resolve() == other.path.resolve():
            yield Finding(
                "warning", "shared-texts", f"{one.where}, {other.where}", "the same file twice", len(one.posts)
            )
        elif shared := sorted(own.keys() & others.keys()):
            yield Finding(
                "warning",
                "shared-texts",
                f"{one.where}, {other.where}",
                f"texts in both, so that scores on them say nothing of new posts: {len(shared):,}",
                len(shared),
                tuple(f"{own[t]} = {others[t]}: {quoted(t)}" for t in shared[:EXAMPLES]),
                "leave them out of one of the two",
            )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def long_posts(file: CheckedFile, encoder: TextEncoder, limit: int) -> Iterator[Finding]:
    """Posts of more than `limit` sub-tokens: they are cut, and what straddles a cut, and every relation, is lost."""
    from moreie.models.windows import cut_windows

    cut = cut_windows(encoder, file.posts, limit)
    posts = [file.posts[i] for i, count in Counter(w.origin for w in cut).items() if count > 1]
    if not posts:
        return
    mentions = sum(w.straddling for w in cut)
    relations = sum(len(p.relations or ()) for p in posts)
    lost = [f"{mentions:,} mentions across a cut"] if mentions else []
    if relations:
        lost.append(f"all {relations:,} relations in them")
    yield Finding(
        "warning" if lost else "note",
        "long-posts",
        file.where,
        f"posts longer than {limit} sub-tokens, which are read in pieces: {len(posts):,}"
        + (f"; not learnt: {' and '.join(lost)}" if lost else ""),
        len(posts),
        tuple(p.id for p in posts[:EXAMPLES]),
        "split them yourself, between sentences" if lost else "",
    )


def unknown_words(file: CheckedFile, encoder: TextEncoder) -> Iterator[Finding]:
    """Words that are nothing but [UNK] to the encoder, and the scripts that the posts are written in."""
    unknown = encoder.tokenizer.unk_token_id
    words = [[w.text for w in post.words if _LETTER.search(w.text)] for post in file.posts]
    lost: Counter[str] = Counter()
    for texts, pieces in zip(words, encoder.word_subtokens(words), strict=True):
        lost.update(text for text, ids in zip(texts, pieces, strict=True) if set(ids) == {unknown})
    count = sum(map(len, words))
    if not count or not lost:
        return
    share, scripts = lost.total() / count, _scripts(file.posts)
    if share >= UNKNOWN_WORDS or scripts:
        yield Finding(
            "warning" if share >= UNKNOWN_WORDS else "note",
            "unknown-words",
            file.where,
            f"{share:.1%} of the words with letters are unknown to the encoder"
            + (f"; letters are {scripts}" if scripts else ""),
            lost.total(),
            tuple(f"{word} ({times:,})" for word, times in lost.most_common(EXAMPLES)),
            "choose an encoder for these languages (xlm-roberta-base)" if share >= UNKNOWN_WORDS else "",
        )


def _scripts(posts: Sequence[Post]) -> str:
    """Shares of letters of other scripts than Latin, "" where there are hardly any (under 1 %)."""
    text = "".join(p.text for p in posts)
    letters = len(_LETTER.findall(text))
    if not letters or (letters - len(_LATIN.findall(text))) / letters < 0.01:
        return ""
    counts = {name: len(regex.findall(rf"[\p{{{name}}}&&\p{{L}}]", text, regex.VERSION1)) for name in _SCRIPTS}
    listed = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count / letters:.0%} {name}" for name, count in listed if count / letters >= 0.005)
