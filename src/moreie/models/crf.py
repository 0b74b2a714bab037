"""Linear-chain conditional random field, exact and vectorised over the batch.

Notation: B posts, T words (padded), L tags. `lengths` [B] counts the real words of each post (every one >= 1);
whatever stands in `emissions` behind them is ignored. Every function works in the dtype of its inputs, and all but
`viterbi` are differentiable; the module keeps float32. Scores of impossible tags or transitions are `IMPOSSIBLE`, not
-inf, so that gradients stay finite.

`plain_...` say in torch operations, in log-space, what is computed. The same comes from compiled kernels on the CPU
(`models.crf_kernels`), of tensors on a GPU too: emissions are kilobytes, and a GPU takes longer to start a loop over
words than they are under way. Where no kernels were built, and for posts whose scores lie further apart than the
kernels can hold, it comes from the plain functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from moreie.models import crf_kernels as kernels

IMPOSSIBLE = -1e4


def log_score(
    emissions: Tensor, tags: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> Tensor:
    """Unnormalised log-score [B] of the tag paths `tags` [B, T] under `emissions` [B, T, L]."""
    steps = torch.arange(tags.shape[1], device=tags.device)
    real = steps[None, :] < lengths[:, None]
    tags = torch.where(real, tags, 0)
    emitted = emissions.gather(2, tags[..., None])[..., 0]
    moved = transitions[tags[:, :-1], tags[:, 1:]]
    last = tags.gather(1, (lengths - 1)[:, None])[:, 0]
    emitted, moved = torch.where(real, emitted, 0), torch.where(real[:, 1:], moved, 0)
    return emitted.sum(1) + moved.sum(1) + start[tags[:, 0]] + end[last]


def _real(emissions: Tensor, lengths: Tensor) -> Tensor:
    """Emissions with 0 behind each post's last word, so that what stood there reaches no gradient either."""
    steps = torch.arange(emissions.shape[1], device=emissions.device)
    return torch.where((steps[None, :] < lengths[:, None])[..., None], emissions, 0)


def forward_scores(emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor) -> Tensor:
    """Forward log-messages [B, T, L]; behind a post's last word its last message is repeated."""
    emissions = _real(emissions, lengths)
    alpha = start + emissions[:, 0]
    messages = [alpha]
    for t in range(1, emissions.shape[1]):
        step = torch.logsumexp(alpha[:, :, None] + transitions, dim=1) + emissions[:, t]
        alpha = torch.where((t < lengths)[:, None], step, alpha)
        messages.append(alpha)
    return torch.stack(messages, dim=1)


def backward_scores(emissions: Tensor, lengths: Tensor, transitions: Tensor, end: Tensor) -> Tensor:
    """Backward log-messages [B, T, L]; from a post's last word on they equal `end`."""
    emissions = _real(emissions, lengths)
    beta = end.expand(emissions.shape[0], -1)
    messages = [beta]
    for t in range(emissions.shape[1] - 2, -1, -1):
        step = torch.logsumexp(transitions + (emissions[:, t + 1] + beta)[:, None, :], dim=2)
        beta = torch.where((t + 1 < lengths)[:, None], step, beta)
        messages.append(beta)
    return torch.stack(messages[::-1], dim=1)


def plain_log_partition(emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """`log_partition` as it is defined."""
    return torch.logsumexp(forward_scores(emissions, lengths, transitions, start)[:, -1] + end, dim=1)


def plain_log_likelihood(
    emissions: Tensor, tags: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> Tensor:
    """`log_likelihood` as it is defined."""
    score = log_score(emissions, tags, lengths, transitions, start, end)
    return score - plain_log_partition(emissions, lengths, transitions, start, end)


def plain_log_marginals(emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """`log_marginals` as it is defined, by forward-backward."""
    alpha = forward_scores(emissions, lengths, transitions, start)
    beta = backward_scores(emissions, lengths, transitions, end)
    log_z = torch.logsumexp(alpha[:, -1] + end, dim=1)
    return alpha + beta - log_z[:, None, None]


@torch.no_grad()
def plain_viterbi(
    emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """`viterbi` as it is defined."""
    score = start + emissions[:, 0]
    pointers = []
    identity = torch.arange(emissions.shape[2], device=emissions.device)
    for t in range(1, emissions.shape[1]):
        best, origin = (score[:, :, None] + transitions).max(dim=1)
        real = (t < lengths)[:, None]
        score = torch.where(real, best + emissions[:, t], score)
        pointers.append(torch.where(real, origin, identity))
    final, tag = (score + end).max(dim=1)
    path = [tag]
    for origin in reversed(pointers):
        tag = origin.gather(1, tag[:, None])[:, 0]
        path.append(tag)
    tags = torch.stack(path[::-1], dim=1)
    steps = torch.arange(tags.shape[1], device=tags.device)
    return torch.where(steps[None, :] < lengths[:, None], tags, 0), final


def _near(*inputs: Tensor) -> tuple[Tensor, ...]:
    """The inputs on the processor."""
    return inputs if all(x.is_cpu for x in inputs) else tuple(x.cpu() for x in inputs)


def _completed(result: Tensor, beyond: Tensor | None, plain: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The kernels' result with the posts they left out as `plain` computes them from `inputs`, in double precision."""
    if beyond is None:
        return result
    posts = beyond.nonzero()[:, 0]
    *batches, transitions, start, end = (x.double() if x.is_floating_point() else x for x in inputs)
    return result.index_copy(0, posts, plain(*(x[posts] for x in batches), transitions, start, end).to(result.dtype))


def log_partition(emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """log Z [B]: log-sum-exp of the scores of all tag paths."""
    inputs = (emissions, lengths, transitions, start, end)
    if not kernels.take(emissions, transitions, start, end):
        return plain_log_partition(*inputs)
    near = _near(*inputs)
    found = _completed(*kernels.log_likelihood(near[0], None, *near[1:]), plain_log_partition, *near)
    return found.to(emissions.device)


def log_likelihood(
    emissions: Tensor, tags: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> Tensor:
    """log p(tags | x) [B] of the tag paths `tags` [B, T] under `emissions` [B, T, L]."""
    inputs = (emissions, tags, lengths, transitions, start, end)
    if not kernels.take(emissions, transitions, start, end):
        return plain_log_likelihood(*inputs)
    near = _near(*inputs)
    return _completed(*kernels.log_likelihood(*near), plain_log_likelihood, *near).to(emissions.device)


def log_marginals(emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """log p(y_t | x) [B, T, L] (the p_m of the mixture); undefined behind a post's last word."""
    inputs = (emissions, lengths, transitions, start, end)
    if not kernels.take(emissions, transitions, start, end):
        return plain_log_marginals(*inputs)
    near = _near(*inputs)
    return _completed(*kernels.log_marginals(*near), plain_log_marginals, *near).to(emissions.device)


def viterbi(
    emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """Best tag path [B, T] (0 behind a post's last word) and its score [B]."""
    inputs = (emissions, lengths, transitions, start, end)
    if not kernels.take(emissions, transitions, start, end):
        return plain_viterbi(*inputs)
    tags, score = kernels.viterbi(*_near(*inputs))
    return tags.to(emissions.device), score.to(emissions.device)


class LinearChainCRF(nn.Module):
    """Transition scores of a linear-chain CRF over a fixed set of legal transitions.

    Illegal starts, ends and transitions (BIOES) have no probability in training and decoding alike, so the
    partition function sums legal paths alone.

    Args:
        start_allowed: [L] bool. transitions_allowed: [L, L] bool (from, to). end_allowed: [L] bool.
    """

    start_allowed: Tensor
    transitions_allowed: Tensor
    end_allowed: Tensor

    def __init__(self, start_allowed: Tensor, transitions_allowed: Tensor, end_allowed: Tensor):
        super().__init__()
        size = start_allowed.shape[0]
        self.start = nn.Parameter(torch.zeros(size))
        self.transitions = nn.Parameter(torch.zeros(size, size))
        self.end = nn.Parameter(torch.zeros(size))
        self.register_buffer("start_allowed", start_allowed, persistent=False)
        self.register_buffer("transitions_allowed", transitions_allowed, persistent=False)
        self.register_buffer("end_allowed", end_allowed, persistent=False)

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """(transitions [L, L], start [L], end [L]) with `IMPOSSIBLE` where a move is not legal."""
        return (
            self.transitions.masked_fill(~self.transitions_allowed, IMPOSSIBLE),
            self.start.masked_fill(~self.start_allowed, IMPOSSIBLE),
            self.end.masked_fill(~self.end_allowed, IMPOSSIBLE),
        )

    def log_likelihood(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """log p(tags | x) [B]; `tags` must be legal paths."""
        return log_likelihood(emissions, tags, lengths, *self.scores())

    def log_marginals(self, emissions: Tensor, lengths: Tensor, temperature: float = 1.0) -> Tensor:
        """log p(y_t | x) [B, T, L], at a temperature τ those of p(y | x) ∝ exp(s(x, y) / τ)."""
        scores = (s / temperature for s in self.scores())
        return log_marginals(emissions / temperature, lengths, *scores)

    def decode(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Viterbi path [B, T]."""
        return viterbi(emissions, lengths, *self.scores())[0]
