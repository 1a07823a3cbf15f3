"""A spiking network step by step in double precision: the reference that integer chips are held against.

The order of every sum is fixed, so that the same network and inputs give the same bits on any machine and number of threads (a
network runs on one; several may run at once, each in a thread of its own):

- the current of a step begins with (decay_i · i) + input_bias. To it are added, one after another, the projections as the network
  lists them; of each, the spikes of the step longest ago first; of a step, the sources in ascending order, each weight times the
  value sent;
- the voltage is ((decay_v · v + gain · i) + gain2 · i2) + bias, without fused operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed_by
from neuromorphic.events import Events
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

    from neuromorphic.network import Population, Projection, SpikingNetwork

    Floats = npt.NDArray[np.float64]


@displayed_by("neuromorphic.cards:activity")
@dataclass(frozen=True)
class Activity:
    """What a network did.

    Attributes:
        steps: how many.
        events: of the inputs and of each population that spikes, by name.
        values: of each readout, (steps, size).
        v: voltages at the end of each step (after a reset at once), (steps, size), of the populations that were asked for.
    """

    steps: int
    events: Mapping[str, Events]
    values: Mapping[str, Floats]
    v: Mapping[str, Floats]


def simulate(
    network: SpikingNetwork,
    inputs: Mapping[str, Events | npt.ArrayLike] | None = None,
    *,
    steps: int | None = None,
    record: Iterable[str] = (),
) -> Activity:
    """Run a network from its initial state.

    Args:
        network: of any populations.
        inputs: for each of ``network.inputs``, events or an array (steps, size) of what it sends.
        steps: how many; None: as many as the inputs have. Inputs that end before are silent from then on.
        record: populations whose voltages are kept.

    Raises:
        InputError: an input missing, unknown, of another size or longer than ``steps``; no number of steps; parameters that the
            kind of neuron does not have.
    """
    from neuromorphic import _dynamics_kernels as kernels

    given = _inputs(network, inputs or {})
    lengths = {name: events.steps for name, events in given.items()}
    if steps is None:
        if len(set(lengths.values())) != 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "no inputs"
            raise InputError(f"steps: expected a number, as the inputs do not give one ({found})")
        steps = next(iter(lengths.values()))
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 0:
        raise InputError(f"steps: expected an integer ≥ 0, got {steps!r}")
    for name, length in lengths.items():
        if length > steps:
            raise InputError(f"input {name!r}: {length} steps, but {steps} are run")
    recorded = list(dict.fromkeys(record))
    for name in recorded:
        if network.population(name).neurons.kind == "input":
            raise InputError(f"record: {name!r} is an input and has no voltage")

    ordered = [network.population(name) for name in network.order]
    table, neurons, rest = _populations(ordered, recorded, list(given), kernels)
    table, wiring = _wiring(network, ordered, table, rest, kernels)
    total = neurons.threshold.size
    v = np.concatenate([one.neurons.arrays(one.size)["v_init"] for one in ordered])
    state = kernels.State(
        v=v, w=np.zeros(total), i=neurons.input_bias.copy(), i2=np.zeros(total), a=np.zeros(total),
        level=neurons.threshold.copy(), held=v.copy(), held_w=np.zeros(total),
    )  # fmt: skip
    sent = _sent(given, int(steps), kernels)
    values = np.zeros((steps, sum(one.size for one in ordered if one.neurons.kind == "readout")))
    kept = np.zeros((steps, sum(one.size for one in ordered if one.name in recorded)))
    begin = np.zeros(steps * len(ordered) + 1, np.int64)
    fired = kernels.network_steps(int(steps), table, wiring, neurons, state, sent, values, kept, begin)

    events = {name: _padded(one, int(steps)) for name, one in given.items()} | _fired(ordered, fired, begin, int(steps))
    column = {one.name: row for one, row in zip(ordered, table, strict=True)}
    return Activity(
        int(steps),
        {one.name: events[one.name] for one in network.populations if one.name in events},
        {
            one.name: values[:, column[one.name][kernels.VALUE] :][:, : one.size]
            for one in network.populations
            if one.neurons.kind == "readout"
        },
        {name: kept[:, column[name][kernels.RECORD] :][:, : network.population(name).size] for name in recorded},
    )


def _inputs(network: SpikingNetwork, inputs: Mapping[str, Events | npt.ArrayLike]) -> dict[str, Events]:
    """Events of each input, in the network's order."""
    for name in inputs:
        if name not in network.inputs:
            raise unknown_name("input", name, network.inputs)
    found = {}
    for name in network.inputs:
        if name not in inputs:
            raise InputError(f"input {name!r}: missing, expected events or an array (steps, {network.population(name).size})")
        one = inputs[name]
        events = one if isinstance(one, Events) else Events.from_dense(one)
        if events.size != network.population(name).size:
            raise InputError(f"input {name!r}: expected {network.population(name).size} neurons, got {events.size}")
        found[name] = events
    return found


def _padded(events: Events, steps: int) -> Events:
    """The same, silent until the end."""
    if events.steps == steps:
        return events
    first = np.concatenate((events.first, np.full(steps - events.steps, events.count, np.int64)))
    return Events(events.size, first, events.neuron, events.value)


def _sent(given: Mapping[str, Events], steps: int, kernels: Any) -> Any:
    """The events of all inputs end to end."""
    rows, before = np.zeros((len(given), steps + 1), np.int64), 0
    for row, events in zip(rows, given.values(), strict=True):
        row[: events.steps + 1] = events.first
        row[events.steps + 1 :] = events.count
        row += before
        before += events.count
    graded = any(events.value is not None for events in given.values())
    return kernels.Inputs(
        rows,
        np.concatenate([np.zeros(0, np.int32)] + [events.neuron for events in given.values()]),
        np.concatenate([np.zeros(0)] + [events.values for events in given.values() if graded]),
    )


def _check(population: Population) -> None:
    """Parameters that a kind does not have must be left as they are."""
    neurons = population.neurons
    absent = {"resonate_and_fire": ("decay_i",), "threshold": ("decay_i", "refractory_steps", "adaptation")}
    for name in absent.get(neurons.kind, ()):
        if np.any(np.asarray(getattr(neurons, name)) != 0):
            raise InputError(f"population {population.name!r}: {name}: a {neurons.kind} neuron has none, expected 0")


def _populations(
    ordered: list[Population], recorded: list[str], inputs: list[str], kernels: Any
) -> tuple[Any, Any, list[Floats]]:
    """The table of populations, the parameters of all neurons, and the refractory steps that each population has."""
    table = np.zeros((len(ordered), 15), np.int64)
    table[:, [kernels.RECORD, kernels.VALUE, kernels.GIVEN]] = -1
    low = values = kept = 0
    every, rest = [], []
    for row, one in zip(table, ordered, strict=True):
        _check(one)
        neurons = one.neurons
        found = neurons.arrays(one.size)
        if neurons.kind == "threshold":
            # Without memory, a voltage and a current that nothing is kept of are the same.
            found |= dict.fromkeys(("decay_v", "decay_i"), np.zeros(one.size))
        if neurons.kind != "resonate_and_fire":
            found["angle"] = np.zeros(one.size)
        adaptive = neurons.spiking and bool(found["adaptation"].any())
        each = adaptive or any(np.ptp(found[name]) for name in _UNIFORM)
        row[kernels.KIND] = {"input": kernels.INPUT, "resonate_and_fire": kernels.RESONATE, "readout": kernels.READOUT}.get(
            neurons.kind, kernels.EACH if each else kernels.UNIFORM
        )
        row[kernels.LOW], row[kernels.SIZE] = low, one.size
        reset = "none" if neurons.kind == "threshold" else neurons.reset
        row[kernels.RESET] = {"zero": kernels.ZERO, "subtract": kernels.SUBTRACT, "none": kernels.NONE}[reset]
        row[kernels.NEXT_STEP], row[kernels.AT_THRESHOLD] = neurons.reset_next_step, neurons.fires_at_threshold
        row[kernels.ADAPTIVE] = adaptive
        if one.name in recorded:
            row[kernels.RECORD] = kept
            kept += one.size
        if neurons.kind == "readout":
            row[kernels.VALUE] = values
            values += one.size
        if neurons.kind == "input":
            row[kernels.GIVEN] = inputs.index(one.name)
        low += one.size
        every.append(found)
        rest.append(np.unique(found["refractory_steps"][found["refractory_steps"] > 0]))
    joined = {name: np.concatenate([found[name] for found in every]) for name in every[0]}
    return (
        table,
        kernels.Parameters(
            **{name: joined[name] for name in kernels.Parameters._fields if name in joined},
            cosine=joined["decay_v"] * np.cos(joined["angle"]),
            sine=joined["decay_v"] * np.sin(joined["angle"]),
            refractory=joined["refractory_steps"].astype(np.int64),
        ),
        rest,
    )


_UNIFORM = ("decay_i", "decay_i2", "decay_v", "gain", "gain2", "bias", "input_bias", "threshold")


def _wiring(network: SpikingNetwork, ordered: list[Population], table: Any, rest: list[Floats], kernels: Any) -> tuple[Any, Any]:
    """The table of populations with its projections, and the synapses of all projections end to end."""
    number = {one.name: place for place, one in enumerate(ordered)}
    projections = [one for target in ordered for one in network.projections if one.target == target.name]
    rows = np.zeros((len(projections), 10), np.int64)
    firsts, targets, weights = _Joined(np.int64), _Joined(np.uint32), _Joined(np.float64)
    lags, delays, rests = _Joined(np.int64), _Joined(np.int64), _Joined(np.int64)
    for row, one in zip(rows, projections, strict=True):
        synapses, size = one.synapses, network.population(one.target).size
        row[kernels.SOURCE], row[kernels.RECEPTOR], row[kernels.WIDTH] = number[one.source], one.receptor, size
        table[number[one.target], kernels.SECOND] |= one.receptor
        layout = _layout(one, size, kernels)
        row[kernels.LAYOUT] = layout
        row[kernels.ROWS] = firsts.add(synapses.first if layout != kernels.DENSE else synapses.first[:0])
        targeted = np.ascontiguousarray(synapses.target if layout != kernels.DENSE else synapses.target[:0], np.int32)
        row[kernels.SYNAPSES] = targets.add(targeted.view(np.uint32))
        row[kernels.WEIGHTS] = weights.add(synapses.weight if layout != kernels.SHARED else synapses.weight[:1])
        different = np.unique(one.delays)[::-1]
        row[kernels.LAGS] = lags.add(different)
        row[kernels.LAGS_END] = lags.size
        row[kernels.DELAYS] = delays.add(one.delays) if different.size > 1 else -1
    ends = np.cumsum([0] + [sum(one.target == target.name for one in projections) for target in ordered])
    table[:, kernels.FIRST_IN], table[:, kernels.LAST_IN] = ends[:-1], ends[1:]
    for row, steps in zip(table, rest, strict=True):
        row[kernels.FIRST_REST] = rests.add(steps.astype(np.int64))
        row[kernels.LAST_REST] = rests.size
    return table, kernels.Wiring(rows, *(one.array for one in (firsts, targets, weights, lags, delays, rests)))


def _layout(projection: Projection, size: int, kernels: Any) -> int:
    synapses = projection.synapses
    full = (np.diff(synapses.first) == size).all()
    if full and (synapses.target.reshape(-1, size) == np.arange(size)).all():
        return int(kernels.DENSE)
    if synapses.count and (synapses.weight == synapses.weight[0]).all():
        return int(kernels.SHARED)
    return int(kernels.LISTED)


class _Joined:
    """Arrays end to end; one alone is not copied."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.parts: list[npt.NDArray[Any]] = []
        self.size = 0
        self.dtype = dtype

    def add(self, part: npt.NDArray[Any]) -> int:
        """Append; where it begins."""
        begin = self.size
        if part.size:
            self.parts.append(part)
            self.size += part.size
        return begin

    @property
    def array(self) -> npt.NDArray[Any]:
        """All of them."""
        whole = self.parts[0] if len(self.parts) == 1 else np.concatenate([np.zeros(0, self.dtype), *self.parts])
        # Numba compiles another version for what must not be written.
        return np.require(whole, self.dtype, ("C", "W"))


def _fired(
    ordered: list[Population], fired: npt.NDArray[np.int32], begin: npt.NDArray[np.int64], steps: int
) -> dict[str, Events]:
    """The list of all that fired, by population."""
    counts = np.diff(begin).reshape(steps, len(ordered))
    spiking = [place for place, one in enumerate(ordered) if one.neurons.spiking]
    sender = np.repeat(np.tile(np.arange(len(ordered), dtype=np.int32), steps), counts.ravel()) if len(spiking) > 1 else None
    found = {}
    for place in spiking:
        first = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts[:, place])))
        found[ordered[place].name] = Events(ordered[place].size, first, fired if sender is None else fired[sender == place])
    return found
