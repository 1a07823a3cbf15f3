"""Mamba: Gu and Dao, arXiv:2312.00752, with the names of Hugging Face's ``MambaForCausalLM``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.zoo.scan import selective_scan

_EPS = 1e-5


class Mixer(nn.Module):
    """A gated selective state-space layer (figure 3): expansion 2, causal depthwise convolution of 4 taps."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        inner = 2 * width
        self.state = state
        self.dt_rank = math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.x_proj = nn.Linear(inner, self.dt_rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → the same shape."""
        u, gate = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        u = F.silu(self.conv1d(u)[..., : x.shape[1]])
        step, B, C = self.x_proj(u.transpose(1, 2)).split((self.dt_rank, self.state, self.state), dim=-1)
        delta = F.softplus(self.dt_proj(step)).transpose(1, 2)
        y = selective_scan(u, delta, -torch.exp(self.A_log), B.transpose(1, 2), C.transpose(1, 2), self.D)
        return self.out_proj((y * F.silu(gate)).transpose(1, 2))


class Layer(nn.Module):
    """A mixer behind a norm, with a residual."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=_EPS)
        self.mixer = Mixer(width, state)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, width] → the same shape."""
        return x + self.mixer(self.norm(x))


class Backbone(nn.Module):
    """Token embedding, layers and the last norm."""

    def __init__(self, *, layers: int, width: int, state: int, vocabulary: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, state) for _ in range(layers))
        self.norm_f = nn.RMSNorm(width, eps=_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [batch, n] → hidden states [batch, n, width]."""
        x = self.embeddings(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.norm_f(x)


class Mamba(nn.Module):
    """Mamba 130M. The output layer is the token embedding, transposed."""

    def __init__(self, *, layers: int = 24, width: int = 768, state: int = 16, vocabulary: int = 50280) -> None:
        super().__init__()
        self.backbone = Backbone(layers=layers, width=width, state=state, vocabulary=vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [batch, n] → logits [batch, n, vocabulary]."""
        return F.linear(self.backbone(tokens), self.backbone.embeddings.weight)
