"""Causal self-attention with a key/value cache, shared by the language models."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from numerics.errors import InputError

Cache = tuple[tuple[Tensor, Tensor], ...]
"""For each layer, keys and values [batch, kv_heads, kv_len + 1, head_dim], the last the new token's."""


def cached_length(tokens: Tensor, cache: Cache | None) -> int:
    """Tokens in the cache before ``tokens`` [batch, 1], which is also their position.

    Raises:
        InputError: more than one token, which would need a mask.
    """
    if cache is None:
        return 0
    if tokens.shape[1] != 1:
        raise InputError(f"tokens: with a cache, expected 1 token a sequence, got {tokens.shape[1]}")
    return cache[0][0].shape[2] - 1


def causal_attention(q: Tensor, k: Tensor, v: Tensor, cached: tuple[Tensor, Tensor] | None) -> Tensor:
    """Attention of q [batch, heads, n, head_dim] on k, v [batch, kv_heads, n, head_dim] and those ``cached``.

    Without a cache a token sees itself and those before it. With one, n is 1: k and v are written in place at
    the cache's last position, so that only their bytes move, and the token sees the whole cache.

    Query heads share key/value heads inside the fused operator: repeating them would copy the cache.
    """
    grouped = q.shape[1] != k.shape[1]
    if cached is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    keys, values = cached
    keys[:, :, -1:] = k
    values[:, :, -1:] = v
    return F.scaled_dot_product_attention(q, keys, values, enable_gqa=grouped)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """[batch, n, heads · head_dim] → [batch, heads, n, head_dim], a view."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[batch, heads, n, head_dim] → [batch, n, heads · head_dim]."""
    return x.transpose(1, 2).flatten(2)
