"""DLRM: Naumov et al., arXiv:1906.00091, in MLPerf's configuration, with the authors' parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

_DENSE_FEATURES = 13
_BOTTOM = (512, 256)
_TOP = (1024, 1024, 512, 256)


class DLRM(nn.Module):
    """Click prediction from 13 dense features and one category of each table.

    A table is looked up once a sample, as Criteo's data are, so embeddings need no pooling.
    """

    def __init__(self, *, rows: Sequence[int], width: int = 128) -> None:
        super().__init__()
        vectors = len(rows) + 1
        pairs = vectors * (vectors - 1) // 2
        self.emb_l = nn.ModuleList(nn.Embedding(n, width) for n in rows)
        self.bot_l = nn.Sequential(*_layers((_DENSE_FEATURES, *_BOTTOM, width)), nn.ReLU())
        self.top_l = nn.Sequential(*_layers((width + pairs, *_TOP, 1)), nn.Sigmoid())

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        """Features [batch, 13] and row indices [batch, tables] → probability of a click [batch, 1]."""
        x = self.bot_l(dense)
        embedded = [table(categories[:, i]) for i, table in enumerate(self.emb_l)]
        vectors = torch.stack((x, *embedded), dim=1)
        products = vectors @ vectors.transpose(1, 2)
        row, column = torch.tril_indices(vectors.shape[1], vectors.shape[1], offset=-1, device=x.device)
        return self.top_l(torch.cat((x, products[:, row, column]), dim=1))


def _layers(widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]
