"""Faults of a chip that runs: states that flip, dead neurons and synapses, weights with stuck bits, spikes that are lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.views.display import displayed
from neuromorphic._arrays import integers
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from neuromorphic.chip.network import ChipNetwork


@displayed
@dataclass(frozen=True)
class StateFlip:
    """One bit of a neuron's state turns over before a step.

    Attributes:
        step: before whose update.
        population, neuron: whose.
        field: the current u or the voltage v.
        bit: of its two's complement, or of a float32; 0 is the lowest.
    """

    step: int
    population: str
    neuron: int
    field: Literal["u", "v"]
    bit: int


@displayed
@dataclass(frozen=True)
class StuckBit:
    """One bit of a stored weight that is always 0 or 1.

    Attributes:
        projection: whose.
        synapse: its number within the projection, by source and then target.
        bit: of the mantissa as it is stored (sign and magnitude, the sign the highest, or two's complement), or of a float32.
        value: 0 or 1.
    """

    projection: str
    synapse: int
    bit: int
    value: int


@displayed
@dataclass(frozen=True)
class ChipFaults:
    """What is broken.

    Attributes:
        flips: of states.
        dead_neurons: population → numbers of neurons that send nothing (a readout: whose voltage reads 0); inputs, too.
        dead_synapses: projection → numbers of synapses, by source and then target, whose weight is 0.
        stuck: bits of weights; a dead synapse has none.
        lost_rate: share of spikes that are lost as they leave their neuron, 0 to 1.
        seed: of which spikes are lost: a spike's fate depends on it, the step and the neuron alone.

    Raises:
        InputError: a rate outside 0 to 1.
    """

    flips: tuple[StateFlip, ...] = ()
    dead_neurons: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    dead_synapses: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    stuck: tuple[StuckBit, ...] = ()
    lost_rate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.lost_rate <= 1:
            raise InputError(f"lost_rate: expected 0 to 1, got {self.lost_rate!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or not 0 <= self.seed < 2**63:
            raise InputError(f"seed: expected an integer from 0 to 2^63 − 1, got {self.seed!r}")

    def weights(self, network: ChipNetwork) -> npt.NDArray[Any]:
        """The network's block of mantissas with its dead synapses and stuck bits.

        Raises:
            InputError: a projection, synapse or bit that is not there.
        """
        if not self.stuck and not self.dead_synapses:
            return network.weight
        weight = network.weight.copy()
        chip = network.arithmetic
        bits = 32 if chip.weight_bits is None else chip.weight_bits
        for stuck in self.stuck:
            one = network.projection(stuck.projection)
            place = one.part.start + _number("synapse", stuck.synapse, one.count)
            _number("bit", stuck.bit, bits)
            _number("value", stuck.value, 2)
            if chip.weight_bits is None:
                raw = weight[place : place + 1].view(np.uint32)
                raw[:] = _set(int(raw[0]), stuck.bit, stuck.value)
                if not np.isfinite(weight[place]):
                    raise InputError(f"stuck: synapse {stuck.synapse} of {stuck.projection!r} becomes {weight[place]}")
                continue
            value = int(weight[place])
            if chip.twos_complement:
                code = _set(value & ((1 << bits) - 1), stuck.bit, stuck.value)
                weight[place] = code - (1 << bits) if code >> (bits - 1) else code
            else:
                code = _set(abs(value) | (1 << (bits - 1) if value < 0 else 0), stuck.bit, stuck.value)
                size = code & ((1 << (bits - 1)) - 1)
                weight[place] = -size if code >> (bits - 1) else size
        for name, synapses in self.dead_synapses.items():
            one = network.projection(name)
            numbers = integers(f"dead_synapses {name!r}", synapses).ravel()
            for number in numbers[(numbers < 0) | (numbers >= one.count)]:
                _number("synapse", number, one.count)
            weight[one.part.start + numbers] = 0
        return weight

    def dead(self, network: ChipNetwork, sender: Mapping[str, int], senders: int) -> npt.NDArray[np.bool_]:
        """Of each neuron of all populations end to end; empty where none is dead."""
        if not self.dead_neurons:
            return np.zeros(0, np.bool_)
        found = np.zeros(senders, np.bool_)
        for name, neurons in self.dead_neurons.items():
            size = network.population(name).size
            numbers = integers(f"dead_neurons {name!r}", neurons).ravel()
            for number in numbers[(numbers < 0) | (numbers >= size)]:
                _number("neuron", number, size)
            found[sender[name] + numbers] = True
        return found

    def flip_table(self, network: ChipNetwork, low: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """(flips, 4): step, field (0 u, 1 v), neuron of all, bit; by step."""
        chip = network.arithmetic
        rows = []
        for flip in self.flips:
            one = network.population(flip.population)
            if one.kind == "input":
                raise InputError(f"flips: {one.name!r} is an input and has no state")
            if flip.field not in ("u", "v") or (flip.field == "u" and chip.current_bits is None):
                raise InputError(f"flips: field: expected {'u or v' if chip.current_bits else 'v'}, got {flip.field!r}")
            if flip.step < 0:
                raise InputError(f"flips: step: expected an integer ≥ 0, got {flip.step}")
            _number("neuron", flip.neuron, one.size)
            _number("bit", flip.bit, state_bits(network))
            rows.append((flip.step, int(flip.field == "v"), low[one.name] + flip.neuron, flip.bit))
        return np.array(sorted(rows, key=lambda row: row[0]), np.int64).reshape(-1, 4)


def state_bits(network: ChipNetwork) -> int:
    """Bits of a register of u or v."""
    return 32 if network.arithmetic.family == "float" else network.arithmetic.voltage_bits


def _set(code: int, bit: int, value: int) -> int:
    return code | (1 << bit) if value else code & ~(1 << bit)


def _number(name: str, value: Any, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < limit:
        raise InputError(f"{name}: expected an integer from 0 to {limit - 1}, got {value}")
    return int(value)
