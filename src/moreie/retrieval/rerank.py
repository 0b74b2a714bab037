"""Re-ranking: a model reads post and passage and says how well they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from moreie.encoders import packing
from moreie.encoders.precision import autocast, default_device
from moreie.errors import EncoderError
from moreie.knowledge.passages import titled
from moreie.retrieval.retrieved import Retrieved, Retriever, ranked
from moreie.schema import Passage, Post

LONGEST_INPUT = 256  # sub-tokens of post and passage together, or of either alone


class Scorer(Protocol):
    """Scores pairs of a post's text and a passage; more is better."""

    def score(self, pairs: Sequence[tuple[str, Passage]]) -> list[float]: ...


class CrossEncoder:
    """A sequence classifier that reads both texts at once (hub ids such as `cross-encoder/ms-marco-MiniLM-L6-v2`)."""

    def __init__(self, model: Any, tokenizer: Any, device: torch.device | str | None = None):
        self.device = torch.device(device) if device else default_device()
        self.model, self.tokenizer = model.eval().to(self.device), tokenizer

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> CrossEncoder:
        """Raises `EncoderError` where no classifier can be loaded."""
        name = str(name_or_path)
        try:
            model = AutoModelForSequenceClassification.from_pretrained(name)
            return cls(model, AutoTokenizer.from_pretrained(name))  # type: ignore[no-untyped-call]
        except (OSError, ValueError, RuntimeError) as problem:
            raise EncoderError(f"no cross-encoder at {name!r}: {str(problem).splitlines()[0]}") from problem

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[str, Passage]], *, batch_size: int = 32) -> list[float]:
        """The relevance logit of each pair; of two classes the second one's."""
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1].text))
        scores = [0.0] * len(pairs)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = self.tokenizer(
                [pairs[i][0] for i in batch],
                [_text(pairs[i][1]) for i in batch],
                truncation="only_second",
                max_length=LONGEST_INPUT,
                padding=True,
                return_tensors="pt",
            ).to(self.device)
            with autocast(self.device):
                logits = self.model(**inputs).logits.float()
            for i, value in zip(batch, logits[:, -1].tolist(), strict=True):
                scores[i] = value
        return scores


class SentenceSimilarity:
    """Cosine of mean-pooled sentence embeddings (as of all-MiniLM-L6-v2, which ships with moreie); each text is read
    once."""

    def __init__(self, model: Any, tokenizer: Any, device: torch.device | str | None = None):
        self.device = torch.device(device) if device else default_device()
        self.model, self.tokenizer = model.eval().to(self.device), tokenizer

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> SentenceSimilarity:
        """Raises `EncoderError` where no encoder can be loaded."""
        name = str(name_or_path)
        try:
            if (Path(name) / packing.FILE).is_file():
                from transformers import AutoConfig

                model = AutoModel.from_config(AutoConfig.from_pretrained(name))  # type: ignore[no-untyped-call]
                model.load_state_dict(packing.load_packed(Path(name)), strict=False)
            else:
                model = AutoModel.from_pretrained(name, dtype=torch.float32)
            return cls(model, AutoTokenizer.from_pretrained(name))  # type: ignore[no-untyped-call]
        except (OSError, ValueError, RuntimeError) as problem:
            raise EncoderError(f"no sentence encoder at {name!r}: {str(problem).splitlines()[0]}") from problem

    def score(self, pairs: Sequence[tuple[str, Passage]]) -> list[float]:
        """Cosine similarity of each pair."""
        texts = list(dict.fromkeys([*(post for post, _ in pairs), *(_text(passage) for _, passage in pairs)]))
        rows = {text: i for i, text in enumerate(texts)}
        vectors = self._embed(texts)
        left = vectors[[rows[post] for post, _ in pairs]]
        right = vectors[[rows[_text(passage)] for _, passage in pairs]]
        return (left * right).sum(1).tolist()  # type: ignore[no-any-return]

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str], batch_size: int = 64) -> torch.Tensor:
        vectors = torch.zeros(len(texts), self.model.config.hidden_size)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = self.tokenizer(
                [texts[i] for i in batch],
                truncation=True,
                max_length=LONGEST_INPUT,
                padding=True,
                return_tensors="pt",
            ).to(self.device)
            with autocast(self.device):
                states = self.model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(1) / mask.sum(1)
            vectors[batch] = torch.nn.functional.normalize(means, dim=1).cpu()
        return vectors


def _text(passage: Passage) -> str:
    return titled(passage.title, passage.text)


@dataclass(frozen=True)
class Reranked:
    """Another retriever's evidence in the order of a scorer, the best k of it.

    Give the retriever a larger k than this one: what it does not find cannot be ranked up.
    """

    retriever: Retriever
    scorer: Scorer
    k: int = 10

    @property
    def name(self) -> str:
        return self.retriever.name

    def retrieve(self, posts: Sequence[Post]) -> list[Retrieved]:
        found = self.retriever.retrieve(posts)
        pairs = [(post.text, e.passage) for post, r in zip(posts, found, strict=True) for e in r.evidence]
        scores = iter(self.scorer.score(pairs) if pairs else [])
        results = []
        for r in found:
            scored = sorted(((e.passage, next(scores)) for e in r.evidence), key=lambda item: -item[1])
            results.append(Retrieved(ranked(scored[: self.k], self.name), r.warnings))
        return results
