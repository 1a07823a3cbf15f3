"""A fixed sparse recurrent network with the statistics of an insect's connectome: as a reservoir and as a spiking network.

The larval fruit fly's brain as a "biological processing unit": S. Yu et al., "Biological Processing Units: Leveraging an Insect
Connectome to Pioneer Biofidelic Neural Architectures", arXiv 2507.10951, 2025: 3,000 neurons, 65,000 fixed weights between them,
only what leads in and out is trained. No measured connectome comes with this package: ``generated_connectome`` draws one.

>>> fly = generated_connectome(seed=0)
>>> fly.neurons, fly.count, f"{fly.density:.2%}"
(3000, 65000, '0.72%')
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed, displaying
from neuromorphic.network import Neurons, Population, Projection, Reset, SpikingNetwork, Synapses
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


@displaying("count", "density")
@dataclass(frozen=True, eq=False)
class Connectome:
    """A directed network with signed weights.

    Attributes:
        neurons: how many.
        source, target: (weights,) int32, ordered by source, then target; every pair at most once, none of a neuron with itself.
        weight: (weights,) float64.
        sensory: neurons that the input reaches, ascending.
        origin: where it is from.

    Raises:
        InputError: arrays that do not fit together, a neuron that is not there, a pair twice.
    """

    neurons: int
    source: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float64]
    sensory: npt.NDArray[np.int64]
    origin: str

    def __post_init__(self) -> None:
        if not self.source.shape == self.target.shape == self.weight.shape or self.source.ndim != 1:
            raise InputError("connectome: source, target and weight do not fit together")
        for name in ("source", "target", "sensory"):
            numbers = getattr(self, name)
            if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.neurons:
                raise InputError(f"{name}: expected 0 to {self.neurons - 1}, got {numbers.min()} to {numbers.max()}")
        pairs = self.source.astype(np.int64) * self.neurons + self.target
        if (np.diff(pairs) <= 0).any():
            raise InputError("connectome: expected pairs by source and target, each once")
        if not np.isfinite(self.weight).all():
            raise InputError("weight: a number is not finite")

    @classmethod
    def of_matrix(cls, matrix: npt.ArrayLike, *, sensory: npt.ArrayLike, origin: str) -> Connectome:
        """Of a matrix (sources, targets), as connectomes are published: entry (s, t) is the weight from s to t; 0: none."""
        dense = np.asarray(matrix, np.float64)
        if dense.ndim != 2 or dense.shape[0] != dense.shape[1]:
            raise InputError(f"matrix: expected (neurons, neurons), got {dense.shape}")
        source, target = np.nonzero(dense)
        chosen = np.unique(np.asarray(sensory, np.int64))
        return cls(len(dense), source.astype(np.int32), target.astype(np.int32), dense[source, target], chosen, origin)

    @property
    def count(self) -> int:
        """Number of weights."""
        return int(self.weight.size)

    @property
    def density(self) -> float:
        """Weights per pair of neurons."""
        return self.count / self.neurons**2

    def matrix(self) -> Any:
        """The weights as a sparse matrix of scipy, (targets, sources): what a step multiplies the neurons' values by."""
        from scipy.sparse import csr_matrix

        return csr_matrix((self.weight, (self.target, self.source)), (self.neurons, self.neurons))

    def radius(self) -> float:
        """Largest magnitude of an eigenvalue."""
        from scipy.sparse.linalg import eigs

        start = np.random.default_rng(0).normal(size=self.neurons)
        return float(np.abs(eigs(self.matrix(), k=1, which="LM", v0=start, tol=1e-6, return_eigenvectors=False)[0]))

    def scaled(self, radius: float) -> Connectome:
        """All weights times one factor, so that the largest magnitude of an eigenvalue is ``radius``."""
        if not (np.isfinite(radius) and radius > 0):
            raise InputError(f"radius: expected a number > 0, got {radius!r}")
        return replace(self, weight=self.weight * (radius / self.radius()))

    def synapses(self) -> Synapses:
        """As synapses by source."""
        return Synapses.from_coo(self.source, self.target, self.weight, sources=self.neurons)


def generated_connectome(
    neurons: int = 3000,
    weights: int = 65_000,
    *,
    seed: int,
    degree_spread: float = 0.8,
    synapses_per_weight: float = 5.6,
    inhibitory: float = 0.3,
    sensory: int = 430,
) -> Connectome:
    """A random network with the published counts; its weights are numbers of synapses with a sign for each source.

    Pairs are drawn without repetition with probability ∝ out_s · in_t, out and in log-normal. Published: neurons and weights
    (arXiv 2507.10951); 548,000 synapses, of which two thirds, so 5.6 a weight, lead from an axon to a dendrite, as the weights do
    (M. Winding et al., "The connectome of an insect brain", Science 379, eadd9330, 2023). Assumed: the log-normal shape,
    ``degree_spread``, the share of inhibitory neurons, the number of sensory neurons, and that nothing else (layers, sides, cell
    types) matters.

    Args:
        neurons, weights: how many.
        seed: of all that is drawn.
        degree_spread: standard deviation of the logarithm of out and in.
        synapses_per_weight: mean, > 1; 1 + a Poisson number of log-normal mean.
        inhibitory: share of neurons whose weights are negative.
        sensory: neurons that the input reaches.

    Raises:
        InputError: more weights than pairs (half of them at most can be drawn), or a number out of range.
    """
    for name, value, low, high in (
        ("neurons", neurons, 2, 1_000_000),
        ("weights", weights, 1, neurons * (neurons - 1) // 2),
        ("sensory", sensory, 1, neurons),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise InputError(f"{name}: expected an integer from {low} to {high}, got {value!r}")
    if not 0 <= inhibitory <= 1:
        raise InputError(f"inhibitory: expected 0 to 1, got {inhibitory!r}")
    if not (np.isfinite(degree_spread) and 0 <= degree_spread <= 2):
        raise InputError(f"degree_spread: expected 0 to 2, got {degree_spread!r}")
    if not (np.isfinite(synapses_per_weight) and synapses_per_weight > 1):
        raise InputError(f"synapses_per_weight: expected a number > 1, got {synapses_per_weight!r}")
    rng = np.random.default_rng(seed)
    out, into = (rng.lognormal(0.0, degree_spread, neurons) for _ in range(2))
    found = np.zeros(0, np.int64)
    while found.size < weights:
        s, t = (rng.choice(neurons, 2 * weights, p=chance / chance.sum()) for chance in (out, into))
        drawn = np.concatenate([found, (s * neurons + t)[s != t]])
        _, once = np.unique(drawn, return_index=True)
        found = drawn[np.sort(once)]
    pairs = np.sort(found[:weights])
    mean = rng.lognormal(np.log(synapses_per_weight - 1) - 0.5, 1.0, weights)
    signs = np.where(rng.permutation(neurons) < round(inhibitory * neurons), -1.0, 1.0)
    source = (pairs // neurons).astype(np.int32)
    return Connectome(
        int(neurons),
        source,
        (pairs % neurons).astype(np.int32),
        signs[source] * (1 + rng.poisson(mean)),
        np.sort(rng.choice(neurons, sensory, replace=False)),
        f"generated, seed {seed}: published counts of neurons, weights and synapses; degrees, signs and inputs assumed",
    )


def random_encoder(inputs: int, sensory: int, *, fan_in: int, scale: float = 1.0, seed: int) -> npt.NDArray[np.float64]:
    """Fixed weights (sensory, inputs) into the sensory neurons, ``fan_in`` normal ones each, of variance scale² / fan_in.

    Raises:
        InputError: more fan-in than inputs.
    """
    if not 1 <= fan_in <= inputs:
        raise InputError(f"fan_in: expected 1 to {inputs}, got {fan_in!r}")
    rng = np.random.default_rng(seed)
    found = np.zeros((sensory, inputs))
    for row in found:
        row[rng.choice(inputs, fan_in, replace=False)] = rng.normal(0, scale / np.sqrt(fan_in), fan_in)
    return found


def reservoir_states(connectome: Connectome, encoder: npt.ArrayLike, x: npt.ArrayLike, *, steps: int) -> npt.NDArray[np.float64]:
    """What the neurons hold after so many steps of r ← max(0, W · r + E · x) from 0, with x held, (samples, neurons).

    Args:
        connectome: W.
        encoder: E, (sensory, inputs).
        x: (samples, inputs).
        steps: ≥ 1.

    Raises:
        InputError: arrays that do not fit together.
    """
    rows, into = np.asarray(x, np.float64), np.asarray(encoder, np.float64)
    if into.ndim != 2 or into.shape[0] != connectome.sensory.size:
        raise InputError(f"encoder: expected ({connectome.sensory.size}, inputs), got {into.shape}")
    if rows.ndim != 2 or rows.shape[1] != into.shape[1]:
        raise InputError(f"x: expected (samples, {into.shape[1]}), got {rows.shape}")
    if steps < 1:
        raise InputError(f"steps: expected ≥ 1, got {steps!r}")
    drive = np.zeros((connectome.neurons, rows.shape[0]))
    drive[connectome.sensory] = into @ rows.T
    weights, r = connectome.matrix(), np.zeros_like(drive)
    for _ in range(steps):
        r = np.maximum(weights @ r + drive, 0.0)
    return r.T


def reservoir_network(
    connectome: Connectome,
    encoder: npt.ArrayLike,
    *,
    decay_v: float = 0.9,
    threshold: float = 1.0,
    reset: Reset = "zero",
    refractory_steps: int = 0,
) -> SpikingNetwork:
    """The same wiring as leaky integrate-and-fire neurons: ``input`` (inputs) → ``brain`` (neurons), whose weights take a step.

    What the input sends may be a value for each step, or spikes.
    """
    into = np.asarray(encoder, np.float64)
    if into.ndim != 2 or into.shape[0] != connectome.sensory.size:
        raise InputError(f"encoder: expected ({connectome.sensory.size}, inputs), got {into.shape}")
    neuron, source = np.nonzero(into)
    return SpikingNetwork(
        "connectome",
        (
            Population("input", (into.shape[1],), Neurons("input")),
            Population(
                "brain",
                (connectome.neurons,),
                Neurons(
                    "integrate_and_fire",
                    decay_v=decay_v,
                    threshold=threshold,
                    reset=reset,
                    refractory_steps=refractory_steps,
                ),
            ),
        ),
        (
            Projection(
                "senses",
                "input",
                "brain",
                Synapses.from_coo(source, connectome.sensory[neuron], into[neuron, source], sources=into.shape[1]),
            ),
            Projection("recurrent", "brain", "brain", connectome.synapses(), 1),
        ),
        ("brain",),
        notes=(connectome.origin,),
    )


@displayed
@dataclass(frozen=True, eq=False)
class LinearReadout:
    """Classes by a linear function of standardised features.

    Attributes:
        mean, spread: of the features it was trained on, (features,).
        weight: (features + 1, classes), the last row a constant.
    """

    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]

    @classmethod
    def trained(cls, features: npt.ArrayLike, labels: npt.ArrayLike, *, classes: int, ridge: float) -> LinearReadout:
        """By ridge regression onto +1 for the class and −1 for the others; ``ridge`` > 0 is added to the diagonal.

        Raises:
            InputError: labels that do not fit, or ridge ≤ 0.
        """
        from scipy.linalg import solve

        rows, wanted = np.asarray(features, np.float64), np.asarray(labels)
        if rows.ndim != 2 or wanted.shape != rows.shape[:1] or not 0 <= wanted.min() <= wanted.max() < classes:
            raise InputError(f"labels: expected {rows.shape[:1]} integers from 0 to {classes - 1}, got {wanted.shape}")
        if not (np.isfinite(ridge) and ridge > 0):
            raise InputError(f"ridge: expected a number > 0, got {ridge!r}")
        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)  # a neuron that never changes says nothing, whatever its weight
        design = np.concatenate([(rows - mean) / spread, np.ones((rows.shape[0], 1))], axis=1)
        goal = np.where(np.arange(classes) == wanted[:, None], 1.0, -1.0)
        # The smaller of two systems with one solution.
        wide = design.shape[1] > design.shape[0]
        gram = design @ design.T if wide else design.T @ design
        gram[np.diag_indices_from(gram)] += ridge
        weight = design.T @ solve(gram, goal, assume_a="pos") if wide else solve(gram, design.T @ goal, assume_a="pos")
        return cls(mean, spread, weight)

    def predict(self, features: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The class of each row."""
        rows = (np.asarray(features, np.float64) - self.mean) / self.spread
        return (rows @ self.weight[:-1] + self.weight[-1]).argmax(axis=1)
