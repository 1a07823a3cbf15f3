"""A spiking network in a chip's numbers: what ``quantise`` makes and ``chip.run`` runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.views.display import displayed_by, displaying
from neuromorphic.chip.arithmetic import Arithmetic
from neuromorphic.neurons import THRESHOLD_EXPONENT, LoihiNeuron
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

ChipKind = Literal["input", "spiking", "readout"]


@displaying("size")
@dataclass(frozen=True)
class ChipPopulation:
    """A population's numbers on the chip.

    Attributes:
        name, shape: as in the network.
        kind: ``input``: given from outside; ``spiking``; ``readout``: never spikes, its voltage is read.
        scale: units of v that are 1 of the network.
        origin: the voltage of the network that is v = 0, a number or one a neuron.
        value_scale: units of what a spike carries that are 1 of the network (inputs; readouts that send).
        shift: of a readout that sends: it sends v / 2^shift; −1: it sends nothing.
        reset: what a spike does to v.
        at_threshold: it also spikes where v equals the threshold (floats; integers have the threshold below).
        numbers: name → (size,), in units of the chip: decay_u, decay_v, bias, threshold (a spike where v is above it),
            drop (what a reset by subtraction takes off), refractory, v_reset, v_init and, where the population
            has them, decay_u2, input_bias, adaptation, decay_a, cosine, sine; for axon types axon_weights (size, weights).
        start: first step in which it is updated.
    """

    name: str
    shape: tuple[int, ...]
    kind: ChipKind
    scale: float = 1.0
    value_scale: float = 1.0
    shift: int = -1
    origin: Any = 0.0
    reset: str = "zero"
    at_threshold: bool = False
    numbers: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    start: int = 0

    @property
    def size(self) -> int:
        """Number of neurons."""
        return prod(self.shape)

    def loihi_neuron(self, neuron: int) -> LoihiNeuron:
        """One of its neurons, of a chip of Loihi's family.

        Raises:
            InputError: the numbers are none of ``LoihiNeuron``'s: another family, a threshold or bias between its mantissas.
        """
        found = {name: int(values[neuron]) for name, values in self.numbers.items() if values.ndim == 1}
        unit = 1 << THRESHOLD_EXPONENT
        if self.kind != "spiking" or self.reset != "zero" or found.get("v_reset") or found["threshold"] % unit:
            raise InputError(f"population {self.name!r}: neuron {neuron} is no LoihiNeuron")
        exponent = next((e for e in range(8) if found["bias"] % (1 << e) == 0 and abs(found["bias"]) >> e <= 4095), None)
        if exponent is None:
            raise InputError(f"population {self.name!r}: bias {found['bias']} is no mantissa · 2^exponent of LoihiNeuron")
        return LoihiNeuron(
            decay_u=found["decay_u"],
            decay_v=found["decay_v"],
            threshold_mantissa=found["threshold"] // unit,
            bias_mantissa=found["bias"] >> exponent,
            bias_exponent=exponent,
            refractory_delay=found["refractory"],
        )


@displaying("count")
@dataclass(frozen=True)
class ChipProjection:
    """Synapses from one population to another, in the network's block of synapses.

    Attributes:
        name, source, target, receptor: as in the network.
        first: (sources + 1,) int64: synapses first[s] to first[s + 1] of the block are those of source s.
        delays: (sources,) int64, steps from sending to arriving, each ≥ 1.
        factor: a weight is mantissa · factor.
        kind, stored: as of ``network.Synapses``.
    """

    name: str
    source: str
    target: str
    first: npt.NDArray[np.int64]
    delays: npt.NDArray[np.int64]
    factor: float
    receptor: int = 0
    kind: str = "sparse"
    stored: int = 0

    @property
    def part(self) -> slice:
        """Its part of the block."""
        return slice(int(self.first[0]), int(self.first[-1]))

    @property
    def count(self) -> int:
        """Number of synapses."""
        return int(self.first[-1] - self.first[0])


@displayed_by("neuromorphic.cards:chip_network")
@dataclass(frozen=True)
class ChipNetwork:
    """A network in a chip's numbers.

    Attributes:
        name, outputs, dt_s: as of the network.
        arithmetic: that of the chip.
        populations, projections: in the network's order.
        target: (synapses,) uint32, of all projections end to end.
        weight: (synapses,), mantissas: int16 or int32, float32 for floats.
        shift: population → steps by which its spikes come later than in the network, where timing is aligned.
        notes: what was rounded, clipped or chosen.
        axon_type: (synapses,) uint8, which of its target's weights a synapse takes; None: each has its own.
    """

    name: str
    arithmetic: Arithmetic
    populations: tuple[ChipPopulation, ...]
    projections: tuple[ChipProjection, ...]
    target: npt.NDArray[np.uint32]
    weight: npt.NDArray[Any]
    outputs: tuple[str, ...]
    dt_s: float = 1e-3
    shift: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    axon_type: npt.NDArray[np.uint8] | None = None

    @cached_property
    def _by_name(self) -> dict[str, ChipPopulation]:
        return {one.name: one for one in self.populations}

    def population(self, name: str) -> ChipPopulation:
        """The one of that name.

        Raises:
            InputError: there is none.
        """
        if name not in self._by_name:
            raise unknown_name("population", name, list(self._by_name))
        return self._by_name[name]

    def projection(self, name: str) -> ChipProjection:
        """The one of that name.

        Raises:
            InputError: there is none.
        """
        for one in self.projections:
            if one.name == name:
                return one
        raise unknown_name("projection", name, [one.name for one in self.projections])

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the populations that are given from outside."""
        return tuple(one.name for one in self.populations if one.kind == "input")

    @property
    def neurons(self) -> int:
        """How many neurons the chip updates."""
        return sum(one.size for one in self.populations if one.kind != "input")

    @property
    def synapses(self) -> int:
        """How many synapses there are."""
        return int(self.target.size)

    @property
    def latency(self) -> int:
        """Steps by which the outputs come later than in the network."""
        return max((self.shift.get(name, 0) for name in self.outputs), default=0)

    def weights(self, name: str) -> npt.NDArray[Any]:
        """Of a projection, (synapses,), in units of the target's v."""
        one = self.projection(name)
        mantissas = self.weight[one.part]
        if self.arithmetic.family == "float":
            return mantissas * np.float32(one.factor)
        return mantissas.astype(np.int64) * int(one.factor)

    def dense(self, name: str) -> npt.NDArray[Any]:
        """A projection's weights as a matrix (targets, sources); several synapses of a pair are added."""
        one, weights = self.projection(name), self.weights(name)
        found = np.zeros((self.population(one.target).size, one.first.size - 1), weights.dtype)
        np.add.at(found, (self.target[one.part], np.repeat(np.arange(one.first.size - 1), np.diff(one.first))), weights)
        return found
