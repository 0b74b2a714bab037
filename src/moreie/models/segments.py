"""Semi-Markov conditional random field over mentions and single words outside of them (Sarawagi & Cohen, NIPS 2004).

A segmentation of a post is a sequence of mentions and of words outside; its score is the sum of theirs. There are no
transition scores. Exact and vectorised over the batch; every function but `decode` is differentiable.

Notation: B posts, T words (padded), C types, K = `longest`, the most words of a mention, L = 1 + 4 C BIOES tags.
`scores` [B, T, 1 + K C]: entry 0 of word t is that of the word outside of mentions, entry 1 + (k − 1) C + c that of a
mention of type c whose k words end at t. `lengths` [B] counts the real words of each post.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from moreie.models.crf import IMPOSSIBLE


class SegmentCRF(nn.Module):
    """A distribution over segmentations that speaks of tags, in the order of `TagSet`, as `LinearChainCRF` does.

    Args:
        types: C. longest: K, at least 1.
    """

    def __init__(self, types: int, longest: int):
        super().__init__()
        self.types, self.longest = types, longest

    def log_likelihood(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """log p(tags | x) [B] of legal BIOES paths `tags` [B, T]; a mention of more than K words is `IMPOSSIBLE`."""
        outside, spans = self._split(scores, lengths)
        return self._score(outside, spans, tags, lengths) - _forward(outside, spans).gather(1, lengths[:, None])[:, 0]

    def log_marginals(self, scores: Tensor, lengths: Tensor, temperature: float = 1.0) -> Tensor:
        """log p(y_t | x) [B, T, L] of BIOES tags, at a temperature τ those of p(y | x) ∝ exp(s(x, y) / τ)."""
        outside, spans = self._split(scores / temperature, lengths)
        alpha, beta = _forward(outside, spans), _backward(outside, spans, lengths)
        log_z = alpha.gather(1, lengths[:, None])
        alone = (alpha[:, :-1] + outside + beta[:, 1:] - log_z).exp()
        # [B, T, K, C]: that a mention of k words and type c ends at word t.
        before = torch.stack([_later(alpha[:, :-1], k) for k in range(self.longest)], dim=2)
        ends = (before[..., None] + spans + (beta[:, 1:] - log_z)[:, :, None, None]).exp().double()
        return self._tag_marginals(alone, ends).to(scores.dtype)

    @torch.no_grad()
    def decode(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """Tags [B, T] of the best segmentation, 0 behind a post's last word."""
        outside, spans = self._split(scores, lengths)
        best_type, types = spans.max(3)
        best = outside.new_zeros(len(outside), 1)
        taken = []
        for t in range(outside.shape[1]):
            choices = torch.cat([best[:, -1:] + outside[:, t, None], _last(best, self.longest) + best_type[:, t]], 1)
            top, choice = choices.max(1)
            best = torch.cat([best, top[:, None]], 1)
            taken.append(choice)
        return self._tags(torch.stack(taken, 1), types, lengths)

    def _split(self, scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(outside [B, T], spans [B, T, K, C]); a word behind a post's last one is outside at no cost."""
        batch, words = scores.shape[:2]
        steps = torch.arange(words, device=scores.device)
        real = steps[None, :] < lengths[:, None]
        spans = scores[..., 1:].reshape(batch, words, self.longest, self.types)
        # A mention of k words cannot end before word k - 1.
        fits = steps[:, None] >= torch.arange(self.longest, device=scores.device)
        possible = real[:, :, None, None] & fits[None, :, :, None]
        return torch.where(real, scores[..., 0], 0), torch.where(possible, spans, IMPOSSIBLE)

    def _score(self, outside: Tensor, spans: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(tags.shape[1], device=tags.device)
        tags = torch.where(steps[None, :] < lengths[:, None], tags, 0)
        type, part = (tags - 1).div(4, rounding_mode="floor"), (tags - 1) % 4
        ending = (tags > 0) & (part >= 2)
        starts = torch.where((tags > 0) & ((part == 0) | (part == 3)), steps[None, :], 0).cummax(1).values
        words = steps[None, :] - starts
        place = words.clamp_max(self.longest - 1) * self.types + type.clamp_min(0)
        found = spans.flatten(2).gather(2, place[..., None])
        own = torch.where(words < self.longest, found[..., 0], IMPOSSIBLE)
        return (torch.where(ending, own, 0) + torch.where(tags == 0, outside, 0)).sum(1)

    def _tag_marginals(self, alone: Tensor, ends: Tensor) -> Tensor:
        """Log-marginals [B, T, L] of p(outside) [B, T] and p(mention of k words ends here) [B, T, K, C]."""
        single, several = ends[:, :, 0], ends[:, :, 1:]
        begin, inside = torch.zeros_like(single), torch.zeros_like(single)
        for k in range(2, self.longest + 1):
            own = ends[:, :, k - 1]
            begin = begin + _earlier(own, k - 1)
            for back in range(1, k - 1):
                inside = inside + _earlier(own, back)
        parts = torch.stack([begin, inside, several.sum(2), single], dim=3).flatten(2)
        together = torch.cat([alone.double()[..., None], parts], dim=2)
        return together.clamp_min(torch.finfo(torch.float32).tiny).log()

    def _tags(self, taken: Tensor, types: Tensor, lengths: Tensor) -> Tensor:
        """Tags [B, T] of what was taken at each end [B, T] (0: a word outside, k: a mention of k words)."""
        rows = torch.arange(len(taken), device=taken.device)
        left = torch.zeros_like(rows)  # words of the mention that is being written, with the one at t
        size, type = torch.zeros_like(rows), torch.zeros_like(rows)
        tags = []
        for t in range(taken.shape[1] - 1, -1, -1):
            new = (left == 0) & (t < lengths)
            size = torch.where(new, taken[:, t], size)
            type = torch.where(new, types[rows, t, (size - 1).clamp_min(0)], type)
            left = torch.where(new, size, left)
            part = torch.where(size == 1, 3, torch.where(left == size, 2, torch.where(left == 1, 0, 1)))
            tags.append(torch.where(left > 0, 1 + 4 * type + part, 0))
            left = (left - 1).clamp_min(0)
        return torch.stack(tags[::-1], dim=1)


def _last(messages: Tensor, count: int) -> Tensor:
    """The last `count` messages [B, count] of [B, t + 1], the latest first, `IMPOSSIBLE` before the beginning."""
    last = messages[:, -count:].flip(1)
    return pad(last, (0, count - last.shape[1]), value=IMPOSSIBLE)


def _later(messages: Tensor, steps: int) -> Tensor:
    """Messages [B, T] moved `steps` words to the right, `IMPOSSIBLE` before them."""
    return pad(messages, (steps, 0), value=IMPOSSIBLE)[:, : messages.shape[1]]


def _earlier(values: Tensor, steps: int) -> Tensor:
    """Values [B, T, C] moved `steps` words to the left, 0 behind them."""
    return pad(values, (0, 0, 0, steps))[:, steps:]


def _forward(outside: Tensor, spans: Tensor) -> Tensor:
    """Log-sums [B, T + 1] of all segmentations of the first t words."""
    longest, any_type = spans.shape[2], torch.logsumexp(spans, dim=3)
    alpha = outside.new_zeros(len(outside), 1)
    for t in range(outside.shape[1]):
        ways = torch.cat([alpha[:, -1:] + outside[:, t, None], _last(alpha, longest) + any_type[:, t]], dim=1)
        alpha = torch.cat([alpha, torch.logsumexp(ways, dim=1, keepdim=True)], dim=1)
    return alpha


def _backward(outside: Tensor, spans: Tensor, lengths: Tensor) -> Tensor:
    """Log-sums [B, T + 1] of all segmentations of the words from t on; 0 from a post's end on."""
    words, longest = outside.shape[1], spans.shape[2]
    any_type = torch.logsumexp(spans, dim=3)
    beta = [outside.new_zeros(len(outside))]
    for t in range(words - 1, -1, -1):
        ways = [outside[:, t] + beta[-1]]
        ways += [any_type[:, t + k, k] + beta[-1 - k] for k in range(min(longest, words - t))]
        step = torch.logsumexp(torch.stack(ways, dim=1), dim=1)
        beta.append(torch.where(t < lengths, step, 0))
    return torch.stack(beta[::-1], dim=1)
