"""What of a post becomes the BM25 query.

Function words, URLs and lone signs carry nothing but noise into BM25 over tweets; capitalised words are mostly what
a post is about and count twice. On the Twitter-2017 validation posts (408 k articles, k = 10) the share of gold
mentions whose text occurs in a retrieved paragraph is 0.588 for the raw text, 0.602 without function words, 0.628 with
hashtags split and capitalised words doubled; queries run twice as fast as raw ones (`benchmarks/query_analysis.py`).
"""

from __future__ import annotations

import regex

from moreie.retrieval.stop_words import STOP_WORDS
from moreie.schema import Post

# Words of one query: a long text is asked about by its beginning.
QUERY_WORDS = 64
_WORDLIKE = regex.compile(r"\w\w")
_HAS_IDEOGRAPH = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]")
_CASE_CHANGE = regex.compile(r"(?<=\p{Ll})(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})|(?<=\p{L})(?=\d)|(?<=\d)(?=\p{L})")


def post_query(post: Post) -> str:
    """The query of a post; empty where it has no content word."""
    content, names = [], []
    for word in (w.text for w in post.words):
        if word.startswith("http") or not (_WORDLIKE.search(word) or _HAS_IDEOGRAPH.search(word)):
            continue
        acronym = len(word) > 1 and word.isupper()  # UN and US are no function words
        if word in ("RT", "amp") or (word.lower() in STOP_WORDS and not acronym):
            continue
        parts = split_case(word)
        content.append(word if len(parts) == 1 else f"{word} {' '.join(parts)}")
        if word[0].isupper():
            names.append(" ".join(parts))
        if len(content) == QUERY_WORDS:
            break
    return " ".join([*content, *names])


def split_case(word: str) -> list[str]:
    """`BlackLivesMatter2016` → Black, Lives, Matter, 2016."""
    return [part for part in _CASE_CHANGE.split(word) if part]
