"""The Legendre memory in spikes: its A and B as weights between populations of leaky integrate-and-fire neurons.

A number is held by a population whose neurons each fire at a rate of their own; weights decode it from their spikes by least
squares and encode it for the next ones. A low-pass synapse turns recurrent weights into the wanted dynamics: C. Eliasmith, C. H.
Anderson, "Neural engineering", MIT Press 2003; A. R. Voelker, C. Eliasmith, "Improving spiking dynamical networks", Neural
Computation 30(3), 2018 (the discrete form used here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromorphic.cells.memory_units import delay_readout, legendre_system, zero_order_hold
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

_POINTS = 201
_REGULARISATION = 0.05
_SILENT = -0.95


@dataclass(frozen=True)
class Ensemble:
    """Neurons that together hold a number from −1 to 1: v ← λv + (1 − λ)(gain · encoder · x + bias), threshold 1, reset to 0.

    Attributes:
        encoder: (neurons,) −1 or 1: whether x or −x drives it.
        gain, bias: (neurons,), in units of the threshold.
        decay_v: λ.
        refractory_steps: steps that v stays at 0 after a spike.
    """

    encoder: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    decay_v: float
    refractory_steps: int

    @classmethod
    def random(
        cls, neurons: int, rng: np.random.Generator, *, decay_v: float, refractory_steps: int, rates: tuple[float, float]
    ) -> Ensemble:
        """Silent up to an x drawn from −0.95 to 0.95, and firing at a rate drawn from ``rates`` (spikes a step) at x = 1."""
        encoder = np.where(np.arange(neurons) % 2 == 0, 1.0, -1.0)
        silent = rng.uniform(_SILENT, -_SILENT, neurons)
        between = 1 / rng.uniform(*rates, neurons) - refractory_steps
        full = 1 / (1 - decay_v**between)  # the drive with which v passes 1 after that many steps
        gain = (full - 1) / (1 - silent)
        return cls(encoder, gain, 1 - gain * silent, decay_v, refractory_steps)

    def rates(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Spikes a step of each neuron for constant x, (values, neurons): 1/(steps until J(1 − λᵏ) > 1, and those at rest)."""
        drive = self.gain * self.encoder * np.asarray(x, np.float64)[:, None] + self.bias
        fires = drive > 1
        steps = np.floor(np.log1p(-1 / np.where(fires, drive, 2.0)) / np.log(self.decay_v)) + 1
        return np.where(fires, 1 / (steps + self.refractory_steps), 0.0)

    def decoders(self) -> npt.NDArray[np.float64]:
        """(neurons,): weights with which rates add up to x, by regularised least squares over −1 to 1."""
        x = np.linspace(-1, 1, _POINTS)
        rates = self.rates(x)
        noise = (_REGULARISATION * rates.max()) ** 2 * _POINTS
        found: npt.NDArray[np.float64] = np.linalg.solve(rates.T @ rates + noise * np.eye(rates.shape[1]), rates.T @ x)
        return found

    def neurons(self, *, decay_i: float) -> Neurons:
        """For a population; its input is x, encoded by the weights that bring it."""
        share = 1 - self.decay_v
        return Neurons(
            "integrate_and_fire",
            decay_i=decay_i,
            decay_v=self.decay_v,
            gain=share,
            bias=share * self.bias,
            refractory_steps=self.refractory_steps,
        )


@dataclass(frozen=True)
class NeuralMemory:
    """A Legendre memory of spiking neurons.

    Attributes:
        network: input ``u`` (one value a step) → LIF population ``encoder`` → current-based LIF population ``memory``, which
            feeds itself; the readout ``state`` (order,) gets what drives the memory, so that it is the number that the memory's
            currents encode.
        order: coefficients.
        window_steps: of the memory.
    """

    network: SpikingNetwork
    order: int
    window_steps: float

    def delayed(self, state: npt.ArrayLike, delay: float = 1.0) -> npt.NDArray[np.float64]:
        """What the memory holds of u as it was ``delay`` windows ago, (steps,), from the readout (steps, order)."""
        return np.asarray(state, np.float64) @ delay_readout(self.order, delay)


def neural_memory(
    order: int,
    window_steps: float,
    *,
    neurons: int,
    seed: int,
    synapse_steps: float = 100.0,
    membrane_steps: float = 20.0,
    refractory_steps: int = 2,
    rates: tuple[float, float] = (0.1, 0.2),
    radius: float = 1.0,
    dt_s: float = 1e-3,
) -> NeuralMemory:
    """Build one: weights only, nothing is trained by gradient.

    With the synapse's share kept a = exp(−1/synapse_steps), current x ← a·x + (1 − a)·(A′x̂ + B′û) follows m ← Ām + B̄u for
    A′ = (Ā − a)/(1 − a), B′ = B̄/(1 − a), where x̂, û are decoded from spikes.

    Args:
        order: coefficients.
        window_steps: θ in steps.
        neurons: a coefficient (and of the encoder).
        seed: of the neurons' rates.
        synapse_steps: time constant of the memory's synapses; the longer, the less noise of single spikes.
        membrane_steps: time constant of v.
        refractory_steps: rest after a spike.
        rates: range of spikes a step at full drive.
        radius: largest magnitude that a coefficient takes; the input's is 1.
        dt_s: length of a step.

    Raises:
        InputError: a size below 1, a time constant not > 0, rates that the refractory steps do not allow.
    """
    if neurons < 2:
        raise InputError(f"neurons: expected an integer ≥ 2, got {neurons!r}")
    for name, value in (("synapse_steps", synapse_steps), ("membrane_steps", membrane_steps), ("radius", radius)):
        if not value > 0:
            raise InputError(f"{name}: expected a number > 0, got {value!r}")
    if not 0 < rates[0] <= rates[1] < 1 / (1 + refractory_steps):
        raise InputError(f"rates: expected 0 < low ≤ high < {1 / (1 + refractory_steps):.3g} spikes a step, got {rates!r}")
    rng = np.random.default_rng(seed)
    a_bar, b_bar = zero_order_hold(*legendre_system(order, window_steps))
    keep = float(np.exp(-1 / synapse_steps))
    kept_v = float(np.exp(-1 / membrane_steps))
    encoder, *parts = (
        Ensemble.random(neurons, rng, decay_v=kept_v, refractory_steps=refractory_steps, rates=rates) for _ in range(1 + order)
    )
    memory = Ensemble(
        encoder=np.concatenate([part.encoder for part in parts]),
        gain=np.concatenate([part.gain for part in parts]),
        bias=np.concatenate([part.bias for part in parts]),
        decay_v=kept_v,
        refractory_steps=refractory_steps,
    )
    encode = np.kron(np.eye(order), np.ones((neurons, 1))) * (memory.gain * memory.encoder)[:, None]
    decode = np.zeros((order, order * neurons))
    for i, part in enumerate(parts):
        decode[i, i * neurons : (i + 1) * neurons] = part.decoders()
    kept = (a_bar - keep * np.eye(order)) @ decode
    written = b_bar[:, None] @ encoder.decoders()[None]
    network = SpikingNetwork(
        "neural_memory",
        (
            Population("u", (1,), Neurons("input")),
            Population("encoder", (neurons,), encoder.neurons(decay_i=0.0)),
            Population("memory", (order, neurons), memory.neurons(decay_i=keep)),
            Population("state", (order,), Neurons("readout", decay_v=keep)),
        ),
        (
            Projection("u->encoder", "u", "encoder", Synapses.from_dense((encoder.gain * encoder.encoder)[:, None])),
            Projection("encoder->memory", "encoder", "memory", Synapses.from_dense(encode @ written / radius)),
            Projection("memory->memory", "memory", "memory", Synapses.from_dense(encode @ kept), delay_steps=1),
            Projection("encoder->state", "encoder", "state", Synapses.from_dense(written)),
            Projection("memory->state", "memory", "state", Synapses.from_dense(radius * kept), delay_steps=1),
        ),
        ("state",),
        dt_s=dt_s,
    )
    return NeuralMemory(network, order, window_steps)
