"""Text retrieval: BM25 over sentences gives paragraphs (paper, §3.1.1); captions find article introductions."""

from __future__ import annotations

from collections.abc import Sequence

from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.query import post_query
from moreie.retrieval.retrieved import Retrieved, ranked
from moreie.schema import Post


class TextRetriever:
    """The post is the query, sentences are matched, the paragraphs around them come back."""

    name = "text"

    def __init__(self, corpus: KnowledgeCorpus, k: int = 10):
        self.corpus, self.k = corpus, k

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        """k distinct paragraphs a post, all posts in one batch."""
        found = self.corpus.search_sentences([post_query(post) for post in posts], self.k)
        return [Retrieved(ranked(hits, self.name), () if hits else ("no text evidence found",)) for hits in found]


class CaptionRetriever:
    """The caption of the post's picture is the query, and only introductions are searched.

    It stands in for image retrieval where a data set's pictures are not to be had but captions are; its evidence has
    the same form (title and introduction) and the same name, so that an image expert can read either.
    """

    name = "image"

    def __init__(self, corpus: KnowledgeCorpus, k: int = 10):
        self.corpus, self.k = corpus, k

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        """k introductions a post, all posts in one batch."""
        queries = [post.caption or "" for post in posts]
        found = self.corpus.search_sentences(queries, self.k, introductions_only=True)
        return [
            Retrieved(
                ranked(hits, self.name),
                () if hits else ("no caption" if not query else "no evidence found for the caption",),
            )
            for hits, query in zip(found, queries, strict=True)
        ]
