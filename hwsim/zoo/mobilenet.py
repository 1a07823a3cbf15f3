"""MobileNetV2: Sandler et al., arXiv:1801.04381, with torchvision's names."""

from __future__ import annotations

from torch import Tensor, nn

# Table 2: expansion, output channels, blocks, stride of the first.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand by 1×1, filter by depthwise 3×3, project by 1×1; a shortcut where shapes agree (figure 4d)."""

    def __init__(self, channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        expand = [_conv_norm(channels, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv_norm(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w] → [batch, out_channels, h / stride, w / stride]."""
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """The network of width multiplier 1 (table 2)."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_norm(3, 32, 3, stride=2)]
        channels = 32
        for expansion, width, blocks, stride in _STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, width, stride=1 if block else stride, expansion=expansion))
                channels = width
        self.features = nn.Sequential(*layers, _conv_norm(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 3, h, w] → logits [batch, classes]."""
        return self.classifier(self.features(images).mean((2, 3)))


def _conv_norm(channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU6(),
    )
