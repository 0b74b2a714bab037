"""Words as the text index knows them: split at white space and punctuation, lower case, accents folded; no stemming,
no stop words, none of 40 bytes or more.

The embedded engine splits a text itself. For another engine a text is rewritten as its words, each in ASCII letters and
digits, which every analyzer leaves whole.
"""

from __future__ import annotations

import re
from typing import TypedDict

from moreie.knowledge.stores.lance import lancedb


class _Analysis(TypedDict):
    base_tokenizer: str
    max_token_length: int
    lower_case: bool
    ascii_folding: bool
    stem: bool
    remove_stop_words: bool


ANALYSIS = _Analysis(
    base_tokenizer="simple",
    max_token_length=40,
    lower_case=True,
    ascii_folding=True,
    stem=False,
    remove_stop_words=False,
)
# What an analyzer might split, drop or rewrite: all but ASCII letters and digits; and the letter that marks it.
_MARKED = re.compile(r"[^a-pr-z0-9\n]+")


def words(text: str) -> list[str]:
    """The words of a text as the embedded engine indexes them, repetitions included."""
    return [token.text for token in lancedb.tokenize(text, **ANALYSIS)]


def plain_words(text: str) -> str:
    """The words of a text in ASCII letters and digits, a space between them; the same word is written the same way, and
    only the same word: `Beyoncé's 東京` → `beyonce s qe69db1e4baacq`."""
    return _MARKED.sub(_hexadecimal, "\n".join(words(text))).replace("\n", " ")


def _hexadecimal(run: re.Match[str]) -> str:
    return f"q{run[0].encode().hex()}q"
