"""From raw text to words with character offsets, and posts from either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import regex

from moreie.schema import Post, Word

# In order: a URL; a flag or an emoji with its modifiers and joiners; one ideograph, kana or Thai letter at a time
# (scripts without spaces); letters with their marks, digits and inner apostrophe-less joins; any other single sign.
_WORD = regex.compile(
    r"https?://\S+"
    r"|\p{RI}\p{RI}"
    r"|\p{Extended_Pictographic}[\uFE0F\u20E3\p{EMod}]*(?:\u200D\p{Extended_Pictographic}[\uFE0F\p{EMod}]*)*"
    r"|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]\p{M}*"
    r"|(?:[\p{L}\p{N}_--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]][\p{M}\u200C\u200D]*)+"
    r"|\S",
    regex.VERSION1,
)


def split_words(text: str) -> tuple[Word, ...]:
    """Words of raw text, as the Twitter-2017 annotation has them: `@` and `#` apart, punctuation sign by sign.

    Offsets are exact: `text[w.start:w.end] == w.text`; everything but white space belongs to a word.
    """
    return tuple(Word(m.group(), m.start(), m.end()) for m in _WORD.finditer(text))


def post_from_text(text: str, *, id: str, image: Path | None = None, caption: str | None = None) -> Post:
    """A post from raw text, split by `split_words`."""
    return Post(id, text, split_words(text), image=image, caption=caption)


def post_from_words(
    words: Sequence[str],
    *,
    id: str,
    image: Path | None = None,
    image_id: str | None = None,
    caption: str | None = None,
) -> Post:
    """A post from pre-split words; its text is the words joined by single spaces."""
    placed = []
    start = 0
    for word in words:
        placed.append(Word(word, start, start + len(word)))
        start += len(word) + 1
    return Post(id, " ".join(words), tuple(placed), image=image, image_id=image_id, caption=caption)
