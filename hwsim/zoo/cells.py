"""Networks of repeated cells, each a small graph of operations: the space of NAS-Bench-201.

Dong & Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search" (ICLR 2020), section 2.1: a cell has
four nodes; each of the six edges between them carries one of five operations; 5⁶ = 15,625 cells. The skeleton stacks three
groups of cells with a residual block of stride two between them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from numerics.errors import InputError, unknown_name

OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")
"""What an edge can carry."""

EDGES = ("1<0", "2<0", "2<1", "3<0", "3<1", "3<2")
"""Edges of a cell: target and source node."""


def cell_space() -> dict[str, list[str]]:
    """Edge → operations, as a space that ``hwsim.sweep`` and ``hwsim.search`` take: ``model.1<0`` and so on."""
    return {f"model.{edge}": list(OPERATIONS) for edge in EDGES}


class ConvBlock(nn.Module):
    """ReLU, convolution, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (images, channels, height, width)."""
        return self.norm(self.conv(F.relu(x)))


def _operation(name: str, channels: int) -> nn.Module | None:
    if name not in OPERATIONS:
        raise unknown_name("operation", str(name), OPERATIONS)
    if name == "none":
        return None
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return ConvBlock(channels, channels, 1 if name == "conv_1x1" else 3)


class Cell(nn.Module):
    """Four nodes; each is the sum of its edges. A node that no edge reaches is zero."""

    def __init__(self, channels: int, operations: Mapping[str, str]) -> None:
        super().__init__()
        self.edges = nn.ModuleDict()
        for edge in EDGES:
            made = _operation(operations[edge], channels)
            if made is not None:
                self.edges[edge.replace("<", "_from_")] = made

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (images, channels, height, width)."""
        nodes: list[Tensor | None] = [x]
        for target in (1, 2, 3):
            total: Tensor | None = None
            for source in range(target):
                name, value = f"{target}_from_{source}", nodes[source]
                if name in self.edges and value is not None:
                    out = self.edges[name](value)
                    total = out if total is None else total + out
            nodes.append(total)
        last = nodes[3]
        return torch.zeros_like(x) if last is None else last


class Reduction(nn.Module):
    """A residual block that halves the image and doubles the channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, 3, stride=2)
        self.second = ConvBlock(outputs, outputs, 3)
        self.short = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (images, channels, height, width)."""
        return self.short(x) + self.second(self.first(x))


class CellNetwork(nn.Module):
    """Three groups of equal cells.

    Args:
        operations: edge (of ``EDGES``) → operation (of ``OPERATIONS``).
        channels: of the images.
        width: channels of the first group; each later group has twice as many.
        repeats: cells of a group (five in the paper).
        classes: of the images.

    Raises:
        InputError: an edge or an operation that there is not, an edge without one, a size below one.
    """

    def __init__(
        self, operations: Mapping[str, str], *, channels: int = 3, width: int = 16, repeats: int = 5, classes: int = 10
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("width", width), ("repeats", repeats), ("classes", classes)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")
        for edge in operations:
            if edge not in EDGES:
                raise unknown_name("edge", str(edge), EDGES)
        for edge in EDGES:
            if edge not in operations:
                raise InputError(f"operations: edge {edge!r} is missing; expected one of {', '.join(OPERATIONS)}")
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        groups: list[nn.Module] = []
        for group in range(3):
            if group:
                groups.append(Reduction(width, 2 * width))
                width *= 2
            groups += [Cell(width, operations) for _ in range(repeats)]
        self.groups = nn.Sequential(*groups)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (images, channels, height, width) → logits (images, classes)."""
        return self.head(F.relu(self.norm(self.groups(self.stem(x)))).mean(dim=(2, 3)))


def cell_network(batch: int = 1, size: int = 32, repeats: int = 5, **operations: str) -> tuple[CellNetwork, tuple[Tensor, ...]]:
    """A network of cells in evaluation mode and images for it, as ``package.module:callable`` for ``hwsim.explore.MachineCost``.

    Args:
        batch: images.
        size: their side.
        repeats: cells of a group.
        operations: edge → operation, as in ``CellNetwork``.
    """
    with torch.device("meta"):
        return CellNetwork(operations, repeats=repeats).eval(), (torch.empty(batch, 3, size, size),)
