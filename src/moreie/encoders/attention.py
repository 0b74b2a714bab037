"""Attention of several heads, by torch's fused kernels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def attended(
    query: Tensor, key: Tensor, value: Tensor, heads: int, reads: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """What each token attends to [B, A, H], of its query [B, A, H] and all keys and values [B, S, H]; `reads`: None, or
    bool [B, 1, 1 or A, S], what each reads."""

    def parted(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], heads, -1).transpose(1, 2)

    found = functional.scaled_dot_product_attention(
        parted(query), parted(key), parted(value), attn_mask=reads, dropout_p=dropout
    )
    return found.transpose(1, 2).flatten(2)
