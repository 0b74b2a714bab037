"""Attention of several heads: over short rows by the project's kernel (`kernels/attention.cpp`), else by torch's.

torch's kernel takes a head of 40 sub-tokens 15 µs, whatever its numbers are, of which the products are a tenth: it
calls a library's matrix product for each 32 queries of each head. Rows are that short in extraction.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from moreie.encoders.row_parts import LEAST_IN_TILES, in_parts
from moreie.kernels import library

Kernel = Callable[..., None]

SHORT = MappingProxyType({torch.float32: 16_384, torch.bfloat16: 8_192})
"""Up to so many numbers of a head's keys the project's kernel is taken where it does not use units for products in
bfloat16, which are worth more the longer rows are."""
SHORT_IN_TILES = 32_768
"""The same where it does; longer rows were not measured."""
SHORT_IN_VECTORS = 65_536
"""The same of numbers in bfloat16 where the processor has such units for vectors alone (AVX512-BF16): torch's kernel is
slower at all lengths that were measured."""
MEASURED = ("AVX2", "AVX512")
"""Where the project's kernel is known to be faster, as torch names what a processor can do."""
FEW_THREADS = 2
"""The project's kernel computes in one thread: where torch has more than this for it, torch's is taken."""


def attended(
    query: Tensor, key: Tensor, value: Tensor, heads: int, reads: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """What each token attends to [B, A, H], of its query [B, A, H] and all keys and values [B, S, H]; `reads`: None,
    bool [B, 1, 1 or A, S], what each reads, or what is added to the scores [B, heads, A, S]."""
    if dropout == 0.0 and (compute := _short(query, key, value, heads, reads)):
        return _by(compute, query, key, value, heads, reads)
    return by_torch(query, key, value, heads, reads, dropout)


def by_torch(
    query: Tensor, key: Tensor, value: Tensor, heads: int, reads: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """`attended` by torch's fused kernels."""

    def parted(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], heads, -1).transpose(1, 2)

    found = functional.scaled_dot_product_attention(
        parted(query), parted(key), parted(value), attn_mask=reads, dropout_p=dropout
    )
    return found.transpose(1, 2).flatten(2)


def attended_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    queries: Sequence[int],
    keys: Sequence[int],
    reads: Tensor | None = None,
) -> Tensor:
    """What each token attends to [M, H] of posts one behind the other, without padding: of a post's `queries` rows of
    query [M, H] all its `keys` rows of key and value [N, H], or those that `reads` [B, 1, A or more, S or more] says.

    Where there is a kernel (`packed_kernel`), without gradients.
    """
    compute = packed_kernel(query.dtype, query.shape[1] // heads, max(keys))
    if compute is None:
        raise ValueError(f"no kernel for {max(keys)} keys of {heads} heads in {query.dtype}")
    starts = _numbers([0, *accumulate(queries), 0, *accumulate(keys)])
    strides = [0, query.stride(0), 0, key.stride(0), 0, value.stride(0), 0, 0]
    if reads is not None:
        reads = reads.expand(len(queries), 1, -1, -1).contiguous()
        strides[6:] = reads.stride(0), reads.stride(2)
    found, told = query.new_empty(query.shape), _numbers(strides)
    compute(
        len(queries),
        max(queries),
        max(keys),
        heads,
        query.shape[1] // heads,
        ctypes.addressof(told),
        ctypes.addressof(starts),
        *(None if x is None else x.data_ptr() for x in (query, key, value, reads, found)),
    )
    return found


def packed_kernel(kind: torch.dtype, width: int, keys: int) -> Kernel | None:
    """The project's kernel for heads of `width` numbers and posts of so many keys at most, where it is there and faster
    than torch's."""
    if torch.get_num_threads() > FEW_THREADS:
        return None
    own, numbers = kernels(), keys * width
    if kind is torch.bfloat16 and width in own.in_tiles:
        return own.in_tiles[width] if numbers <= SHORT_IN_TILES else None
    most = SHORT_IN_VECTORS if kind is torch.bfloat16 and in_vectors() else SHORT.get(kind, 0)
    fits = numbers <= most and width % own.unit == 0
    return own.by_kind.get(kind) if fits else None


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a library of kernels can do."""

    unit: int = 1
    """What the width of a head has to be a multiple of."""
    by_kind: Mapping[torch.dtype, Kernel] = field(default_factory=dict)
    in_tiles: Mapping[int, Kernel] = field(default_factory=dict)
    """By the width of a head those in bfloat16 that multiply tiles (AMX), where the processor does."""


@cache
def kernels() -> Kernels:
    """As `declared`; none where none were built, or where they were not measured."""
    found = library.load() if torch.backends.cpu.get_cpu_capability() in MEASURED else None
    return declared(found) if found else Kernels()


def declared(found: ctypes.CDLL) -> Kernels:
    """Those of a library."""
    widths = found.moreie_attention_tiles
    widths.restype, widths.argtypes = ctypes.c_int64, []
    in_tiles = _declared(found, "moreie_attention_in_tiles")
    return Kernels(
        ctypes.c_int64.in_dll(found, "moreie_attention_unit").value,
        {dtype: _declared(found, f"moreie_attention_{dtype}".replace("torch.", "")) for dtype in SHORT},
        {width: in_tiles for width in (32, 64) if widths() & width},
    )


@cache
def in_vectors() -> bool:
    """Whether the processor multiplies bfloat16 by vectors, and has no tiles."""
    return bool(torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported())


def _declared(found: ctypes.CDLL, name: str) -> Kernel:
    kernel = found[name]
    kernel.restype, kernel.argtypes = None, [ctypes.c_int64] * 5 + [ctypes.c_void_p] * 7
    return kernel


def _short(query: Tensor, key: Tensor, value: Tensor, heads: int, reads: Tensor | None) -> Kernel | None:
    """The kernel, where it is there for these and faster."""
    if not query.is_cpu:
        return None
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        return None
    plain = key.dtype is value.dtype is query.dtype and query.stride(2) == key.stride(2) == value.stride(2) == 1
    if not plain or (reads is not None and reads.dtype is not torch.bool):
        return None
    return packed_kernel(query.dtype, query.shape[2] // heads, key.shape[1])


def _by(compute: Kernel, query: Tensor, key: Tensor, value: Tensor, heads: int, reads: Tensor | None) -> Tensor:
    posts, queries, whole = query.shape
    width = whole // heads
    strides = [stride for states in (query, key, value) for stride in states.stride()[:2]]
    if reads is not None:
        reads = reads.expand(posts, 1, -1, -1).contiguous()
        strides += reads.stride(0), reads.stride(2) if reads.shape[2] > 1 else 0
    strides += [0] * (8 - len(strides))
    found = query.new_empty(query.shape)
    told = _numbers(strides)

    def part(first: int, count: int) -> None:
        """Of a post by itself some queries."""
        ahead = first * query.stride(1), 0, 0, first * strides[7], first * heads * width
        states = (query, key, value, reads, found)
        addresses = (None if x is None else x.data_ptr() + n * x.itemsize for x, n in zip(states, ahead, strict=True))
        compute(posts, count, key.shape[1], heads, width, ctypes.addressof(told), None, *addresses)

    if posts == 1 and query.dtype is torch.bfloat16:  # in float32 torch's threads wait busily for the next product
        in_parts(part, queries, LEAST_IN_TILES)
    else:
        part(0, queries)
    return found


def _numbers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)
