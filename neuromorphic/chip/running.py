"""A network run on a chip, bit for bit: spikes, voltages, and how often each thing that costs time or energy happened where.

Each step is that of the chip's arithmetic (``LoihiNeuron.step`` for Loihi's). Work goes where spikes arrive and where a state is
left; a neuron at rest without input stays as it is, and costs nothing. Where neurons are placed changes only the counts by core.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed_by
from neuromorphic._arrays import integers
from neuromorphic.chip.faults import ChipFaults
from neuromorphic.chip.network import ChipNetwork
from neuromorphic.chip.packets import Packets
from neuromorphic.events import Events
from neuromorphic.neurons import REFRACTORY_SHIFT
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

KINDS = ("dense", "sparse", "convolution", "pooling")
"""Kinds of projections whose synaptic operations are counted apart."""


@displayed_by("neuromorphic.cards:chip_activity")
@dataclass(frozen=True)
class ChipActivity:
    """What a run did.

    A synaptic operation, a packet and its axons are counted in the step in which the spike is sent, as the chip carries it to its
    targets before the step ends, whatever the delay with which it then counts.

    Attributes:
        network: that ran.
        steps: how many.
        core_of: population → (size,) int32, core of each neuron; −1 outside.
        operations: (steps, cores, 4) int32, synaptic operations by kind of projection (``KINDS``).
        updates_active: (steps, cores): updates of neurons that have an input ≠ 0, a bias, or any state ≠ 0 (a current, a
            voltage, an adaptation, refractory steps); of all others the update changes nothing.
        spikes: (steps, cores): spikes of neurons there.
        axons_out, axons_in: (steps, cores): packets sent by neurons there, one for each core that a spike goes to; packets
            taken in.
        values: readout → (steps, size), its voltage in units of the chip.
        u, v, refractory: population that was recorded → (steps, size), after each step.
        wrapped: sums of inputs that were beyond their register and wrapped.
        clipped: voltages (or currents) that were beyond theirs and saturated.
        lost: spikes that a fault lost.
        input_core: where packets from outside enter.
    """

    network: ChipNetwork
    steps: int
    core_of: Mapping[str, npt.NDArray[np.int32]]
    operations: npt.NDArray[np.int32]
    updates_active: npt.NDArray[np.int32]
    spikes: npt.NDArray[np.int32]
    axons_out: npt.NDArray[np.int32]
    axons_in: npt.NDArray[np.int32]
    values: Mapping[str, npt.NDArray[Any]]
    u: Mapping[str, npt.NDArray[Any]]
    v: Mapping[str, npt.NDArray[Any]]
    refractory: Mapping[str, npt.NDArray[np.int32]]
    wrapped: int
    clipped: int
    lost: int
    input_core: int
    _begin: npt.NDArray[np.int64]
    _fired: npt.NDArray[np.int32]
    _payload: npt.NDArray[Any]
    _plan: Any

    @property
    def cores(self) -> int:
        """How many cores are counted."""
        return int(self.operations.shape[1])

    @property
    def synaptic_operations(self) -> npt.NDArray[np.int64]:
        """(steps, cores), of all kinds."""
        return self.operations.sum(axis=2, dtype=np.int64)

    @cached_property
    def neurons(self) -> npt.NDArray[np.int64]:
        """Neurons on each core, (cores,)."""
        every = [self.core_of[one.name] for one in self.network.populations if one.kind != "input"]
        return np.bincount(np.concatenate([cores[cores >= 0] for cores in every]), minlength=self.cores).astype(np.int64)

    @property
    def updates_inactive(self) -> npt.NDArray[np.int64]:
        """(steps, cores): updates that change nothing."""
        return self.neurons - self.updates_active

    @cached_property
    def events(self) -> Mapping[str, Events]:
        """Population → what it sent (inputs: what came in), in the chip's steps; a value is in the chip's units."""
        count = len(self.network.populations)
        lengths = np.diff(self._begin)
        owner = np.repeat(np.arange(lengths.size) % count, lengths)
        found = {}
        for p, one in enumerate(self.network.populations):
            mine = owner == p
            value = self._payload[mine].astype(np.float64) if self._payload.size else None
            if value is not None and (value == 1).all():
                value = None
            first = np.concatenate(([0], np.cumsum(lengths[p::count])))
            found[one.name] = Events(one.size, first, self._fired[mine], value)
        return found

    def aligned(self, name: str) -> Events:
        """What a population sent, in the steps of the network (earlier by ``network.shift``), values in its unit."""
        one, found = self.network.population(name), self.events[name]
        late = self.network.shift.get(name, 0)
        first = found.first[min(late, self.steps) :]
        value = found.value
        if value is not None:
            value = value[first[0] :] / one.value_scale if one.kind == "input" or one.shift >= 0 else value[first[0] :]
        return Events(one.size, first - first[0], found.neuron[first[0] :], value)

    def real_values(self, name: str) -> npt.NDArray[np.float64]:
        """Voltages of a readout in the network's unit and steps, (steps, size)."""
        if name not in self.values:
            raise unknown_name("readout", name, self.values)
        one = self.network.population(name)
        return self.values[name][self.network.shift.get(name, 0) :] / np.float64(one.scale)

    def real_voltages(self, name: str) -> npt.NDArray[np.float64]:
        """Voltages of a recorded population in the network's unit and steps, (steps, size)."""
        if name not in self.v:
            raise unknown_name("recorded population", name, self.v)
        one = self.network.population(name)
        return self.v[name][self.network.shift.get(name, 0) :] / np.float64(one.scale) + one.origin

    def membrane_register(self, name: str) -> npt.NDArray[np.int32]:
        """What a probe of Loihi's membrane register reads of a recorded population, (steps, size)."""
        if name not in self.v:
            raise unknown_name("recorded population", name, self.v)
        return np.where(self.refractory[name] > 0, self.refractory[name] << REFRACTORY_SHIFT, self.v[name])

    def packets(self, first_step: int = 0, last_step: int | None = None, *, neuron_time_s: float | None = None) -> Packets:
        """Packets of the steps first_step to last_step (not with it; None: to the end), in the order of their neurons.

        They are made when asked for: a run has many, and a network-on-chip takes them some steps at a time. Those of inputs that
        are outside come from ``input_core``.

        Args:
            neuron_time_s: of one neuron's update; a core updates its neurons one after another, and a packet is ready when its
                neuron is, those from outside at once. None: nothing is said about when.

        Raises:
            InputError: steps that were not run, a negative time.
        """
        from neuromorphic.chip._route_kernels import expand_packets

        last = self.steps if last_step is None else last_step
        if not 0 <= first_step <= last <= self.steps:
            raise InputError(f"steps: expected first ≤ last within 0 to {self.steps}, got {first_step} to {last}")
        if neuron_time_s is not None and not neuron_time_s >= 0:
            raise InputError(f"neuron_time_s: expected seconds ≥ 0, got {neuron_time_s!r}")
        plan = self._plan
        times = self._payload.astype(np.int64) if self.network.arithmetic.family == "event" else np.empty(0, np.int64)
        given = (
            self._begin, self._fired, times, first_step, last, plan.populations, plan.cores.first, plan.cores.core,
            plan.cores.home, plan.rank, self.input_core,
        )  # fmt: skip
        first, none = np.zeros(last - first_step + 1, np.int64), np.empty(0, np.int32)
        expand_packets(*given, first, none, none, none, none)
        source, target, spike, rank = (np.empty(first[-1], np.int32) for _ in range(4))
        expand_packets(*given, first, source, target, spike, rank)
        release = None if neuron_time_s is None else (rank + 1) * float(neuron_time_s)
        return Packets(first=first, source=source, target=target, spike=spike, release_s=release)


def run(
    network: ChipNetwork,
    inputs: Mapping[str, Events | npt.ArrayLike],
    *,
    steps: int | None = None,
    mapping: Any = None,
    record: Collection[str] = (),
    faults: ChipFaults | None = None,
) -> ChipActivity:
    """Steps of a network on its chip, from rest.

    Args:
        network: in the chip's numbers.
        inputs: each input → its spikes, or an array (steps, size); values in the unit of the network.
        steps: how many; None: as many as the inputs have, and the outputs' latency. After the inputs' end nothing comes in.
        mapping: where neurons are: an object with ``core_of``, or such a mapping itself: population → (size,) core numbers;
            inputs may be left out, they are then outside. None: all on core 0.
        record: populations whose u, v and refractory steps are kept for each step.
        faults: what is broken.

    Raises:
        InputError: an input that is missing, of another size, or with values that the chip has not; a placement or record that
            does not fit.
    """
    from neuromorphic.chip._step_kernels import chip_steps
    from neuromorphic.chip._tables import ACTIVE, AXONS_IN, AXONS_OUT, CLIPPED, LOST, SPIKES, WRAPPED
    from neuromorphic.chip.plan import ChipPlan

    given = _given(network, inputs)
    if steps is None:
        if not given:
            raise InputError("steps: expected an integer ≥ 0, as nothing comes in")
        steps = max(one.steps for one in given.values()) + network.latency
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 0:
        raise InputError(f"steps: expected an integer ≥ 0, got {steps!r}")
    for name, one in given.items():
        if one.steps > steps:
            raise InputError(f"inputs: {name!r}: events of {one.steps} steps, more than the {steps} to run")
    for name in record:
        if network.population(name).kind == "input":
            raise InputError(f"record: {name!r} is an input and has no state")
    core_of = _core_of(network, mapping)
    broken = faults or ChipFaults()
    plan = ChipPlan.of(network, core_of, tuple(record), graded=_graded(network, given))
    arguments, kept = plan.arrays(given, int(steps), broken)
    fired, payload = chip_steps(*arguments)
    counts = kept.record.counts
    readouts, recorded = {}, {name: {} for name in ("u", "v", "left")}  # type: dict[str, Any], dict[str, dict[str, Any]]
    for name, place in plan.values.items():
        readouts[name] = kept.record.values[:, place : place + network.population(name).size]
    for name, place in plan.recorded.items():
        for field, found in recorded.items():
            found[name] = getattr(kept.record, field)[:, place : place + network.population(name).size]
    return ChipActivity(
        network, int(steps), core_of, kept.record.operations, counts[:, :, ACTIVE], counts[:, :, SPIKES], counts[:, :, AXONS_OUT],
        counts[:, :, AXONS_IN], readouts, recorded["u"], recorded["v"], recorded["left"], int(kept.record.totals[WRAPPED]),
        int(kept.record.totals[CLIPPED]), int(kept.record.totals[LOST]), int(getattr(mapping, "input_core", 0)),
        kept.begin, fired, payload, plan,
    )  # fmt: skip


def _given(network: ChipNetwork, inputs: Mapping[str, Events | npt.ArrayLike]) -> dict[str, Events]:
    for name in inputs:
        if name not in network.inputs:
            raise unknown_name("inputs", name, network.inputs)
    found = {}
    for name in network.inputs:
        if name not in inputs:
            raise InputError(f"inputs: expected events of {name!r}, got those of {', '.join(inputs) or 'none'}")
        events = inputs[name]
        if not isinstance(events, Events):
            events = Events.from_dense(np.asarray(events))
        one = network.population(name)
        if events.size != one.size:
            raise InputError(f"inputs: {name!r}: expected {one.size} neurons, got {events.size}")
        found[name] = events
        chip = network.arithmetic
        if events.value is None or chip.family == "float":
            continue
        if not chip.spike_value_bits and chip.family != "event":
            raise InputError(f"inputs: {name!r}: value: {chip.name} has spikes without values, got {events.value[0]:g}")
        units = events.value * one.value_scale
        limit = 1 << max(chip.spike_value_bits - 1, 7)
        low = 0 if chip.family == "event" else -limit
        wrong = (np.abs(units - np.rint(units)) > 1e-6) | (units < low) | (units >= limit)
        if wrong.any():
            raise InputError(
                f"inputs: {name!r}: value: expected whole numbers of 1/{one.value_scale:g} from {low} to {limit - 1}, got "
                f"{events.value[wrong][0]:g}"
            )
    return found


def _graded(network: ChipNetwork, given: Mapping[str, Events]) -> bool:
    sends = any(one.shift >= 0 for one in network.populations)
    return sends or network.arithmetic.family == "event" or any(one.value is not None for one in given.values())


def _core_of(network: ChipNetwork, mapping: Any) -> dict[str, npt.NDArray[np.int32]]:
    stated = getattr(mapping, "core_of", mapping)
    found = {}
    for one in network.populations:
        if stated is None:
            cores = np.full(one.size, -1 if one.kind == "input" else 0)
        elif one.name in stated:
            cores = integers(f"core_of {one.name!r}", stated[one.name])
        elif one.kind == "input":
            cores = np.full(one.size, -1)
        else:
            raise InputError(f"core_of: expected cores of {one.name!r}, got those of {', '.join(stated) or 'none'}")
        if cores.shape != (one.size,) or (cores.size and cores.min() < (-1 if one.kind == "input" else 0)):
            raise InputError(
                f"core_of: {one.name!r}: expected {one.size} core numbers ≥ 0, got {cores.shape}, from {cores.min()}"
            )
        found[one.name] = cores.astype(np.int32)
    return found
