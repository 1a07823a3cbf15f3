"""Digits as light, and the optical networks that tests train on them."""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from photonic.detection import Receiver, ShotNoise, ThermalNoise
from photonic.fabrication import fabricate
from photonic.imperfections import Drift, Imperfections, PhaseError, SplitterError
from photonic.training import OpticalLayer, PhysicalLayer, UnitPower, random_mesh

NOISY = Receiver(shot=ShotNoise(), thermal=ThermalNoise(1e3))
"""Of 1 mW and 1 GHz: noise of 6e-3 of the light at full scale."""
TRAINED = 1200


@cache
def digits(side=4):
    """Images averaged to side × side, as amplitudes of norm 1, and labels: to train and to test."""
    images, labels = load_digits(return_X_y=True)
    step = 8 // side
    images = images.reshape(-1, side, step, side, step).mean(axis=(2, 4)).reshape(len(images), -1)
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.from_numpy(images[order] / np.linalg.norm(images[order], axis=1, keepdims=True))
    y = torch.from_numpy(labels[order])
    return x[:TRAINED], y[:TRAINED], x[TRAINED:], y[TRAINED:]


def chip(ports, seed, sigma=0.1, drift=0.0):
    errors = Imperfections(PhaseError(sigma), splitter_error=SplitterError(sigma / 2), drift=Drift(drift))
    return fabricate(random_mesh(ports, seed=seed), errors, seed=seed)


def batches(epochs, size, seed=0):
    for epoch in range(epochs):
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(TRAINED))
        yield from order.split(size)


class Scaled(nn.Module):
    """Powers to scores."""

    def forward(self, powers):
        return 15 * powers


def optical(first, second):
    """Two layers without a digital weight."""
    return nn.Sequential(first, UnitPower(), second, Scaled())


def machines(net, errors, seed):
    """The chips that a network of optical layers is put on."""
    return optical(
        *(
            PhysicalLayer(
                fabricate(layer.linear.mesh, errors, seed=2 * seed + k), outputs=layer.outputs, detection=NOISY, seed=seed
            )
            for k, layer in enumerate(layer for layer in net if isinstance(layer, OpticalLayer))
        )
    )


def train(net, x, y, *, epochs, rate=0.03, size=100, seed=0):
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for batch in batches(epochs, size, seed):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
    return net


@torch.no_grad()
def accuracy(net, x, y):
    return float((net(x).argmax(dim=1) == y).double().mean())
