"""Posts longer than an encoder can read, cut into windows of whole words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moreie.encoders.text import TextEncoder
from moreie.schema import Mention, Post

POST_LIMIT = 192
"""Sub-tokens left for a post where its evidence shares the encoder's budget."""
SENTENCE_END = frozenset(".!?…。！？")


@dataclass(frozen=True, slots=True)
class Window:
    """Words `offset … offset + len(post.words)` of the post at index `origin`, as a post of its own.

    A window keeps the character offsets of the whole text. Mentions that straddle two windows are left out of both
    and counted in `straddling`.
    """

    origin: int
    offset: int
    post: Post
    straddling: int = 0

    def holds(self, mention: Mention) -> bool:
        """Does the post's mention lie in the window?"""
        return self.offset <= mention.first and mention.last < self.offset + len(self.post.words)

    def inside(self, mention: Mention) -> Mention:
        """The post's mention by the window's own words; its character offsets stay those in the post."""
        return replace(mention, first=mention.first - self.offset, last=mention.last - self.offset)


def cut_windows(encoder: TextEncoder, posts: Sequence[Post], limit: int) -> list[Window]:
    """Windows of at most `limit` sub-tokens, cut behind a sentence's end where one lies in the last half.

    A post that fits is one window, itself. A single word longer than `limit` is cut down to its first characters.
    """
    lengths = [
        [len(ids) for ids in post] for post in encoder.word_subtokens([[w.text for w in p.words] for p in posts])
    ]
    windows = []
    for origin, (post, sizes) in enumerate(zip(posts, lengths, strict=True)):
        if sum(sizes) <= limit:
            windows.append(Window(origin, 0, post))
            continue
        for first, last in _cuts(post, sizes, limit):
            windows.append(_window(origin, post, first, last, sizes, limit))
    return windows


def _cuts(post: Post, sizes: list[int], limit: int) -> list[tuple[int, int]]:
    cuts = []
    first = 0
    while first < len(sizes):
        last, total = first, min(sizes[first], limit)
        while last + 1 < len(sizes) and total + sizes[last + 1] <= limit:
            last += 1
            total += sizes[last]
        if last + 1 < len(sizes):
            ends = [i for i in range(first + (last - first) // 2, last + 1) if post.words[i].text in SENTENCE_END]
            last = ends[-1] if ends else last
        cuts.append((first, last))
        first = last + 1
    return cuts


def _window(origin: int, post: Post, first: int, last: int, sizes: list[int], limit: int) -> Window:
    words = post.words[first : last + 1]
    if len(words) == 1 and sizes[first] > limit:
        # Each character yields at most a few sub-tokens; a word this long is noise, its head is enough.
        words = (replace(words[0], text=words[0].text[: max(1, limit // 4)]),)
    inside: tuple[Mention, ...] | None = None
    straddling = 0
    if post.mentions is not None:
        inside = tuple(
            replace(m, first=m.first - first, last=m.last - first)
            for m in post.mentions
            if m.first >= first and m.last <= last
        )
        straddling = sum(m.first <= last < m.last for m in post.mentions)
    part = replace(post, id=f"{post.id}#{first}", words=words, mentions=inside, relations=None)
    return Window(origin, first, part, straddling)
