"""What a gate reads: rows of features, one a case (sequence level) or one a word (token level).

At a word they are, and for a case their means over its words:

- `post` [H]: the state of its first sub-token (for a case the mean state of all sub-tokens) under the bare encoder;
- `image` [D + 1]: the picture's embedding under the gate's image encoder, and whether there is one;
- `entropy` [M]: of each expert's distribution, in nats;
- `evidence` [5 an expert that reads any]: best score, its lead over the second, number of passages; is the word in
  them, and in their titles;
- `agreement` [2 a pair of experts]: Jensen–Shannon divergence in nats; do they give the same best answer.

Columns of an expert without evidence are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import regex
import torch
from torch import Tensor

from moreie.encoders.batches import Batch, fast_batches, read_together
from moreie.encoders.merging import Reading
from moreie.encoders.precision import autocast
from moreie.encoders.text import TextEncoder, batch_tensors
from moreie.models.crf import IMPOSSIBLE
from moreie.models.expert import Expert
from moreie.models.gate import GateInput, GateSpec
from moreie.models.outputs import ExpertOutputs, Rows
from moreie.schema import Evidence, Passage, Post

EVIDENCE_COLUMNS, PAIR_COLUMNS = 5, 2
_PARTS = regex.compile(r"\w+")


def input_sizes(experts: Sequence[Expert]) -> dict[GateInput, int]:
    """Columns of each input but `image`, whose encoder no expert knows."""
    readers = sum(e.spec.view.retriever is not None for e in experts)
    return {
        "post": experts[0].encoder.hidden_size,
        "entropy": len(experts),
        "evidence": EVIDENCE_COLUMNS * readers,
        "agreement": PAIR_COLUMNS * len(experts) * (len(experts) - 1) // 2,
    }


def gate_features(
    spec: GateSpec,
    experts: Sequence[Expert],
    cases: Sequence[Any],
    evidence: Mapping[str, Rows],
    outputs: ExpertOutputs,
    images: Tensor | None = None,
    states: PostStates | None = None,
) -> Tensor:
    """[R, F]: the inputs of `spec` side by side; R is the number of cases, or at token level of all their words.

    `evidence` maps a retriever to one row a case; `images` [N, D] holds NaN where there is none. `states` remembers
    those of posts between calls.
    """
    words = spec.level == "token"
    lengths = torch.tensor(outputs.lengths if words else [1] * len(cases))
    posts = [experts[0].post_of(case) for case in cases]
    parts = []
    for kind, size in zip(spec.inputs, spec.sizes, strict=True):
        if kind == "post":
            parts.append((states or PostStates())(experts[0].encoder, posts, words=words))
        elif kind == "image":
            found = images if images is not None else torch.full((len(cases), size - 1), torch.nan)
            present = ~found.isnan().any(1, keepdim=True)
            columns = torch.cat([torch.where(present, found, 0.0), present.float()], dim=1)
            parts.append(columns.repeat_interleave(lengths, 0))
        elif kind == "entropy" and not words:
            parts.append(outputs.entropies)
        else:
            if kind == "evidence":
                blocks = _evidence_blocks(experts, posts, evidence)
            else:
                blocks = agreement(outputs) if kind == "agreement" else _entropies(outputs)
            parts.append(torch.cat([b if words else b.mean(0, keepdim=True) for b in blocks]).reshape(-1, size))
    return torch.cat(parts, dim=1) if parts else torch.empty(int(lengths.sum()), 0)


class PostStates:
    """States of bare posts under encoders without adapters. Each post is read once for as long as this object lives,
    however many gates ask and cases it stands in; encoders may not be trained meanwhile.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[TextEncoder, bool], dict[tuple[str, ...], Tensor]] = {}

    def __call__(self, encoder: TextEncoder, posts: Sequence[Post], *, words: bool = False) -> Tensor:
        """[N, H]: mean over a post's sub-tokens; with `words` [R, H]: first sub-token of each word of each post."""
        read_together([self.reading(encoder, posts, words=words)], encoder.device)
        known = self._known[encoder, words]
        asked = [_words_in(post) for post in posts]
        return torch.cat([known[text] for text in asked]) if asked else torch.empty(0, encoder.hidden_size)

    def reading(self, encoder: TextEncoder, posts: Sequence[Post], *, words: bool) -> list[Batch[None]]:
        """Batches that have to be read, of those posts that have not been; behind them their states are known."""
        known = self._known.setdefault((encoder, words), {})
        new = list(dict.fromkeys(text for text in map(_words_in, posts) if text not in known))

        def learn(batch: Batch[Tensor]) -> list[None]:
            known.update(zip((new[place] for place in batch.places), batch.answers(), strict=True))
            return [None] * len(batch.places)

        return [Batch(batch.places, partial(learn, batch)) for batch in _post_states(encoder, new, words)]


def _words_in(post: Post) -> tuple[str, ...]:
    return tuple(word.text for word in post.words)


def _post_states(encoder: TextEncoder, posts: Sequence[Sequence[str]], words: bool) -> list[Batch[Tensor]]:
    """Batches of posts whose answers are [1, H] each, or with `words` [T, H]."""
    pieces = encoder.word_subtokens(posts)
    rows = [encoder.framed([i for piece in post for i in piece]) for post in pieces]
    lead = len(encoder.frame[0])
    if encoder.training:
        encoder.eval()
    device, lengths = encoder.device, [len(row) for row in rows]
    cut = fast_batches(lengths, device)
    reading = Reading(encoder, None, sum(lengths), len(cut))

    @torch.no_grad()
    def read(places: list[int]) -> list[Tensor]:
        ids, mask = batch_tensors([rows[i] for i in places], encoder.tokenizer.pad_token_id or 0)
        ids, mask = ids.to(device), mask.to(device)
        with reading.batch(), autocast(device):
            hidden = encoder(ids, mask).float()
        if not words:
            means = ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).cpu()
            return list(means.split(1))
        found = []
        for states, place in zip(hidden.cpu(), places, strict=True):
            sizes = torch.tensor([len(piece) for piece in pieces[place]])
            found.append(states[lead + sizes.cumsum(0) - sizes])
        return found

    return [Batch(places, partial(read, places)) for places in cut]


def agreement(outputs: ExpertOutputs) -> list[Tensor]:
    """[T, 2 · pairs] of each case: divergence JS(p_a, p_b) and whether the best answers are the same.

    JS(p, q) = (KL(p ‖ m) + KL(q ‖ m)) / 2 with m = (p + q) / 2 (Lin, 1991): symmetric, and at most log 2 however sure
    the experts are.
    """
    pairs = list(combinations(range(len(outputs.names)), 2))
    blocks = []
    for n, length in enumerate(outputs.lengths):
        block = torch.zeros(length, PAIR_COLUMNS * len(pairs))
        for i, (a, b) in enumerate(pairs):
            p, q = outputs.log_probabilities[a][n], outputs.log_probabilities[b][n]
            if p is not None and q is not None:
                p, q = (x.reshape(length, -1).clamp_min(IMPOSSIBLE) for x in (p, q))
                block[:, 2 * i] = jensen_shannon(p, q)
                block[:, 2 * i + 1] = (p.argmax(1) == q.argmax(1)).float()
        blocks.append(block)
    return blocks


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Divergence [...] of log-distributions [..., L], in nats."""
    middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    divergence = ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2
    return divergence.clamp_min(0)


def _entropies(outputs: ExpertOutputs) -> list[Tensor]:
    blocks = []
    for n, length in enumerate(outputs.lengths):
        block = torch.zeros(length, len(outputs.names))
        for m, column in enumerate(outputs.log_probabilities):
            if (p := column[n]) is not None:
                p = p.reshape(length, -1)
                block[:, m] = -(p.exp() * p.clamp_min(IMPOSSIBLE)).sum(1)
        blocks.append(block)
    return blocks


def _evidence_blocks(experts: Sequence[Expert], posts: Sequence[Post], evidence: Mapping[str, Rows]) -> list[Tensor]:
    readers = [e.spec.view for e in experts if e.spec.view.retriever is not None]
    known: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    blocks = []
    for n, post in enumerate(posts):
        block = torch.zeros(len(post.words), EVIDENCE_COLUMNS * len(readers))
        for i, view in enumerate(readers):
            rows = evidence.get(view.retriever or "")
            if rows and rows[n]:
                block[:, EVIDENCE_COLUMNS * i : EVIDENCE_COLUMNS * (i + 1)] = evidence_columns(
                    post, rows[n][: view.k], known
                )
        blocks.append(block)
    return blocks


def evidence_columns(
    post: Post, row: Sequence[Evidence], known: dict[str, tuple[frozenset[str], frozenset[str]]] | None = None
) -> Tensor:
    """[T, 5] of a post and the evidence for it, at least one passage. `known` remembers passages between calls."""
    known = {} if known is None else known
    text: set[str] = set()
    titles: set[str] = set()
    for e in row:
        if e.passage.id not in known:
            known[e.passage.id] = _words_of(e.passage)
        text |= known[e.passage.id][0]
        titles |= known[e.passage.id][1]
    scores = sorted((e.score for e in row), reverse=True)
    lead = scores[0] - scores[1] if len(scores) > 1 else 0.0
    return torch.tensor(
        [(scores[0], lead, len(row), _holds(text | titles, w.text), _holds(titles, w.text)) for w in post.words]
    )


def _words_of(passage: Passage) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(_PARTS.findall(passage.text.casefold())), frozenset(_PARTS.findall(passage.title.casefold()))


def _holds(words: set[str], word: str) -> bool:
    """Are all parts of a word there? `#MTV` has one part, `:-)` none and is never there."""
    parts = _PARTS.findall(word.casefold())
    return bool(parts) and words.issuperset(parts)
