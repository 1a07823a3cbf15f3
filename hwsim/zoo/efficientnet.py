"""EfficientNet-B0: Tan and Le, arXiv:1905.11946, with torchvision's names."""

from __future__ import annotations

from torch import Tensor, nn

# Table 1: expansion, kernel, stride of the first block, input channels, output channels, blocks.
_STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


class SqueezeExcitation(nn.Module):
    """Channels scaled by a gate computed from their means: Hu et al., arXiv:1709.01507."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.SiLU()
        self.scale_activation = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w] → the same shape."""
        gate = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return self.scale_activation(gate) * x


class MBConv(nn.Module):
    """Expand, filter depthwise, squeeze and excite, project; a shortcut where shapes agree."""

    def __init__(self, channels: int, out_channels: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = channels * expansion
        expand = [_conv_norm(channels, hidden, 1)] if expansion != 1 else []
        self.block = nn.Sequential(
            *expand,
            _conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden),
            SqueezeExcitation(hidden, channels // 4),
            _conv_norm(hidden, out_channels, 1, activation=False),
        )
        self.shortcut = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w] → [batch, out_channels, h / stride, w / stride]."""
        return self.block(x) + x if self.shortcut else self.block(x)


class EfficientNetB0(nn.Module):
    """The baseline network (table 1). Stochastic depth, an identity in inference, is left out."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        stages = [
            nn.Sequential(
                *(
                    MBConv(
                        out_channels if block else channels,
                        out_channels,
                        expansion=expansion,
                        kernel=kernel,
                        stride=1 if block else stride,
                    )
                    for block in range(blocks)
                )
            )
            for expansion, kernel, stride, channels, out_channels, blocks in _STAGES
        ]
        self.features = nn.Sequential(_conv_norm(3, 32, 3, stride=2), *stages, _conv_norm(320, 1280, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 3, h, w] → logits [batch, classes]."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


def _conv_norm(
    channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        *([nn.SiLU()] if activation else []),
    )
