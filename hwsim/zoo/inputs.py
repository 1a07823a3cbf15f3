"""Example inputs of the models, on the current default device."""

from __future__ import annotations

import torch
from torch import Tensor

from hwsim.zoo.attention import Cache


def images(*, batch: int, size: int) -> tuple[Tensor]:
    """Images [batch, 3, size, size]."""
    return (torch.randn(batch, 3, size, size),)


def features(*, batch: int, width: int) -> tuple[Tensor]:
    """Features [batch, width]."""
    return (torch.randn(batch, width),)


def tokens(*, batch: int, seq_len: int, vocabulary: int) -> tuple[Tensor]:
    """Token ids [batch, seq_len]."""
    return (torch.randint(vocabulary, (batch, seq_len)),)


def causal_lm(
    *,
    batch: int,
    seq_len: int,
    kv_len: int | None,
    layers: int,
    kv_heads: int,
    head_dim: int,
    vocabulary: int,
) -> tuple[Tensor] | tuple[Tensor, Cache]:
    """Token ids [batch, seq_len] and, given ``kv_len``, a cache with room for one token more."""
    ids = tokens(batch=batch, seq_len=seq_len, vocabulary=vocabulary)
    if kv_len is None:
        return ids
    shape = (batch, kv_heads, kv_len + 1, head_dim)
    return (*ids, tuple((torch.randn(shape), torch.randn(shape)) for _ in range(layers)))


def clicks(*, batch: int, rows: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Dense features [batch, 13] and a row index of each table [batch, len(rows)]."""
    return torch.rand(batch, 13), torch.stack([torch.randint(n, (batch,)) for n in rows], dim=1)
