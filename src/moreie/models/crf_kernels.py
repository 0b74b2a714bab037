"""The CRF's kernels on the CPU (`kernels/crf.cpp`), called through ctypes.

`models.crf` defines what they compute. Their gradients are written out instead of recorded by autograd, so nothing can
be differentiated twice. Posts whose scores lie too far apart for probability space are left to the caller.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moreie.kernels import library
from moreie.kernels.build import FOLDER

DTYPES = (torch.float32, torch.float64)
# In the order of the tables that crf.cpp ends with, with how many pointers follow B, T and L.
KERNELS = {"likelihood": 10, "likelihood_gradient": 8, "marginals": 10, "marginals_gradient": 13, "viterbi": 7}


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels of a library by dtype and name, and how many numbers their vectors hold: rows of tags are padded to
    whole ones."""

    width: int
    by_dtype: Mapping[torch.dtype, Mapping[str, Callable[..., int]]]


@cache
def load(folder: Path = FOLDER, most: str | None = None) -> Kernels | None:
    """Those of `kernels.library.load`."""
    found = library.load(folder, most)
    if found is None:
        return None
    tables = {dtype: _table(found, f"moreie_crf_{dtype}".replace("torch.", "")) for dtype in DTYPES}
    return Kernels(ctypes.c_int64.in_dll(found, "moreie_crf_width").value, tables)


def _table(library: ctypes.CDLL, name: str) -> dict[str, Callable[..., int]]:
    addresses = (ctypes.c_void_p * len(KERNELS)).in_dll(library, name)
    return {
        kernel: ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3, *[ctypes.c_void_p] * pointers)(address or 0)
        for (kernel, pointers), address in zip(KERNELS.items(), addresses, strict=True)
    }


def take(emissions: Tensor, *scores: Tensor) -> bool:
    """Whether there are kernels for these tensors, once on the CPU: float32 or float64 alike, not empty."""
    dtype = emissions.dtype
    return load() is not None and dtype in DTYPES and emissions.numel() > 0 and all(s.dtype == dtype for s in scores)


def _loaded() -> Kernels:
    kernels = load()
    if kernels is None:
        raise RuntimeError("no kernels were built: `take` says so")
    return kernels


def _run(name: str, emissions: Tensor, *tensors: Tensor | None) -> int:
    """Call a kernel for the shape and dtype of `emissions`; how many posts it left out.

    Raises:
        ValueError: a length is not between 1 and T.
        IndexError: a tag is not between 0 and L - 1.
    """
    _, words, tags = shape = emissions.shape
    found = _loaded().by_dtype[emissions.dtype][name](*shape, *[None if t is None else t.data_ptr() for t in tensors])
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
    if lengths.dtype != torch.int64 or not lengths.is_cpu:
        lengths = lengths.to("cpu", torch.int64)
    lengths = lengths.contiguous()
    return emissions.contiguous(), lengths, transitions.contiguous(), start.contiguous(), end.contiguous()


def _likelihood(
    learns: bool,
    emissions: Tensor,
    lengths: Tensor,
    transitions: Tensor,
    start: Tensor,
    end: Tensor,
    tags: Tensor | None,
) -> tuple[Tensor, int, Tensor, Tensor | None, Tensor | None]:
    """Results, how many posts were left out, which, and each post's gradients: of emissions, and of transitions."""
    posts, _, size = emissions.shape
    own = torch.empty_like(emissions) if learns else None
    sums = torch.empty((posts, size, size), dtype=torch.float64) if learns else None
    result, beyond = emissions.new_empty(posts), torch.empty(posts, dtype=torch.bool)
    found = _run("likelihood", emissions, emissions, lengths, tags, transitions, start, end, own, sums, result, beyond)
    return result, found, beyond, own, sums


def _room(emissions: Tensor, *directions: int) -> tuple[Tensor, Tensor]:
    """Room for messages and for the factors of emissions, which gradients need."""
    posts, words, tags = emissions.shape
    width = _loaded().width
    messages = torch.empty((*directions, posts, words, -(-tags // width) * width), dtype=torch.float64)
    return messages, torch.empty((*directions, posts, words * tags + width), dtype=torch.float64)


def _marginals(
    learns: bool, emissions: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, int, tuple[Tensor | None, ...]]:
    """Results, how many posts were left out, and what the gradients need; the last of it says which were."""
    kept: tuple[Tensor | None, ...] = (None, None, None)
    if learns:
        after, factors = _room(emissions, 2)
        kept = after, torch.empty_like(after), factors
    result, beyond = torch.empty_like(emissions), torch.empty(len(emissions), dtype=torch.bool)
    own = (transitions, start, end, *kept)
    found = _run("marginals", emissions, emissions, lengths, *own, result, beyond)
    return result, found, (lengths, *own, beyond)


def _likelihood_gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    lengths, own, sums = ctx.kept
    size = own.shape[2]
    found = torch.empty_like(own), upstream.new_empty(size, size), upstream.new_empty(size), upstream.new_empty(size)
    _run("likelihood_gradient", own, lengths, own, sums, upstream.contiguous(), *found)
    to_emissions, *to_scores = found
    return None, to_emissions, None, *to_scores, None


def _marginals_gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    scores = ctx.saved_tensors
    lengths, kept = ctx.kept
    own, *to_scores = (upstream.new_empty(t.shape) for t in (upstream, *scores))
    _run("marginals_gradient", own, lengths, *scores, *kept, upstream.contiguous(), own, *to_scores)
    return None, own, None, *to_scores


_likelihood_gradients_once = torch.autograd.function.once_differentiable(_likelihood_gradients)  # type: ignore[no-untyped-call]
_marginals_gradients_once = torch.autograd.function.once_differentiable(_marginals_gradients)  # type: ignore[no-untyped-call]


class _Likelihood(torch.autograd.Function):
    # What was left out goes into `about`: a second output would cost as much as a short post's recursion. So would
    # `once_differentiable` where nothing is recorded.
    @staticmethod
    def forward(ctx: Any, about: list[Any], emissions: Tensor, *inputs: Tensor | None) -> Tensor:
        result, found, beyond, own, sums = _likelihood(True, emissions, *inputs)  # type: ignore[arg-type]
        about += found, beyond
        ctx.kept = inputs[0], own, sums
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        compute = _likelihood_gradients_once if torch.is_grad_enabled() else _likelihood_gradients
        return compute(ctx, upstream)


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, about: list[Any], emissions: Tensor, *inputs: Tensor) -> Tensor:
        result, found, (lengths, transitions, start, end, *kept) = _marginals(True, emissions, *inputs)
        about += found, kept[-1]
        ctx.save_for_backward(transitions, start, end)
        ctx.kept = lengths, kept
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        compute = _marginals_gradients_once if torch.is_grad_enabled() else _marginals_gradients
        return compute(ctx, upstream)


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
        about: list[Any] = []
        result = _Likelihood.apply(about, *inputs, tags)  # type: ignore[no-untyped-call]
        found, beyond = about
    else:
        result, found, beyond, *_ = _likelihood(False, *inputs, tags)
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
        about: list[Any] = []
        result = _Marginals.apply(about, *inputs)  # type: ignore[no-untyped-call]
        found, beyond = about
    else:
        result, found, (*_, beyond) = _marginals(False, *inputs)
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
    _run("viterbi", emissions, *inputs, paths, best)
    return paths, best
