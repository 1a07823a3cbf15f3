"""AlexNet: Krizhevsky et al., NeurIPS 2012, and torchvision's one-tower variant, from arXiv:1404.5997."""

from __future__ import annotations

from torch import Tensor, nn


class AlexNet(nn.Module):
    """The network of 2012 (section 3): two towers, as groups, that meet at layer 3. 227×227 images."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4),
            nn.ReLU(),
            _response_norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(),
            _response_norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = _classifier(classes)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 3, 227, 227] → logits [batch, classes]."""
        return self.classifier(self.features(images).flatten(1))


class AlexNetTorchvision(nn.Module):
    """torchvision's ``alexnet``: narrower, no groups, no normalisation. 224×224 images."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = _classifier(classes)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 3, 224, 224] → logits [batch, classes]."""
        return self.classifier(self.features(images).flatten(1))


def _response_norm() -> nn.Module:
    # The paper's α = 1e-4 multiplies the sum over 5 channels, PyTorch's the mean.
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def _classifier(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )
