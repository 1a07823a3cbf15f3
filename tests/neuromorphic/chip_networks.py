"""Chips and networks that the tests of mapping share."""

from pathlib import Path

import numpy as np

from hwsim.registry import read_spec
from hwsim.spec import validate_spec
from neuromorphic.chip.spec import ChipSpec
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses

SPECS = Path(__file__).parents[2] / "neuromorphic" / "specs"


def chip(name, **changes):
    """A bundled chip with fields changed; those of a section are given as a mapping."""
    data = read_spec(SPECS / f"{name}.yaml")
    for field, value in changes.items():
        data[field] = {**data[field], **value} if isinstance(value, dict) else value
    return validate_spec(ChipSpec, data, source=name)


def population(name, size, kind="integrate_and_fire", **parameters):
    return Population(name, (size,) if isinstance(size, int) else size, Neurons(kind, **parameters))


def network(populations, projections, name="net"):
    return SpikingNetwork(name, tuple(populations), tuple(projections), (populations[-1].name,))


def dense(name, source, target, matrix, delay=0):
    return Projection(name, source, target, Synapses.from_dense(matrix), delay)


def sparse(name, source, target, matrix, delay=1):
    return Projection(name, source, target, Synapses.from_dense(matrix, keep_zeros=False), delay)


def convolution(generator, shape, channels, kernel, stride=1):
    """Synapses of a convolution without padding, and the shape it leads to."""
    into, height, width = shape
    down, right = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    index = np.meshgrid(*map(np.arange, (channels, down, right, into, kernel, kernel)), indexing="ij")
    out, y, x, channel, dy, dx = (axis.ravel() for axis in index)
    weights = generator.normal(size=(channels, into, kernel, kernel))
    synapses = Synapses.from_coo(
        (channel * height + y * stride + dy) * width + x * stride + dx,
        (out * down + y) * right + x,
        weights[out, channel, dy, dx],
        sources=into * height * width,
        stored=weights.size,
        kind="convolution",
    )
    return synapses, (channels, down, right)


def image_network(shape, layers, dense_sizes, seed=0):
    """Convolutions (channels, kernel, stride), then dense layers."""
    generator = np.random.default_rng(seed)
    populations, projections = [population("input", shape, "input")], []
    for number, (channels, kernel, stride) in enumerate(layers):
        synapses, shape = convolution(generator, shape, channels, kernel, stride)
        populations.append(population(f"conv{number}", shape))
        projections.append(Projection(f"to_conv{number}", populations[-2].name, f"conv{number}", synapses))
    for number, size in enumerate(dense_sizes):
        matrix = generator.normal(size=(size, populations[-1].size))
        projections.append(dense(f"to_dense{number}", populations[-1].name, f"dense{number}", matrix))
        populations.append(population(f"dense{number}", size))
    return network(populations, projections, "images")


def random_network(seed):
    """Inputs, two populations that talk to each other and themselves, with delays; some pairs have several synapses."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(5, 60, size=3).tolist()
    populations = [population("in", sizes[0], "input"), population("a", sizes[1]), population("b", sizes[2])]

    def matrix(target, source):
        weights = generator.integers(-3, 4, size=(target, source)).astype(float)
        return weights * (generator.random((target, source)) < generator.random())

    projections = [
        dense("in_a", "in", "a", matrix(sizes[1], sizes[0])),
        sparse("a_b", "a", "b", matrix(sizes[2], sizes[1]), 3),
        sparse("again", "a", "b", matrix(sizes[2], sizes[1]), 1),
        sparse("b_a", "b", "a", matrix(sizes[1], sizes[2])),
        sparse("b_b", "b", "b", matrix(sizes[2], sizes[2])),
        sparse("in_b", "in", "b", matrix(sizes[2], sizes[0])),
    ]
    return network(populations, projections)


def connectome(neurons=3000, synapses=65_000, seed=0, modules=12):
    """A sparse recurrent network of modules that talk mostly within, one in ten of their synapses to any other."""
    generator = np.random.default_rng(seed)
    source = generator.integers(0, neurons, synapses)
    size = neurons // modules
    near = source // size * size + generator.integers(0, size, synapses)
    target = np.where(generator.random(synapses) < 0.9, np.minimum(near, neurons - 1), generator.integers(0, neurons, synapses))
    # Names say nothing about modules: neighbours in one are strangers by number.
    number = generator.permutation(neurons)
    wires = Synapses.from_coo(number[source], number[target], generator.normal(size=synapses), sources=neurons)
    feed = sparse("feed", "input", "brain", (generator.random((neurons, 64)) < 0.05).astype(float), 1)
    return network(
        [population("input", 64, "input"), population("brain", neurons)], [feed, Projection("wires", "brain", "brain", wires, 1)]
    )
