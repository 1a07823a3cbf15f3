"""BERT: Devlin et al., arXiv:1810.04805, with the names of Hugging Face's ``BertModel``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.zoo.attention import merge_heads, split_heads

_EPS = 1e-12


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings (figure 2), normalised."""

    def __init__(self, *, vocabulary: int, positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [batch, n], all of the first segment → [batch, n, width]."""
        x = self.word_embeddings(tokens) + self.token_type_embeddings(torch.zeros_like(tokens))
        x = x + self.position_embeddings(torch.arange(tokens.shape[1], device=tokens.device))
        return self.LayerNorm(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention without its output projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → the same shape."""
        q, k, v = (split_heads(project(x), self.head_dim) for project in (self.query, self.key, self.value))
        return merge_heads(F.scaled_dot_product_attention(q, k, v))


class Residual(nn.Module):
    """A projection, added to the residual and normalised."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """[batch, n, inner] and the residual [batch, n, width] → [batch, n, width]."""
        return self.LayerNorm(self.dense(y) + x)


class Attention(nn.Module):
    """Self-attention and its residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self = SelfAttention(width, heads)
        self.output = Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → the same shape."""
        return self.output(self.self(x), x)


class Intermediate(nn.Module):
    """The widening half of the feed-forward network."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → [batch, n, inner]."""
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """A post-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.intermediate = Intermediate(width, 4 * width)
        self.output = Residual(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → the same shape."""
        x = self.attention(x)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, *, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → the same shape."""
        for layer in self.layer:
            x = layer(x)
        return x


class Pooler(nn.Module):
    """A dense layer on the first token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → [batch, width]."""
        return torch.tanh(self.dense(x[:, 0]))


class Bert(nn.Module):
    """BERT-base; one segment and no padding, so attention has no mask."""

    def __init__(
        self,
        *,
        layers: int = 12,
        width: int = 768,
        heads: int = 12,
        vocabulary: int = 30522,
        positions: int = 512,
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(vocabulary=vocabulary, positions=positions, width=width)
        self.encoder = Encoder(layers=layers, width=width, heads=heads)
        self.pooler = Pooler(width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [batch, n] → hidden states [batch, n, width] and the pooled first one [batch, width]."""
        hidden = self.encoder(self.embeddings(tokens))
        return hidden, self.pooler(hidden)
