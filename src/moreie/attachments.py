"""Texts that come with posts as evidence of an Extractor's experts, in the form they were trained on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from moreie.errors import MoreieError
from moreie.models.mixture import Mixture
from moreie.retrieval.attached import attached_evidence
from moreie.schema import Evidence, Post

# Evidence that an Extractor finds itself; whatever else experts read is attached to posts.
RETRIEVED = ("text", "image")
CAPTION = "caption"


def paired(
    posts: Iterable[Post], attached: Iterable[Mapping[str, str]] | None
) -> Iterator[tuple[Post, Mapping[str, str]]]:
    """Posts with their texts.

    Raises:
        MoreieError: one of the two ends before the other.
    """
    if attached is None:
        yield from ((post, {}) for post in posts)
        return
    for number, (post, texts) in enumerate(itertools.zip_longest(posts, attached)):
        if post is None or texts is None:
            more = "posts than mappings" if texts is None else "mappings than posts"
            raise MoreieError(
                f"attached: one mapping a post is needed ({{}} for none), but there are more {more} ({number})"
            )
        yield post, texts


def attachable(mixture: Mixture[Any]) -> list[str]:
    """Retrievers of its experts whose evidence comes with posts."""
    retrievers = (e.spec.view.retriever for e in mixture.experts)
    return [name for name in dict.fromkeys(retrievers) if name is not None and name not in RETRIEVED]


def attached_rows(mixture: Mixture[Any], texts: Sequence[Mapping[str, str]]) -> dict[str, list[tuple[Evidence, ...]]]:
    """By retriever a row a post, in the form that the mixture's experts were trained on."""
    return {
        name: attached_evidence([own.get(name, "") for own in texts], name, mixture.titles.get(name, ""))
        for name in attachable(mixture)
    }


def notices(mixture: Mixture[Any], texts: Mapping[str, str]) -> Iterator[str]:
    """What is to be said of experts that read what comes with posts."""
    for expert in mixture.experts:
        name, retriever = expert.spec.name, expert.spec.view.retriever
        if retriever is None or retriever in RETRIEVED:
            continue
        if retriever not in texts:
            yield (
                f"the {name} expert was left out: it reads {retriever} evidence, which is not retrieved, and none was "
                "attached to the post"
            )
        elif retriever not in mixture.titles:
            yield (
                f"the model does not say which title the {name} expert read before each {retriever} in training: none "
                "was given; `moreie train` given again notes it"
            )


def own_texts(post: Post, attached: Mapping[str, str], known: Sequence[str]) -> dict[str, str]:
    """The texts of a post by the name of their retriever, those that are not empty; `known`: what experts read.

    `attached` goes before the post's own caption, which is read under the name `caption`.

    Raises:
        MoreieError: `attached` has a name that is not known.
    """
    if unknown := [name for name in attached if name not in known]:
        reads = f"they read {', '.join(known)}" if known else "they read retrieved evidence only"
        raise MoreieError(f"post {post.id}: no expert of the model reads attached {unknown[0]!r}; {reads}")
    texts = {CAPTION: post.caption or ""} if CAPTION in known else {}
    return {name: text.strip() for name, text in {**texts, **attached}.items() if text.strip()}
