"""A small trained module in front of a network whose memory runs at low voltage.

Sun et al., "NeuralFuse: learning to recover the accuracy of access-limited neural network inference in low-voltage regimes",
NeurIPS 2024, arXiv 2306.16869: inputs are changed so that a network with faulty weights still knows them. The network stays as it
is; the module runs at nominal voltage and takes energy of its own.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hwsim.views.display import displayed
from numerics.errors import InputError
from numerics.faults import BitFaults, inject, stream

if TYPE_CHECKING:
    from numerics.emulation import Emulation


@displayed
class FrontModule(nn.Module):
    """x → clip(x + G(x)), with a generator G that is trained (the paper's equation for F).

    Args:
        generator: G.
        shape: of an image as G takes it; None for the shape in which it comes. G's result has as many values.
        low, high: range of the inputs.
    """

    def __init__(self, generator: nn.Module, *, shape: Sequence[int] | None = None, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        if not low < high:
            raise InputError(f"low, high: expected low < high, got {low!r} and {high!r}")
        self.generator = generator
        self.shape = None if shape is None else tuple(shape)
        self.low, self.high = float(low), float(high)

    @classmethod
    def dense(cls, features: int, hidden: int, *, seed: int = 0) -> FrontModule:
        """G of two layers over flat inputs (images, features); starts as G = 0."""
        _check_counts(features=features, hidden=hidden)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            generator = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, features), nn.Tanh())
        _start_at_zero(generator[2])
        return cls(generator)

    @classmethod
    def convolutional(cls, channels: int, hidden: int, *, shape: Sequence[int] | None = None, seed: int = 0) -> FrontModule:
        """G of three 3×3 convolutions over images (images, channels, height, width); starts as G = 0.

        Args:
            channels, hidden: of an image, and between the layers.
            shape: (channels, height, width), where inputs come flat.
        """
        _check_counts(channels=channels, hidden=hidden)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            generator = nn.Sequential(
                nn.Conv2d(channels, hidden, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(hidden, hidden, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(hidden, channels, 3, padding=1),
                nn.Tanh(),
            )
        _start_at_zero(generator[4])
        return cls(generator, shape=shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs that the network behind takes in place of ``x``; of the same shape."""
        given = x if self.shape is None else x.reshape(len(x), *self.shape)
        return torch.clamp(x + self.generator(given).reshape(x.shape), self.low, self.high)


def _start_at_zero(layer: nn.Module) -> None:
    # A network that works loses nothing before the first step.
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")


@displayed
class FrontedNetwork(nn.Module):
    """A front module and its network as one module, with paths ``front`` and ``base``: what is traced, emulated and measured.

    A ``VoltagePlan`` of ``{"base*": volts}`` leaves the front at nominal voltage; faults take ``modules="base*"``.
    """

    def __init__(self, front: nn.Module, base: nn.Module) -> None:
        super().__init__()
        self.front, self.base = front, base

    def forward(self, x: torch.Tensor) -> Any:
        """What the network makes of what the front makes of ``x``."""
        return self.base(self.front(x))


@displayed
@dataclass(frozen=True, kw_only=True)
class FrontTraining:
    """How a training went, a value each step.

    Attributes:
        clean: cross-entropy without faults, in nats.
        faulty: its mean over the step's fault maps.
    """

    clean: tuple[float, ...]
    faulty: tuple[float, ...]


def train_front_module(
    emulation: Emulation,
    front: nn.Module,
    data: tuple[torch.Tensor, torch.Tensor],
    faults: BitFaults | Sequence[BitFaults],
    *,
    steps: int = 300,
    maps: int = 4,
    batch: int = 128,
    weight: float = 5.0,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> FrontTraining:
    """Train a front module for an emulated network that is left as it is.

    A step takes fault maps that no step had before and lowers L(M₀) + weight · mean over the maps of L(M_p), where L is the
    cross-entropy of the network's outputs, M₀ has no faults and M_p has those of a map ("expectation over perturbed models"; the
    authors' code takes a weight of 5 and 10 maps). Gradients pass through the emulation's formats and through the faulty weights.

    Args:
        emulation: the network behind the front; neither its weights nor its mode change.
        front: a ``FrontModule``, or any module; an emulated one trains in its formats.
        data: inputs (images, …) and labels (images).
        faults: what fails in the network, with a ``rate`` or ``count``.
        steps, maps, batch: steps of Adam, maps and images in each.
        weight: λ above.
        learning_rate: of Adam.
        seed: of the batches and the maps.

    Raises:
        InputError: no emulation; faults at given places, in no module of the network or none at all; nothing to train; data of
            different lengths; numbers out of range; a loss that is not finite.
    """
    from numerics.emulation import Emulation as Emulated

    if not isinstance(emulation, Emulated):
        raise InputError(f"emulation: expected a module from numerics.emulate, got {type(emulation).__name__}")
    models = (faults,) if isinstance(faults, BitFaults) else tuple(faults)
    if not models or any(not isinstance(model, BitFaults) or model.places is not None for model in models):
        raise InputError("faults: expected BitFaults with a rate or a count, so that each seed has a map of its own")
    paths = [path for path, _ in emulation.module.named_modules()]
    for model in models:
        if not fnmatch.filter(paths, model.modules):
            raise InputError(f"faults: expected a pattern of the network's own module paths, got {model.modules!r}")
    if not any(parameter.requires_grad for parameter in front.parameters()):
        raise InputError("front: expected a module with parameters to train, got none")
    _check_counts(steps=steps, maps=maps, batch=batch)
    for name, value in (("weight", weight), ("learning_rate", learning_rate)):
        if not 0 < value < float("inf"):
            raise InputError(f"{name}: expected a number above 0, got {value!r}")
    x, y = data
    if len(x) != len(y) or not len(x):
        raise InputError(f"data: expected as many labels as images and at least one, got {len(x)} images and {len(y)} labels")
    optimizer = torch.optim.Adam(front.parameters(), lr=learning_rate)
    order = stream(seed, "front", "batches")
    clean, faulty = [], []
    with _frozen(emulation):
        front.train()
        for step in range(steps):
            chosen = torch.from_numpy(order.integers(0, len(x), min(batch, len(x))))
            changed, labels = front(x[chosen]), y[chosen]
            without = nn.functional.cross_entropy(emulation(changed), labels)
            total = torch.zeros(())
            for number in range(maps):
                with inject(emulation, models, seed=map_seed(seed, step * maps + number)):
                    total = total + nn.functional.cross_entropy(emulation(changed), labels)
            loss = without + weight * total / maps
            if not bool(torch.isfinite(loss)):
                raise InputError(
                    f"faults: the loss of step {step} is {loss.item()}; expected formats and rates whose outputs stay finite"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            clean.append(without.item())
            faulty.append(total.item() / maps)
    front.eval()
    return FrontTraining(clean=tuple(clean), faulty=tuple(faulty))


def map_seed(seed: int, number: int) -> int:
    """The seed of a training's fault map: never one that a campaign tries, which names its maps otherwise."""
    return int(stream(seed, "front", "map", number).integers(0, 1 << 56))


@contextmanager
def _frozen(emulation: Emulation) -> Iterator[None]:
    """No gradients for the network's own parameters, and the faults of inference: weights keep theirs."""
    wanted = [(p, p.requires_grad) for p in emulation.parameters()]
    training = emulation.training
    emulation.eval()
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, grad in wanted:
            parameter.requires_grad_(grad)
        emulation.train(training)
