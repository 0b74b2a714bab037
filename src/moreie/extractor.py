"""The Extractor: posts in; entities, relations, confidence and the evidence for them out."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from moreie.attachments import attachable, own_texts, paired
from moreie.attribution import influences
from moreie.batch_answers import Mixtures, Provenance, Said, answer, compared
from moreie.batch_evidence import BatchEvidence, gather_evidence
from moreie.comparison import found_mentions
from moreie.datasets import post_from_text
from moreie.encoders.batches import between_batches
from moreie.encoders.places import relative_name
from moreie.hub import model_folder, publish
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.models.bundle import read_model, write_model
from moreie.models.folder import ExtractorSpec
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.models.windows import POST_LIMIT, Window, cut_windows
from moreie.rendering.progress import tracked
from moreie.retrieval.over_corpus import retrievers_over
from moreie.retrieval.retrieved import Retrieved
from moreie.retrieval.settings import Mode, RetrievalSettings
from moreie.schema import Attribution, Comparison, Evidence, Extraction, Influence, Mention, Post
from moreie.shipped import DEMO_CORPUS, MODEL
from moreie.stages import OnStage, heard_at_the_end, laps, silent

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder

Knowledge = str | Path | KnowledgeCorpus
"""A corpus, or where one is."""
Texts = Sequence[Mapping[str, str]]
"""Of each post its attached texts by name."""


class Extractor:
    """Retrieval, an NER mixture and a relation mixture over one knowledge corpus.

    Texts that belong to a post (a caption of its picture, a language model's knowledge) are evidence where an expert
    reads such (`attachable`): they are given as `attached`, the text by the name of the expert's retriever. A post's
    `caption` need not be given again.

    Without a corpus nothing is retrieved; every answer then says so. A corpus folder that somebody changes is seen in
    its new state from the next batch on. One batch runs at a time: calls from several threads wait for each other.

    Example:
        >>> extractor = Extractor.from_pretrained()                                  # doctest: +SKIP
        >>> print(extractor.extract("Kawhi Leonard wins the fan vote", image="photo.jpg"))  # doctest: +SKIP
    """

    def __init__(
        self,
        ner: Mixture[NerExpert],
        relations: Mixture[RelationExpert] | None,
        *,
        corpus: KnowledgeCorpus | None,
        image_encoder: ImageEncoder | None,
        name: str = "custom",
        k: int = 10,
        image_floor: float = 0.0,
        text_mode: Mode = "sentences",
    ):
        self.text_mode: Mode = text_mode
        self.ner, self.relations, self.name, self.k, self.image_floor = ner, relations, name, k, image_floor
        self.image_encoder = image_encoder
        self._lock = threading.Lock()
        self._use(corpus)

    @property
    def attachable(self) -> tuple[str, ...]:
        """Names of the texts that its experts read and that come with posts, such as `caption` and `knowledge`."""
        return tuple(dict.fromkeys(name for mixture in self._mixtures for name in attachable(mixture)))

    @property
    def _mixtures(self) -> tuple[Mixture[Any], ...]:
        return (self.ner, self.relations) if self.relations else (self.ner,)

    @property
    def _device(self) -> torch.device:
        return self.ner.experts[0].encoder.device

    def _use(self, corpus: KnowledgeCorpus | None) -> None:
        self.corpus = corpus
        settings = RetrievalSettings(mode=self.text_mode, k=self.k)
        self.retrievers = retrievers_over(corpus, settings, self.image_encoder, self.image_floor, self.mentions_alone)

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, *, corpus: Knowledge | None = None, revision: str | None = None
    ) -> Extractor:
        """Load a model folder and open a corpus; without arguments the model and demo corpus that ship with moreie.

        A model folder holds `extractor.json`, or is a run of `moreie train` for NER (then no relations are found).
        Where there is no such folder, `path` is the id of a model on the hub (`org/name`), `revision` a branch, tag or
        commit there; it is downloaded once.

        Raises:
            CheckpointError: the model folder is incomplete, or there is neither a folder nor a model of that id.
            KnowledgeCorpusError: the corpus is not there or damaged.
        """
        return cls._read(path, corpus, revision, pictures=True)

    @classmethod
    def for_texts(
        cls, path: str | Path | None = None, *, corpus: Knowledge | None = None, revision: str | None = None
    ) -> Extractor:
        """As `from_pretrained`, for posts without pictures: there sooner and in less memory, since no image encoder is
        loaded but one that a gate reads. Of a post with a picture the answer says that it was not used; what it saves
        is a model without image encoder."""
        return cls._read(path, corpus, revision, pictures=False)

    @classmethod
    def _read(
        cls, path: str | Path | None, corpus: Knowledge | None, revision: str | None, *, pictures: bool
    ) -> Extractor:
        opened = corpus if isinstance(corpus, KnowledgeCorpus) else KnowledgeCorpus.open(corpus or DEMO_CORPUS)
        model = read_model(model_folder(path, revision) if path is not None else MODEL, pictures=pictures)
        spec = model.spec
        return cls(
            model.ner,
            model.relations,
            corpus=opened,
            image_encoder=model.image_encoder,
            name=spec.name,
            k=spec.k,
            image_floor=spec.image_floor,
            text_mode=spec.text_mode,
        )

    def quantized(self) -> Extractor:
        """The same extractor with its text encoders in 8 bits, for processors; this one stays as it is.

        Faster, and not quite the same answers (docs/performance.md); its extractions say `int8` behind the
        model's name. It needs the compiled kernels (`moreie doctor` says whether they are there), and cannot be saved.

        Raises:
            EncoderError: an encoder is on a GPU, or there are no compiled kernels.
        """
        from moreie.models.int8 import in_int8

        return self._with(in_int8(self._mixtures), f"{self.name} (int8)")

    def selective(self, certainty: float) -> Extractor:
        """The same extractor, but for posts (and pairs of entities) of which the expert without evidence is at least so
        sure no evidence is read: it answers them alone. Faster; this one stays as it is.

        `certainty` is the probability of its answer, of a post's words that of the least certain one. Retrieval is as
        before: evidence is shown, and the gate's weights say that it was not read. Its extractions name the certainty
        behind the model's name. What it gains and changes: docs/performance.md.

        Raises:
            MoreieError: `certainty` is no probability, or a mixture has no expert without evidence.
        """
        return self._with(
            [mixture.selective(certainty) for mixture in self._mixtures], f"{self.name} (certainty {certainty:g})"
        )

    def at_threshold(self, threshold: float) -> Extractor:
        """The same extractor, but entities are the spans that are more probable than `threshold`; this one stays.

        The lower, the more are found; the higher, the fewer are wrong. A trained model has a threshold of its own, half
        of the F1 it has on validation posts, where F1 is expected to be highest. Probabilities are those of the mixture
        before any temperature (docs/method.md). Extractions name the threshold behind the model's name.

        Raises:
            MoreieError: `threshold` is no probability.
        """
        mixtures = [self.ner.at_threshold(threshold), *self._mixtures[1:]]
        return self._with(mixtures, f"{self.name} (threshold {threshold:g})")

    def _with(self, mixtures: Sequence[Mixture[Any]], name: str) -> Extractor:
        """A copy with other mixtures, and a name that says so."""
        other = copy.copy(self)
        other.ner, other.relations = mixtures[0], mixtures[1] if self.relations else None
        other.name = name
        other._lock = threading.Lock()
        other._use(self.corpus)
        return other

    def extract(
        self, post: Post | str, *, image: str | Path | None = None, attached: Mapping[str, str] | None = None
    ) -> Extraction:
        """Extract from one post, given as text (with its picture) or as a `Post`; `attached`: its texts by name.

        Raises:
            MoreieError: no expert reads what is attached.
        """
        return self.extract_batch([_as_post(post, image)], attached=[attached or {}])[0]

    def extract_batch(
        self,
        posts: Sequence[Post],
        *,
        attached: Texts | None = None,
        batch_size: int = 128,
        on_stage: OnStage = silent,
        progress: bool = False,
    ) -> list[Extraction]:
        """Extract from many posts, in their order. `on_stage` hears the seconds each stage of a batch took; those of
        evidence run while posts are read without it, and "evidence, and posts without it" is both together.

        `attached`: the texts of each post by name, as many as there are posts. `progress` shows a bar on stderr where
        that is a terminal or a notebook.

        Raises:
            MoreieError: no expert reads what is attached, or there are more or fewer posts.
        """
        found = self.stream(posts, attached=attached, batch_size=batch_size, on_stage=on_stage)
        return list(tracked(found, "extracting", len(posts)) if progress else found)

    def stream(
        self,
        posts: Iterable[Post],
        *,
        attached: Iterable[Mapping[str, str]] | None = None,
        batch_size: int = 128,
        on_stage: OnStage = silent,
    ) -> Iterator[Extraction]:
        """Extractions as their batches are done; see `extract_batch`."""
        for batch, texts in self._batches(posts, attached, batch_size):
            with heard_at_the_end(on_stage) as heard:
                results = between_batches(partial(self._batch, batch, texts, heard), self._device)
            yield from results

    def compare(
        self, posts: Sequence[Post], *, attached: Texts | None = None, batch_size: int = 128
    ) -> list[Comparison]:
        """Extract from many posts, in their order, with what each expert would answer alone: from the same reading, so
        that it costs hardly more than `extract_batch`.

        Raises:
            MoreieError: no expert reads what is attached, or there are more or fewer posts.
        """
        results: list[Comparison] = []
        for batch, texts in self._batches(posts, attached, batch_size):
            results += between_batches(partial(self._compared, batch, texts), self._device)
        return results

    def attribute(
        self, post: Post | str, *, image: str | Path | None = None, attached: Mapping[str, str] | None = None
    ) -> Attribution:
        """Extract from one post, and say what each passage does for each answer: without it, how sure would that be?

        An expert reads the post again without each of the passages it may read (`models.attribution`), in batches: the
        time of an extraction times the number of passages, about.

        Raises:
            MoreieError: no expert reads what is attached.
        """
        steps = self.attribution_steps(_as_post(post, image), attached=attached)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: Attribution = end.value
                return found

    def attribution_steps(
        self, post: Post, *, attached: Mapping[str, str] | None = None
    ) -> Generator[None, None, Attribution]:
        """As `attribute`, in steps that take hardly longer than a batch of few posts; the generator returns the
        attribution. Between two steps others may extract, and whoever has had enough may leave."""
        with self._lock:
            self._renew()
            windows = self._windows([post])
            found = self._evidence([post], [own_texts(post, attached or {}, self.attachable)], windows)
            (extraction,), _ = self._answers([post], windows, found)
            pieces = influences(Mixtures(self.ner, self.relations), extraction, windows, found)
        gathered: list[Influence] = []
        while True:
            yield
            with self._lock:
                piece = next(pieces, None)
            if piece is None:
                return Attribution(extraction, tuple(gathered))
            gathered += piece

    def retrieve(self, post: Post | str, *, image: str | Path | None = None) -> Retrieved:
        """The evidence that an extraction would have of one post, text first, then picture; no expert is asked, but
        where `text_mode` is iterative. A post without text and with a picture has the picture's alone.

        Raises:
            KnowledgeCorpusError: there is no corpus.
        """
        post = _as_post(post, image)
        with self._lock:
            self._renew()
            return self.retrievers.of_one(post)

    def mentions_alone(self, posts: Sequence[Post]) -> list[list[Mention]]:
        """Entities of each post found without any evidence: the queries of iterative retrieval."""
        windows = self._windows(posts)
        nothing: list[tuple[Evidence, ...]] = [()] * len(windows)
        mixed = self.ner([w.post for w in windows], {"text": nothing, "image": nothing})
        return found_mentions(self.ner, posts, windows, mixed.log_probabilities)

    def _renew(self) -> None:
        """Go over to the corpus' latest state."""
        if self.corpus is not None and (latest := self.corpus.latest()) is not self.corpus:
            self._use(latest)

    def _batches(
        self, posts: Iterable[Post], attached: Iterable[Mapping[str, str]] | None, size: int
    ) -> Iterator[tuple[list[Post], list[dict[str, str]]]]:
        """Posts, `size` at a time, each with its texts by name."""
        known, rest = self.attachable, paired(posts, attached)
        while batch := list(itertools.islice(rest, size)):
            yield [post for post, _ in batch], [own_texts(post, given, known) for post, given in batch]

    # --- one batch ----------------------------------------------------------------------------------------------

    def _batch(self, posts: Sequence[Post], texts: Texts, on_stage: OnStage) -> list[Extraction]:
        with self._lock:
            self._renew()
            lap = laps(on_stage)
            windows = self._windows(posts)
            lap("windows")
            return self._answers(posts, windows, self._evidence(posts, texts, windows, on_stage), on_stage)[0]

    def _compared(self, posts: Sequence[Post], texts: Texts) -> list[Comparison]:
        with self._lock:
            self._renew()
            windows = self._windows(posts)
            extractions, said = self._answers(posts, windows, self._evidence(posts, texts, windows))
            return compared(Mixtures(self.ner, self.relations), posts, windows, extractions, said)

    def _windows(self, posts: Sequence[Post]) -> list[Window]:
        return [w for w in cut_windows(self.ner.experts[0].encoder, posts, POST_LIMIT) if w.post.words]

    def _answers(
        self, posts: Sequence[Post], windows: Sequence[Window], found: BatchEvidence, on_stage: OnStage = silent
    ) -> tuple[list[Extraction], Said]:
        provenance = Provenance(self.name, f"{self.corpus.location}@{self.corpus.version}" if self.corpus else None)
        return answer(Mixtures(self.ner, self.relations), posts, windows, found, provenance, laps(on_stage))

    def _evidence(
        self, posts: Sequence[Post], texts: Texts, windows: Sequence[Window], on_stage: OnStage = silent
    ) -> BatchEvidence:
        return gather_evidence(posts, texts, windows, self._mixtures, self.retrievers, on_stage)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model (not the corpus) as a folder that `from_pretrained` loads, here or on another machine:
        encoders that are folders of this one are copied into it, those of the hub are named."""
        folder = Path(folder)
        spec = ExtractorSpec(
            name=self.name,
            ner="ner",
            relations="relations" if self.relations else None,
            image_encoder=relative_name(self.image_encoder.name, folder) if self.image_encoder else None,
            k=self.k,
            image_floor=self.image_floor,
            text_mode=self.text_mode,
        )
        write_model(folder, spec, self.ner, self.relations)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        revision: str | None = None,
        licence: str | None = None,
        scores: Mapping[str, float] | None = None,
        message: str = "A moreie model",
    ) -> str:
        """Publish the model on the hub as `repo_id` (`org/name`), with a card; returns the address of the commit.

        `private`: seen by you or your organisation only, where the repository is new. `licence` (an identifier of the
        hub's, `apache-2.0`) and `scores` (by name) go into the card, which says so where they are not given.

        Raises:
            HubError: `repo_id` is no id, or the hub is not reached or refuses.
        """
        return publish(
            self, repo_id, private=private, revision=revision, licence=licence, scores=scores, message=message
        )


def _as_post(post: Post | str, image: str | Path | None) -> Post:
    if isinstance(post, str):
        return post_from_text(post, id="post", image=Path(image) if image is not None else None)
    return post if image is None else replace(post, image=Path(image))
