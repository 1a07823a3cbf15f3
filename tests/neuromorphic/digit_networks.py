"""The 8×8 digits of scikit-learn (1,797 images, UCI, CC BY 4.0), split once, and networks trained on them."""

from functools import cache

import torch
from torch import nn


@cache
def digits():
    """Training and test images (examples, 64) from 0 to 1 and their labels: 1,347 and 450."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=450, random_state=0, stratify=labels)
    x_train, x_test, y_train, y_test = (torch.tensor(part) for part in parts)
    return x_train.float(), y_train, x_test.float(), y_test


def train(module, loss_of, *, epochs, rate, batch=64, seed=0, events=None):
    """Adam with a learning rate that falls to 0; the order of examples is seeded. ``events`` (steps, examples, …): theirs."""
    x, y, _, _ = digits()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=generator).split(batch):
            optimizer.zero_grad()
            loss_of(module, x[chosen] if events is None else events[:, chosen], y[chosen]).backward()
            optimizer.step()
        schedule.step()
    return module


@cache
def trained_mlp():
    """64-64-64-10 with ReLU and a batch normalisation."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    return train(module, lambda m, x, y: nn.functional.cross_entropy(m(x), y), epochs=12, rate=5e-3).eval()


@cache
def trained_cnn():
    """Two convolutions with batch normalisation, an average pool between them."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
        ),
    )
    return train(module, lambda m, x, y: nn.functional.cross_entropy(m(x), y), epochs=10, rate=5e-3).eval()[1]


def accuracy(outputs, labels):
    return float((outputs.argmax(-1) == labels).double().mean())
