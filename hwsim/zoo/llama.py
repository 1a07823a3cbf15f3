"""Llama 3: Grattafiori et al., arXiv:2407.21783, with the names of Hugging Face's ``LlamaForCausalLM``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.zoo.attention import Cache, cached_length, causal_attention, merge_heads, split_heads

_EPS = 1e-5
_ROPE_BASE = 500_000.0

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines [n, head_dim] of the positions' angles."""


def rotation(start: int, length: int, head_dim: int, *, device: torch.device, dtype: torch.dtype) -> Rotation:
    """The rotary embedding of ``length`` positions from ``start``: Su et al., arXiv:2104.09864, eq. 15."""
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    positions = torch.arange(start, start + length, device=device, dtype=torch.float32)
    angles = torch.outer(positions, _ROPE_BASE**-exponents).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """x [batch, heads, n, head_dim] rotated in the planes (i, i + head_dim / 2), Hugging Face's order."""
    cos, sin = by
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal attention; groups of query heads share a key/value head (Ainslie et al., arXiv:2305.13245)."""

    def __init__(self, *, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, by: Rotation, cached: tuple[Tensor, Tensor] | None) -> Tensor:
        """[batch, n, width] → the same shape."""
        q, k, v = (split_heads(project(x), self.head_dim) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(merge_heads(causal_attention(rotate(q, by), rotate(k, by), v, cached)))


class MLP(nn.Module):
    """SwiGLU: Shazeer, arXiv:2002.05202, equation 6."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → the same shape."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, *, width: int, heads: int, kv_heads: int, feed_forward: int) -> None:
        super().__init__()
        self.self_attn = Attention(width=width, heads=heads, kv_heads=kv_heads)
        self.mlp = MLP(width, feed_forward)
        self.input_layernorm = nn.RMSNorm(width, eps=_EPS)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=_EPS)

    def forward(self, x: Tensor, by: Rotation, cached: tuple[Tensor, Tensor] | None) -> Tensor:
        """[batch, n, width] → the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), by, cached)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Token embedding, layers and the last norm."""

    def __init__(self, *, layers: int, width: int, heads: int, kv_heads: int, feed_forward: int, vocabulary: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(
            Layer(width=width, heads=heads, kv_heads=kv_heads, feed_forward=feed_forward) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width, eps=_EPS)

    def forward(self, tokens: Tensor, cache: Cache | None) -> Tensor:
        """Token ids [batch, n] → hidden states [batch, n, width]."""
        x = self.embed_tokens(tokens)
        start = cached_length(tokens, cache)
        by = rotation(start, tokens.shape[1], self.head_dim, device=tokens.device, dtype=x.dtype)
        for i, layer in enumerate(self.layers):
            x = layer(x, by, cache[i] if cache else None)
        return self.norm(x)


class Llama(nn.Module):
    """Llama 3; the 8B model (table 3) unless sizes are given."""

    def __init__(
        self,
        *,
        layers: int = 32,
        width: int = 4096,
        heads: int = 32,
        kv_heads: int = 8,
        feed_forward: int = 14336,
        vocabulary: int = 128256,
    ) -> None:
        super().__init__()
        self.model = Decoder(
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=kv_heads,
            feed_forward=feed_forward,
            vocabulary=vocabulary,
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids [batch, n] → logits [batch, n, vocabulary].

        With a cache, n is 1 and the token's keys and values are written to the cache's last position.
        """
        return self.lm_head(self.model(tokens, cache))
