"""A convolutional network that holds many smaller ones: each takes the first channels, the first blocks and the middle of the
kernels of its layers, so that one training serves a whole space of architectures.

The space is that of Cai et al., "Once-for-All" (ICLR 2020): elastic depth, width and kernel. The training is the sandwich rule of
Yu & Huang, "Universally Slimmable Networks and Improved Training Techniques" (ICCV 2019, section 3.2): in each step the largest,
the smallest and some random sub-networks. As there (section 3.4), each sub-network gets batch statistics of its own afterwards;
here they are folded into its convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from numerics.errors import InputError


@dataclass(frozen=True)
class Architecture:
    """A sub-network: a number for each stage.

    Attributes:
        widths: channels.
        depths: blocks.
        kernels: side of the kernels, odd.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]


class Block(nn.Module):
    """A convolution with its ReLU; added to its input where that has the same shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (images, channels, height, width)."""
        y = F.relu(self.conv(x))
        return x + y if self.residual else y


class SubNetwork(nn.Module):
    """A network of its own: ``stages.S.B.conv`` and ``head``."""

    def __init__(self, channels: int, architecture: Architecture, classes: int) -> None:
        super().__init__()
        stages = []
        for stage, (width, depth, kernel) in enumerate(
            zip(architecture.widths, architecture.depths, architecture.kernels, strict=True)
        ):
            blocks = []
            for block in range(depth):
                first = block == 0
                made = Block(channels if first else width, width, kernel, stride=2 if stage and first else 1, residual=not first)
                blocks.append(made)
            stages.append(nn.Sequential(*blocks))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (images, channels, height, width) → logits (images, classes)."""
        return self.head(self.stages(x).mean(dim=(2, 3)))


class ElasticNetwork(nn.Module):
    """The largest network of a space; ``sub_network`` cuts the others out of it.

    Args:
        channels: of the images.
        widths: of each stage at most; each stage but the first halves the image.
        depth: blocks of a stage at most.
        kernel: side of the kernels at most, odd.
        classes: of the images.

    Raises:
        InputError: a size below one, an even kernel.
    """

    def __init__(
        self, *, channels: int = 1, widths: Sequence[int] = (16, 32), depth: int = 3, kernel: int = 5, classes: int = 10
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("depth", depth), ("kernel", kernel), ("classes", classes)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")
        if kernel % 2 == 0:
            raise InputError(f"kernel: expected an odd number, got {kernel}")
        if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
            raise InputError(f"widths: expected integers ≥ 1, got {list(widths)!r}")
        self.largest = Architecture(tuple(widths), (depth,) * len(widths), (kernel,) * len(widths))
        self.channels, self.classes = channels, classes
        whole = SubNetwork(channels, self.largest, classes)
        self.stages, self.head = whole.stages, whole.head
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(width, track_running_stats=False) for _ in range(depth)) for width in widths
        )

    def check(self, architecture: Architecture) -> None:
        """Raise ``InputError`` for an architecture that is no part of this network."""
        for name in ("widths", "depths", "kernels"):
            values, most = getattr(architecture, name), getattr(self.largest, name)
            if len(values) != len(most) or any(not 1 <= value <= limit for value, limit in zip(values, most, strict=True)):
                raise InputError(f"{name}: expected {len(most)} integers from 1 to {list(most)}, got {list(values)}")
        for kernel in architecture.kernels:
            if kernel % 2 == 0:
                raise InputError(f"kernels: expected odd numbers, got {list(architecture.kernels)}")

    def forward(self, x: Tensor, architecture: Architecture | None = None) -> Tensor:
        """Logits of a sub-network, the largest if none is given, normalised by the statistics of these images."""
        chosen = architecture or self.largest
        self.check(chosen)
        return self._run(x, chosen, None)

    def _run(self, x: Tensor, chosen: Architecture, folded: SubNetwork | None) -> Tensor:
        """The logits; what the sub-network's convolutions become goes into ``folded``."""
        for stage, (width, depth, kernel) in enumerate(zip(chosen.widths, chosen.depths, chosen.kernels, strict=True)):
            for number in range(depth):
                block: Block = self.stages[stage][number]  # type: ignore[index]
                norm: nn.BatchNorm2d = self.norms[stage][number]  # type: ignore[index]
                edge = (block.conv.kernel_size[0] - kernel) // 2
                weight = block.conv.weight[:width, : x.shape[1], edge : edge + kernel, edge : edge + kernel]
                y = F.conv2d(x, weight, stride=block.conv.stride, padding=kernel // 2)
                if folded is not None:
                    variance, mean = torch.var_mean(y, dim=(0, 2, 3), correction=0)
                    gain = norm.weight[:width] / torch.sqrt(variance + norm.eps)
                    theirs: Block = folded.stages[stage][number]  # type: ignore[index]
                    theirs.conv.weight.copy_(weight * gain[:, None, None, None])
                    assert theirs.conv.bias is not None
                    theirs.conv.bias.copy_(norm.bias[:width] - mean * gain)
                y = F.relu(F.batch_norm(y, None, None, norm.weight[:width], norm.bias[:width], training=True, eps=norm.eps))
                x = x + y if block.residual else y
        return F.linear(x.mean(dim=(2, 3)), self.head.weight[:, : x.shape[1]], self.head.bias)

    @torch.no_grad()
    def sub_network(self, architecture: Architecture, images: Tensor) -> SubNetwork:
        """A network of its own with the weights of this one.

        Args:
            architecture: which.
            images: those (images, channels, height, width) whose statistics it is normalised by, of the training set.

        Raises:
            InputError: an architecture that is no part of this network.
        """
        self.check(architecture)
        found = SubNetwork(self.channels, architecture, self.classes).to(self.head.weight.device)
        self._run(images, architecture, found)
        found.head.weight.copy_(self.head.weight[:, : found.head.in_features])
        found.head.bias.copy_(self.head.bias)
        return found.eval()


def train_elastic(
    network: ElasticNetwork,
    inputs: Tensor,
    labels: Tensor,
    *,
    choices: Sequence[Architecture],
    steps: int = 300,
    batch: int = 128,
    random: int = 2,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> list[float]:
    """Train all sub-networks at once by the sandwich rule, in place, with Adam and a rate that falls to zero along a cosine.

    Args:
        inputs: images (images, channels, height, width).
        labels: classes (images,).
        choices: architectures, the smallest first and the largest last; random ones are drawn from them.
        steps: batches.
        batch: images a step.
        random: random architectures a step.
        learning_rate: at the start.
        seed: of batches and architectures.

    Returns:
        Loss of the largest network after each step.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        picked = torch.randint(len(inputs), (batch,), generator=generator)
        x, y = inputs[picked], labels[picked]
        drawn = torch.randint(len(choices), (random,), generator=generator).tolist()
        optimizer.zero_grad()
        for architecture in (choices[-1], choices[0], *(choices[i] for i in drawn)):
            loss = F.cross_entropy(network(x, architecture), y)
            loss.backward()
            if architecture is choices[-1]:
                losses.append(float(loss.detach()))
        optimizer.step()
        schedule.step()
    return losses
