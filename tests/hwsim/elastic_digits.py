"""Sub-networks of one trained network on scikit-learn's digits: what they cost is asked of machines, how well they do of the test
images in the formats of the configuration."""

from functools import cache

import torch
from sklearn.datasets import load_digits

import numerics
from hwsim.zoo.elastic import Architecture, ElasticNetwork, SubNetwork, train_elastic
from numerics.recipes import get_recipe

WIDTHS, DEPTHS, KERNELS = ((4, 8), (8, 16)), (1, 2), (3, 5)

ARCHITECTURES = {
    "model.width0": list(WIDTHS[0]),
    "model.width1": list(WIDTHS[1]),
    "model.depth": list(DEPTHS),
    "model.kernel": list(KERNELS),
}
"""16 architectures."""

BITS = {"weights.stages.0*": ["int8", "int4"], "weights.stages.1*": ["int8", "int4"]}
"""4 choices of formats."""


def architecture(width0, width1, depth, kernel):
    return Architecture((width0, width1), (depth, depth), (kernel, kernel))


def network(**sizes):
    """A sub-network and its input, for a machine."""
    with torch.device("meta"):
        return SubNetwork(1, architecture(**sizes), 10), torch.empty(1, 1, 8, 8)


@cache
def trained():
    """The largest network after its training, images to normalise by, and test images with their labels."""
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1200], order[1200:1500]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            whole = ElasticNetwork(widths=(8, 16), depth=2, kernel=5)
        choices = [architecture(a, b, d, k) for k in KERNELS for d in DEPTHS for b in WIDTHS[1] for a in WIDTHS[0]]
        train_elastic(whole, x[train], y[train], choices=choices, steps=200, batch=64)
    finally:
        torch.set_num_threads(threads)
    return whole, x[train], x[test], y[test]


@cache
def _accuracy(chosen, formats):
    whole, images, x, y = trained()
    recipe = get_recipe("int8")
    for pattern, weight in reversed(formats):
        recipe = recipe.excepting(pattern, weight=weight)
    emulated = numerics.emulate(whole.sub_network(chosen, images), recipe)
    with torch.no_grad():
        return float((emulated(x).argmax(1) == y).float().mean())


def accuracy(configuration):
    """Share of the test images that are classified as labelled, in the configuration's formats."""
    sizes = {name.removeprefix("model."): value for name, value in configuration.items() if name.startswith("model.")}
    formats = tuple(
        (name.removeprefix("weights."), value) for name, value in configuration.items() if name.startswith("weights.")
    )
    return {"accuracy": _accuracy(architecture(**sizes), formats)}
