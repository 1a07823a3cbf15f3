"""Building blocks of published networks, for studies of what their latency depends on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def convolution(channels_in: int, channels_out: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with padding that keeps the size, batch normalisation and ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


def depthwise_separable(channels_in: int, channels_out: int, kernel: int = 3, *, stride: int = 1) -> nn.Sequential:
    """A depthwise convolution and a 1×1 convolution (Howard et al., MobileNets, arXiv:1704.04861, section 3.1)."""
    return nn.Sequential(
        convolution(channels_in, channels_in, kernel, stride=stride, groups=channels_in),
        convolution(channels_in, channels_out, 1),
    )


def inverted_bottleneck(channels: int, *, expansion: int = 4, kernel: int = 3, fused: bool = False) -> nn.Sequential:
    """1×1 expansion, depthwise convolution, 1×1 projection; ``fused`` makes the first two one full convolution
    (Gupta, Akin, Accelerator-aware neural network design using AutoML, arXiv:2003.02838, section 4.1).
    """
    wide = channels * expansion
    first = (
        [convolution(channels, wide, kernel)]
        if fused
        else [convolution(channels, wide, 1), convolution(wide, wide, kernel, groups=wide)]
    )
    return nn.Sequential(*first, nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))


class PartialConvolution(nn.Module):
    """A convolution of the first ``channels / share`` channels; the others pass (Chen et al., FasterNet, arXiv:2303.03667,
    section 3.2)."""

    def __init__(self, channels: int, *, share: int = 4, kernel: int = 3) -> None:
        super().__init__()
        self.part = channels // share
        self.conv = nn.Conv2d(self.part, self.part, kernel, 1, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → the same shape."""
        # In place, as the paper's inference code has it: the channels that pass are not touched.
        x[:, : self.part] = self.conv(x[:, : self.part])
        return x


class FasterNetBlock(nn.Module):
    """A partial convolution, two 1×1 convolutions and a shortcut (FasterNet, figure 4)."""

    def __init__(self, channels: int, *, expansion: int = 2) -> None:
        super().__init__()
        self.spatial = PartialConvolution(channels)
        self.expand = convolution(channels, channels * expansion, 1)
        self.project = nn.Conv2d(channels * expansion, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → the same shape."""
        return x + self.project(self.expand(self.spatial(x.clone())))


class DenseBlock(nn.Module):
    """Each layer reads all before it, concatenated (Huang et al., DenseNet, arXiv:1608.06993, section 3), with the 1×1
    bottleneck of DenseNet-B."""

    def __init__(self, channels: int, *, layers: int = 8, growth: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(convolution(channels + i * growth, 4 * growth, 1), convolution(4 * growth, growth))
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → [batch, channels + layers · growth, height, width]."""
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1) if len(features) > 1 else x))
        return torch.cat(features, 1)


class HarmonicBlock(nn.Module):
    """Layer l reads layer l − 2ⁿ for each n where 2ⁿ divides l, and has growth · mⁿ channels for the largest such n (Chao et
    al., HarDNet, arXiv:1909.00948, section 3)."""

    def __init__(self, channels: int, *, layers: int = 8, growth: int = 32, multiplier: float = 1.7) -> None:
        super().__init__()
        self.sources: list[list[int]] = []
        widths = [channels]
        blocks = []
        for layer in range(1, layers + 1):
            powers = [n for n in range(layer.bit_length()) if layer % (1 << n) == 0]
            read = [layer - (1 << n) for n in powers]
            width = round(growth * multiplier ** max(powers) / 2) * 2
            blocks.append(convolution(sum(widths[i] for i in read), width))
            self.sources.append(read)
            widths.append(width)
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → the odd layers and the last, concatenated."""
        features = [x]
        for read, layer in zip(self.sources, self.layers, strict=True):
            chosen = [features[i] for i in read]
            features.append(layer(torch.cat(chosen, 1) if len(chosen) > 1 else chosen[0]))
        last = len(features) - 1
        return torch.cat([f for i, f in enumerate(features) if i and (i % 2 or i == last)], 1)
