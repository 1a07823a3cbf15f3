"""GPT-2: Radford et al., 2019, with the names of Hugging Face's ``GPT2LMHeadModel``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.zoo.attention import Cache, cached_length, causal_attention, merge_heads, split_heads


class Conv1D(nn.Module):
    """A linear layer whose weight is stored [in, out], as GPT-2's checkpoints have it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * 0.02)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[…, in] → […, out]."""
        return F.linear(x, self.weight.T, self.bias)


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.c_attn = Conv1D(width, 3 * width)
        self.c_proj = Conv1D(width, width)

    def forward(self, x: Tensor, cached: tuple[Tensor, Tensor] | None) -> Tensor:
        """[batch, n, width] → the same shape."""
        q, k, v = (split_heads(part, self.head_dim) for part in self.c_attn(x).chunk(3, dim=-1))
        return self.c_proj(merge_heads(causal_attention(q, k, v, cached)))


class MLP(nn.Module):
    """Two linear layers around GELU in its tanh form."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = Conv1D(width, 4 * width)
        self.c_proj = Conv1D(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → the same shape."""
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, cached: tuple[Tensor, Tensor] | None) -> Tensor:
        """[batch, n, width] → the same shape."""
        x = x + self.attn(self.ln_1(x), cached)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Token and position embeddings, layers and the last norm."""

    def __init__(self, *, layers: int, width: int, heads: int, vocabulary: int, positions: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(positions, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, cache: Cache | None) -> Tensor:
        """Token ids [batch, n] → hidden states [batch, n, width]."""
        start = cached_length(tokens, cache)
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        for i, block in enumerate(self.h):
            x = block(x, cache[i] if cache else None)
        return self.ln_f(x)


class GPT2(nn.Module):
    """GPT-2 small. The output layer is the token embedding, transposed."""

    def __init__(
        self,
        *,
        layers: int = 12,
        width: int = 768,
        heads: int = 12,
        vocabulary: int = 50257,
        positions: int = 1024,
    ) -> None:
        super().__init__()
        self.transformer = Transformer(layers=layers, width=width, heads=heads, vocabulary=vocabulary, positions=positions)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids [batch, n] → logits [batch, n, vocabulary].

        With a cache, n is 1 and the token's keys and values are written to the cache's last position.
        """
        return F.linear(self.transformer(tokens, cache), self.transformer.wte.weight)
