"""The Extractor: posts in; entities, relations, confidence and the evidence for them out."""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreie.attachments import attachable, attached_rows, notices, own_texts, paired
from moreie.attribution import influences_on_mentions, influences_on_relations
from moreie.datasets import post_from_text
from moreie.encoders.images import ImageEncoder
from moreie.encoders.pictures import NO_PICTURE, EmbeddedImages, embed_pictures
from moreie.encoders.places import located, relative_name
from moreie.encoders.precision import default_device
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.models.expert import EncoderPool
from moreie.models.folder import EXTRACTOR_FILE, ExtractorSpec, read_extractor_spec
from moreie.models.mixture import Mixed, Mixture, decode_tags, load_mixture, span_confidence
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.models.temperature import scaled
from moreie.models.windows import Window, cut_windows
from moreie.pairs import asked_pairs, chosen_relations
from moreie.retrieval.image import ImageRetriever
from moreie.retrieval.retrieved import Retrieved
from moreie.retrieval.settings import Mode, RetrievalSettings
from moreie.schema import (
    Attribution,
    Evidence,
    Extraction,
    GateWeights,
    Mention,
    Post,
    Relation,
)
from moreie.shipped import DEMO_CORPUS, MODEL
from moreie.training.data import POST_LIMIT


@dataclass(frozen=True)
class _Found:
    """Evidence of a batch: rows of windows by task and retriever, warnings of posts, pictures by their encoder."""

    rows: dict[str, dict[str, list[tuple[Evidence, ...]]]]
    evidence: list[tuple[Evidence, ...]]
    warnings: list[list[str]]
    images: dict[str, EmbeddedImages]
    """By the fingerprint of the image encoder."""

    def images_for(self, mixture: Mixture[Any], origins: Sequence[int]) -> Tensor | None:
        """[N, D]: what the mixture's gate reads of the pictures of the posts at `origins`; None where it reads none."""
        if mixture.image_encoder is None:
            return None
        return torch.from_numpy(self.images[mixture.image_encoder.fingerprint].vectors)[list(origins)]


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

    def _use(self, corpus: KnowledgeCorpus | None) -> None:
        self.corpus = corpus
        settings = RetrievalSettings(mode=self.text_mode, k=self.k)
        self.text_retriever = settings.retriever(corpus, self.mentions_alone) if corpus else None
        self._image = None
        if corpus and self.image_encoder and corpus.manifest.image_encoder and corpus.manifest.images:
            if corpus.manifest.image_encoder.fingerprint != self.image_encoder.fingerprint:
                corpus.search_images(
                    np.zeros((0, 1), np.float32), 1, encoder_fingerprint=self.image_encoder.fingerprint
                )  # raises, and says which encoder is needed
            self._image = ImageRetriever(corpus, self.image_encoder, self.k, self.image_floor)

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, *, corpus: str | Path | KnowledgeCorpus | None = None
    ) -> Extractor:
        """Load a model folder and open a corpus; without arguments the model and demo corpus that ship with moreie.

        A model folder holds `extractor.json`, or is a run of `moreie train` for NER (then no relations are found).

        Raises:
            CheckpointError: the model folder is incomplete.
            KnowledgeCorpusError: the corpus is not there or damaged.
        """
        folder = Path(path) if path is not None else MODEL
        spec = read_extractor_spec(folder)
        pool = EncoderPool(default_device())
        opened = corpus if isinstance(corpus, KnowledgeCorpus) else KnowledgeCorpus.open(corpus or DEMO_CORPUS)
        encoder = pool.image_encoder(located(spec.image_encoder, folder)) if spec.image_encoder else None
        return cls(
            load_mixture(folder / spec.ner, pool),
            load_mixture(folder / spec.relations, pool) if spec.relations else None,
            corpus=opened,
            image_encoder=encoder,
            name=spec.name,
            k=spec.k,
            image_floor=spec.image_floor,
            text_mode=spec.text_mode,
        )

    def quantized(self) -> Extractor:
        """The same extractor with its text encoders in 8 bits, for processors; this one stays as it is.

        About twice as fast, and not quite the same answers (docs/performance.md); its extractions say `int8` behind the
        model's name. Making it takes seconds. It needs the extra `onnx`, and cannot be saved.

        Raises:
            EncoderError: an encoder is on a GPU, or has no ONNX form.
            MissingExtraError: the extra is not installed.
        """
        from moreie.models.int8 import in_int8

        mixtures = in_int8(self._mixtures)
        small = copy.copy(self)
        small.ner, small.relations = mixtures[0], mixtures[1] if self.relations else None
        small.name = f"{self.name} (int8)"
        small._lock = threading.Lock()
        small._use(self.corpus)
        return small

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
        attached: Sequence[Mapping[str, str]] | None = None,
        batch_size: int = 64,
        on_stage: Callable[[str, float], None] = lambda stage, seconds: None,
    ) -> list[Extraction]:
        """Extract from many posts, in their order. `on_stage` hears the seconds each stage of a batch took.

        `attached`: the texts of each post by name, as many as there are posts.

        Raises:
            MoreieError: no expert reads what is attached, or there are more or fewer posts.
        """
        return list(self.stream(posts, attached=attached, batch_size=batch_size, on_stage=on_stage))

    def stream(
        self,
        posts: Iterable[Post],
        *,
        attached: Iterable[Mapping[str, str]] | None = None,
        batch_size: int = 64,
        on_stage: Callable[[str, float], None] = lambda stage, seconds: None,
    ) -> Iterator[Extraction]:
        """Extractions as their batches are done; see `extract_batch`."""
        iterator = paired(posts, attached)
        while batch := list(itertools.islice(iterator, batch_size)):
            with self._lock:
                self._renew()
                known = self.attachable
                texts = [own_texts(post, given, known) for post, given in batch]
                results = self._batch([post for post, _ in batch], texts, on_stage)
            yield from results

    def attribute(
        self, post: Post | str, *, image: str | Path | None = None, attached: Mapping[str, str] | None = None
    ) -> Attribution:
        """Extract from one post, and say what each passage does for each answer: without it, how sure would that be?

        An expert reads the post again without each of the passages it may read (`models.attribution`), in batches: the
        time of an extraction times the number of passages, about.

        Raises:
            MoreieError: no expert reads what is attached.
        """
        post = _as_post(post, image)
        with self._lock:
            self._renew()
            windows = self._windows([post])
            found = self._evidence([post], [own_texts(post, attached or {}, self.attachable)], windows, _silent)
            (extraction,) = self._answers([post], windows, found, _silent)
            origins = [w.origin for w in windows]
            images = found.images_for(self.ner, origins)
            influences = [*influences_on_mentions(self.ner, extraction, windows, found.rows["ner"], images)]
            if self.relations is not None:
                images = found.images_for(self.relations, origins)
                influences += influences_on_relations(self.relations, extraction, windows, found.rows["re"], images)
        return Attribution(extraction, tuple(influences))

    def mentions_alone(self, posts: Sequence[Post]) -> list[list[Mention]]:
        """Entities of each post found without any evidence: the queries of iterative retrieval."""
        windows = self._windows(posts)
        nothing: list[tuple[Evidence, ...]] = [()] * len(windows)
        return self._mentions(posts, windows, self.ner([w.post for w in windows], {"text": nothing, "image": nothing}))

    def _renew(self) -> None:
        """Go over to the corpus' latest state."""
        if self.corpus is not None and (latest := self.corpus.latest()) is not self.corpus:
            self._use(latest)

    # --- one batch ----------------------------------------------------------------------------------------------

    def _batch(
        self, posts: Sequence[Post], texts: Sequence[Mapping[str, str]], on_stage: Callable[[str, float], None]
    ) -> list[Extraction]:
        clock = time.perf_counter()

        def lap(stage: str) -> None:
            nonlocal clock
            now = time.perf_counter()
            on_stage(stage, now - clock)
            clock = now

        windows = self._windows(posts)
        lap("windows")
        return self._answers(posts, windows, self._evidence(posts, texts, windows, lap), lap)

    def _windows(self, posts: Sequence[Post]) -> list[Window]:
        return [w for w in cut_windows(self.ner.experts[0].encoder, posts, POST_LIMIT) if w.post.words]

    def _answers(
        self, posts: Sequence[Post], windows: Sequence[Window], found: _Found, lap: Callable[[str], None]
    ) -> list[Extraction]:
        origins = [w.origin for w in windows]
        mixed = self.ner([w.post for w in windows], found.rows["ner"], found.images_for(self.ner, origins))
        lap("entity experts")
        mentions = self._mentions(posts, windows, mixed)
        lap("decoding")
        relations, relation_gate, relation_notes = self._relations(posts, windows, mentions, found)
        lap("relation experts")
        entity_gate = _mean_weights(self.ner.names, mixed.weights, origins, len(posts))
        for note_index, note in [*self._dropped(self.ner, mixed, windows), *relation_notes]:
            found.warnings[note_index].append(note)
        results = []
        for i, post in enumerate(posts):
            own = [w for w in windows if w.origin == i]
            if not own:
                found.warnings[i].insert(0, "the text is empty: nothing to extract")
            elif len(own) > 1:
                found.warnings[i].append(f"long text: read in {len(own)} windows; relations are sought within each")
            results.append(
                Extraction(
                    id=post.id,
                    text=post.text,
                    mentions=tuple(mentions[i]),
                    relations=tuple(relations[i]),
                    evidence=found.evidence[i],
                    gate=GateWeights(entity_gate[i], relation_gate[i]),
                    warnings=tuple(dict.fromkeys(found.warnings[i])),
                    model=self.name,
                    corpus=f"{self.corpus.location}@{self.corpus.version}" if self.corpus else None,
                    image=post.image,
                    words=post.words,
                )
            )
        return results

    def _evidence(
        self,
        posts: Sequence[Post],
        texts: Sequence[Mapping[str, str]],
        windows: Sequence[Window],
        lap: Callable[[str], None],
    ) -> _Found:
        nothing = Retrieved(())
        text = (
            self.text_retriever.retrieve([w.post for w in windows]) if self.text_retriever else [nothing] * len(windows)
        )
        lap("text retrieval")
        readers = self._picture_readers()
        embedded = {fingerprint: embed_pictures(posts, encoder) for fingerprint, encoder in readers.items()}
        if embedded:
            lap("image encoder")
        images = [nothing] * len(posts)
        if self._image:
            images = self._image.search(embedded[self._image.encoder.fingerprint])
            lap("image retrieval")
        warnings: list[list[str]] = [[] for _ in posts]
        evidence: list[list[Evidence]] = [[] for _ in posts]
        for window, own in zip(windows, text, strict=True):
            warnings[window.origin] += own.warnings
            evidence[window.origin] += own.evidence
        for i, post in enumerate(posts):
            evidence[i] += images[i].evidence
            warnings[i] += images[i].warnings
            unread = [warning for pictures in embedded.values() for warning in pictures.warnings[i]]
            warnings[i] += unread
            if self.corpus is None:
                warnings[i].append("no knowledge corpus: nothing was retrieved")
            elif self._image is None and post.image is None:
                warnings[i].append(NO_PICTURE)
            elif self._image is None and not unread:
                unused = "only the gate read the picture" if embedded else "the picture was not used"
                warnings[i].append(f"{unused}: the corpus holds no images")
            warnings[i] += [warning for mixture in self._mixtures for warning in notices(mixture, texts[i])]
        retrieved = {"text": [r.evidence for r in text], "image": [images[w.origin].evidence for w in windows]}
        rows = {}
        for mixture in self._mixtures:
            attached = attached_rows(mixture, texts)
            for column in attached.values():
                for i, row in enumerate(column):
                    # Entities and relations may read the same text.
                    evidence[i] += [e for e in row if e not in evidence[i]]
            of_windows = {name: [column[w.origin] for w in windows] for name, column in attached.items()}
            rows[mixture.experts[0].spec.task] = retrieved | of_windows
        return _Found(rows, [tuple(e) for e in evidence], warnings, embedded)

    def _picture_readers(self) -> dict[str, ImageEncoder]:
        """By fingerprint: the image encoders of image retrieval and of gates that read pictures."""
        encoders = [self._image.encoder if self._image else None, *(m.image_encoder for m in self._mixtures)]
        return {encoder.fingerprint: encoder for encoder in encoders if encoder is not None}

    def _mentions(self, posts: Sequence[Post], windows: Sequence[Window], mixed: Mixed) -> list[list[Mention]]:
        tagset = self.ner.experts[0].tagset
        mentions: list[list[Mention]] = [[] for _ in posts]
        paths = decode_tags(tagset, mixed.log_probabilities)
        for window, path, log_p in zip(windows, paths, mixed.log_probabilities, strict=True):
            sure = scaled(log_p, self.ner.temperature)
            for type, first, last in tagset.spans(path):
                confidence = span_confidence(sure, path, first, last)
                post = posts[window.origin]
                mentions[window.origin].append(
                    post.mention(type, first + window.offset, last + window.offset, confidence)
                )
        return mentions

    def _relations(
        self, posts: Sequence[Post], windows: Sequence[Window], mentions: Sequence[Sequence[Mention]], found: _Found
    ) -> tuple[list[list[Relation]], list[dict[str, float]], list[tuple[int, str]]]:
        if self.relations is None:
            return [[] for _ in posts], [{} for _ in posts], []
        asked = asked_pairs(windows, mentions, self.relations.labels)
        if not asked.triples:
            return [[] for _ in posts], [{} for _ in posts], list(asked.notes)
        rows = {name: [column[w] for w in asked.windows] for name, column in found.rows["re"].items()}
        origins = [origin for origin, _, _ in asked.places]
        mixed = self.relations(asked.triples, rows, found.images_for(self.relations, origins))
        relations = chosen_relations(self.relations, asked, mixed.log_probabilities, len(posts))
        return relations, _mean_weights(self.relations.names, mixed.weights, origins, len(posts)), list(asked.notes)

    def _dropped(self, mixture: Mixture[Any], mixed: Mixed, windows: Sequence[Window]) -> Iterator[tuple[int, str]]:
        for m, expert in enumerate(mixture.experts):
            view = expert.spec.view
            for n, window in enumerate(windows):
                if count := mixed.outputs.dropped[m][n]:
                    yield (
                        window.origin,
                        f"evidence dropped: {count} {view.retriever} passages found no room in the {view.budget} "
                        f"sub-tokens of the {expert.spec.name} expert",
                    )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model (not the corpus) as a folder that `from_pretrained` loads."""
        folder = Path(folder)
        mixtures: list[tuple[str, Mixture[Any]]] = [("ner", self.ner)]
        if self.relations:
            mixtures.append(("relations", self.relations))
        for task, mixture in mixtures:
            for expert in mixture.experts:
                expert.save(folder / task / expert.spec.name)
            mixture.save_spec(folder / task, mixture.names, {})
        spec = ExtractorSpec(
            name=self.name,
            ner="ner",
            relations="relations" if self.relations else None,
            image_encoder=relative_name(self.image_encoder.name, folder) if self.image_encoder else None,
            k=self.k,
            image_floor=self.image_floor,
            text_mode=self.text_mode,
        )
        (folder / EXTRACTOR_FILE).write_text(spec.model_dump_json(indent=2) + "\n")


def _as_post(post: Post | str, image: str | Path | None) -> Post:
    if isinstance(post, str):
        return post_from_text(post, id="post", image=Path(image) if image is not None else None)
    return post if image is None else replace(post, image=Path(image))


def _silent(stage: str) -> None:
    """Nobody wants to hear how long a stage took."""


def _mean_weights(names: Sequence[str], weights: Tensor, origins: Sequence[int], posts: int) -> list[dict[str, float]]:
    """Each post's mean gate weights over its windows or pairs; empty where it has none."""
    totals = torch.zeros(posts, len(names))
    counts = torch.zeros(posts)
    index = torch.tensor(list(origins), dtype=torch.long)
    totals.index_add_(0, index, weights)
    counts.index_add_(0, index, torch.ones(len(index)))
    return [dict(zip(names, (totals[i] / counts[i]).tolist(), strict=True)) if counts[i] else {} for i in range(posts)]
