"""The evidence of a batch of posts: retrieved or attached, laid out for the experts, with what posts are to be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moreie.attachments import attached_rows, notices
from moreie.encoders.batches import meanwhile
from moreie.encoders.pictures import NO_PICTURE, EmbeddedImages, embed_pictures
from moreie.models.gate_inputs import PostStates
from moreie.models.mixture import Mixed, Mixture
from moreie.models.outputs import SaidAhead
from moreie.models.windows import Window
from moreie.retrieval.image import ImageRetriever
from moreie.retrieval.over_corpus import Retrievers
from moreie.retrieval.retrieved import Retrieved
from moreie.schema import Evidence, Post
from moreie.stages import OnStage, laps, silent

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder


@dataclass(frozen=True)
class BatchEvidence:
    """Evidence of a batch: rows of windows by task and retriever, warnings of posts, pictures by their encoder."""

    rows: dict[str, dict[str, list[tuple[Evidence, ...]]]]
    evidence: list[tuple[Evidence, ...]]
    warnings: list[list[str]]
    images: dict[str, EmbeddedImages]
    """By the fingerprint of the image encoder."""
    states: PostStates = field(default_factory=PostStates)
    """What gates have read of the posts."""
    ahead: SaidAhead | None = None
    """What the experts for entities have said of the windows before evidence was there."""

    def images_for(self, mixture: Mixture[Any], origins: Sequence[int]) -> Tensor | None:
        """[N, D]: what the mixture's gate reads of the pictures of the posts at `origins`; None where it reads none."""
        if mixture.image_encoder is None:
            return None
        return torch.from_numpy(self.images[mixture.image_encoder.fingerprint].vectors)[list(origins)]


def gather_evidence(
    posts: Sequence[Post],
    texts: Sequence[Mapping[str, str]],
    windows: Sequence[Window],
    mixtures: Sequence[Mixture[Any]],
    retrievers: Retrievers,
    on_stage: OnStage = silent,
) -> BatchEvidence:
    """What the experts of `mixtures` are to read of posts with their attached `texts`, cut into `windows`. While it is
    retrieved, the first mixture reads the posts by themselves; `on_stage` may be called in another thread."""

    def gather() -> BatchEvidence:
        return _gathered(posts, texts, windows, mixtures, retrievers, laps(on_stage))

    if retrievers.text is None and retrievers.image is None:
        return gather()
    states, lap = PostStates(), laps(on_stage)
    found, ahead = meanwhile(gather, lambda: mixtures[0].ahead([w.post for w in windows], states))
    lap("evidence, and posts without it")
    return replace(found, states=states, ahead=ahead)


def _gathered(
    posts: Sequence[Post],
    texts: Sequence[Mapping[str, str]],
    windows: Sequence[Window],
    mixtures: Sequence[Mixture[Any]],
    retrievers: Retrievers,
    lap: Callable[[str], None],
) -> BatchEvidence:
    nothing = Retrieved(())
    text = retrievers.text.retrieve([w.post for w in windows]) if retrievers.text else [nothing] * len(windows)
    lap("text retrieval")
    readers = _picture_readers(mixtures, retrievers.image)
    embedded = {fingerprint: embed_pictures(posts, encoder) for fingerprint, encoder in readers.items()}
    if embedded:
        lap("image encoder")
    images = [nothing] * len(posts)
    if retrievers.image:
        images = retrievers.image.search(embedded[retrievers.image.encoder.fingerprint])
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
        if retrievers.text is None:
            warnings[i].append("no knowledge corpus: nothing was retrieved")
        elif retrievers.image is None and post.image is None:
            warnings[i].append(NO_PICTURE)
        elif retrievers.image is None and not unread:
            unused = "only the gate read the picture" if embedded else "the picture was not used"
            warnings[i].append(f"{unused}: {retrievers.without_image}")
        warnings[i] += [warning for mixture in mixtures for warning in notices(mixture, texts[i])]
    retrieved = {"text": [r.evidence for r in text], "image": [images[w.origin].evidence for w in windows]}
    rows = {}
    for mixture in mixtures:
        attached = attached_rows(mixture, texts)
        for column in attached.values():
            for i, row in enumerate(column):
                # Entities and relations may read the same text.
                evidence[i] += [e for e in row if e not in evidence[i]]
        of_windows = {name: [column[w.origin] for w in windows] for name, column in attached.items()}
        rows[mixture.experts[0].spec.task] = retrieved | of_windows
    return BatchEvidence(rows, [tuple(e) for e in evidence], warnings, embedded)


def _picture_readers(mixtures: Sequence[Mixture[Any]], image: ImageRetriever | None) -> dict[str, ImageEncoder]:
    """By fingerprint: the image encoders of image retrieval and of gates that read pictures."""
    encoders = [image.encoder if image else None, *(m.image_encoder for m in mixtures)]
    return {encoder.fingerprint: encoder for encoder in encoders if encoder is not None}


def dropped_passages(mixture: Mixture[Any], mixed: Mixed, windows: Sequence[Window]) -> Iterator[tuple[int, str]]:
    """(place of a post, warning) for each expert and window whose budget had no room for some passages."""
    for m, expert in enumerate(mixture.experts):
        view = expert.spec.view
        for n, window in enumerate(windows):
            if count := mixed.outputs.dropped[m][n]:
                yield (
                    window.origin,
                    f"evidence dropped: {count} {view.retriever} passages found no room in the {view.budget} "
                    f"sub-tokens of the {expert.spec.name} expert",
                )
