"""MLP0: Jouppi et al., In-datacenter performance analysis of a tensor processing unit, ISCA 2017, table 1."""

from __future__ import annotations

from torch import Tensor, nn


class MLP0(nn.Module):
    """Five fully connected layers of 20 million weights, ReLU between.

    The paper gives the layers, the weights in all and the nonlinearity; equal widths of 2000 without biases
    are our guess.
    """

    def __init__(self, *, layers: int = 5, width: int = 2000) -> None:
        super().__init__()
        stack: list[nn.Module] = []
        for _ in range(layers):
            stack += [nn.Linear(width, width, bias=False), nn.ReLU()]
        self.layers = nn.Sequential(*stack[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """[batch, width] → the same shape."""
        return self.layers(features)
