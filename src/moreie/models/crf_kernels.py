"""The CRF's kernels on the CPU: `crf_kernels.cpp`, compiled when the package was installed, called through ctypes.

`models.crf` defines what they compute. Their gradients are written out instead of recorded by autograd, so nothing can
be differentiated twice. Posts whose scores lie too far apart for probability space are left to the caller.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moreie.models.crf_build import library_names

LANES = 4
# In the order of the tables that crf_kernels.cpp ends with, with how many pointers follow B, T, L and for how
# many posts there is room.
KERNELS = {"likelihood": 10, "likelihood_gradient": 13, "marginals": 10, "marginals_gradient": 13, "viterbi": 7}


@cache
def load(folder: Path = Path(__file__).parent) -> dict[torch.dtype, dict[str, Callable[..., int]]]:
    """The kernels by dtype and name, from the libraries in `folder`; none where none were built for this machine."""
    plain, vectors = library_names()
    fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    for name in (vectors, plain) if fast else (plain,):
        if (folder / name).is_file():
            try:
                library = ctypes.CDLL(str(folder / name))
            except OSError:  # built on a machine of another kind
                continue
            return {d: _table(library, f"moreie_crf_{d}".replace("torch.", "")) for d in (torch.float32, torch.float64)}
    return {}


def _table(library: ctypes.CDLL, name: str) -> dict[str, Callable[..., int]]:
    addresses = (ctypes.c_void_p * len(KERNELS)).in_dll(library, name)
    return {
        kernel: ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4, *[ctypes.c_void_p] * pointers)(address or 0)
        for (kernel, pointers), address in zip(KERNELS.items(), addresses, strict=True)
    }


def take(emissions: Tensor, *scores: Tensor) -> bool:
    """Whether there are kernels for these tensors: on the CPU, float32 or float64 alike, not empty."""
    dtype, device = emissions.dtype, emissions.device
    return (
        device.type == "cpu"
        and dtype in load()
        and emissions.numel() > 0
        and all(s.dtype == dtype and s.device == device for s in scores)
    )


def _run(name: str, emissions: Tensor, kept: int, *tensors: Tensor | None) -> int:
    """Call a kernel for the shape and dtype of `emissions`; how many posts it left out.

    `kept`: for how many posts there is room in what is kept for gradients.

    Raises:
        ValueError: a length is not between 1 and T.
        IndexError: a tag is not between 0 and L - 1.
    """
    _, words, tags = shape = emissions.shape
    found = load()[emissions.dtype][name](*shape, kept, *[None if t is None else t.data_ptr() for t in tensors])
    if found == -1:
        raise ValueError(f"lengths have to be between 1 and {words}")
    if found == -2:
        raise IndexError(f"tags have to be between 0 and {tags - 1}")
    return found


def _checked(
    emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The inputs as kernels read them: of matching shapes, contiguous, lengths int64."""
    posts, _, tags = emissions.shape
    if lengths.shape != (posts,) or transitions.shape != (tags, tags) or start.shape != (tags,) or end.shape != (tags,):
        raise ValueError(f"{posts} posts and {tags} tags do not go with the shapes of lengths and scores")
    lengths = lengths.to("cpu", torch.int64).contiguous()
    return emissions.contiguous(), lengths, transitions.contiguous(), start.contiguous(), end.contiguous()


def _room(emissions: Tensor, kept: int, *directions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Room for messages, for the factors of emissions, and for which posts are left out."""
    posts, words, tags = emissions.shape
    messages = torch.empty((*directions, kept, words, -(-tags // LANES) * LANES), dtype=torch.float64)
    factors = torch.empty((*directions, kept, words * tags + LANES), dtype=torch.float64)
    return messages, factors, torch.empty(posts, dtype=torch.bool)


def _likelihood(
    kept: int, emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor, tags: Tensor | None
) -> tuple[Tensor, int, tuple[Tensor | None, ...]]:
    """Results, how many posts were left out, and what the gradients need; the last of it says which were."""
    messages, factors, beyond = _room(emissions, kept)
    result = emissions.new_empty(len(emissions))
    own = (transitions, start, end, messages, factors)
    found = _run("likelihood", emissions, kept, emissions, lengths, tags, *own, result, beyond)
    return result, found, (lengths, tags, *own, beyond)


def _marginals(
    kept: int, emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, int, tuple[Tensor, ...]]:
    """As `_likelihood` gives them."""
    after, factors, beyond = _room(emissions, kept, 2)
    result = torch.empty_like(emissions)
    own = (transitions, start, end, after, torch.empty_like(after), factors)
    found = _run("marginals", emissions, kept, emissions, lengths, *own, result, beyond)
    return result, found, (lengths, *own, beyond)


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, emissions: Tensor, *inputs: Tensor | None) -> tuple[Tensor, int, Tensor]:
        result, found, saved = _likelihood(len(emissions), emissions, *inputs)  # type: ignore[arg-type]
        ctx.save_for_backward(*saved)
        ctx.mark_non_differentiable(saved[-1])
        ctx.shape = emissions.shape
        return result, found, saved[-1]  # type: ignore[return-value]

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        lengths, tags, transitions, start, end, *kept = ctx.saved_tensors
        scores = (transitions, start, end)
        own, *to_scores = (upstream.new_empty(s) for s in (ctx.shape, *(t.shape for t in scores)))
        upstream = upstream.contiguous()
        _run("likelihood_gradient", own, len(own), lengths, tags, *scores, *kept, upstream, own, *to_scores)
        return own, None, *to_scores, None


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, emissions: Tensor, *inputs: Tensor) -> tuple[Tensor, int, Tensor]:
        result, found, saved = _marginals(len(emissions), emissions, *inputs)
        ctx.save_for_backward(*saved)
        ctx.mark_non_differentiable(saved[-1])
        return result, found, saved[-1]

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        lengths, transitions, start, end, *kept = ctx.saved_tensors
        upstream, scores = upstream.contiguous(), (transitions, start, end)
        own, *to_scores = (upstream.new_empty(t.shape) for t in (upstream, *scores))
        _run("marginals_gradient", own, len(own), lengths, *scores, *kept, upstream, own, *to_scores)
        return own, None, *to_scores


def _learns(*inputs: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def log_likelihood(
    emissions: Tensor, tags: Tensor | None, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, Tensor | None]:
    """log p(tags | x) [B], or log Z where `tags` is None, and which posts [B] were left out (None: none was).

    What is left out has a meaningless value and no gradient.

    Raises:
        ValueError, IndexError: shapes do not match; lengths or tags are out of range.
    """
    inputs = _checked(emissions, lengths, transitions, start, end)
    if tags is not None:
        if tags.shape != emissions.shape[:2]:
            raise ValueError(f"tags {tuple(tags.shape)} do not go with emissions {tuple(emissions.shape)}")
        tags = tags.to("cpu", torch.int64).contiguous()
    if _learns(*inputs):
        result, found, beyond = _Likelihood.apply(*inputs, tags)  # type: ignore[no-untyped-call]
    else:
        result, found, (*_, beyond) = _likelihood(1, *inputs, tags)
    return result, beyond if found else None


def log_marginals(
    emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, Tensor | None]:
    """log p(y_t | x) [B, T, L], the last word's repeated behind it, and which posts [B] were left out (None: none was).

    What is left out has meaningless values and no gradient.

    Raises:
        ValueError: shapes do not match, or a length is out of range.
    """
    inputs = _checked(emissions, lengths, transitions, start, end)
    if _learns(*inputs):
        result, found, beyond = _Marginals.apply(*inputs)  # type: ignore[no-untyped-call]
    else:
        result, found, (*_, beyond) = _marginals(1, *inputs)
    return result, beyond if found else None


def viterbi(
    emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """Best tag path [B, T] (0 behind a post's last word) and its score [B].

    Raises:
        ValueError: shapes do not match, or a length is out of range.
    """
    inputs = _checked(emissions, lengths, transitions, start, end)
    paths = torch.empty(emissions.shape[:2], dtype=torch.int64)
    best = emissions.new_empty(len(emissions))
    _run("viterbi", emissions, 1, *inputs, paths, best)
    return paths, best
