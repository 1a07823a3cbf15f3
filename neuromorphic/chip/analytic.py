"""What spiking layers cost by their counts alone: no network, no spikes, no places.

Every layer lies on as few cores as its neurons and synapses need, all its cores work alike, and a step lasts as long as the
busiest layer's cores. A spike is sent to every core of a layer that it goes to; its hops are those between two routers of a
compact rectangle, on average. All neurons count as active. Of a workload that says its populations' rates (``spiking_workload``)
the spikes that neurons make are known, of others only those that arrive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim.operators import Convolution, Matmul, Reduction, SpikingLayer
from hwsim.report import OpCost
from neuromorphic.chip.costs import barrier_of
from neuromorphic.chip.spec import ChipSpec
from numerics.errors import InputError

if TYPE_CHECKING:
    from hwsim.workload import Workload


def layer_cores(spec: ChipSpec, layer: SpikingLayer) -> int:
    """The least number of cores that hold a layer's neurons, and its synapses one by one; a kernel that is shared takes next to
    nothing on chips that store it once a core."""
    parts = [step for part in layer.dense for step in part]
    synapses, products = layer.sources * layer.fan_out, sum(step.n * step.k for step in parts if isinstance(step, Matmul))
    if spec.synapses.shares_weights and any(isinstance(step, Convolution) for step in parts):
        synapses = products
    # A dense list names no targets.
    named = 0 if synapses == products else spec.synapses.index_bits
    bits = (spec.synapses.weight_bits or spec.bits.weight) + named
    found = [math.ceil(layer.neurons / spec.neurons_per_core)]
    if spec.synapse_memory_bytes_per_core is not None:
        found.append(math.ceil(synapses * bits / 8 / spec.synapse_memory_bytes_per_core))
    if spec.synapses_per_core is not None:
        found.append(math.ceil(synapses / spec.synapses_per_core))
    return max(found)


def synapse_kind(layer: SpikingLayer) -> str | None:
    """The kind of a layer's projections, None where they are of several."""
    kinds = set()
    for part in layer.dense:
        if any(isinstance(step, Convolution) for step in part):
            kinds.add("convolution")
        elif part and all(isinstance(step, Reduction) for step in part):
            kinds.add("pooling")
        else:
            kinds.add("dense")
    return kinds.pop() if len(kinds) == 1 else None


@dataclass(frozen=True)
class _Events:
    """How often each event happens for one layer."""

    spikes: float
    arriving: float
    sent: float


def _events(workload: Workload, layer: SpikingLayer) -> _Events:
    """Spikes made, packets that come in to one core, and those of them that neurons on the chip sent."""
    rates = workload.metadata.get("rates")
    arriving = layer.sources * layer.event_rate * layer.time_steps
    if not isinstance(rates, dict) or layer.name not in rates or not layer.dense:
        return _Events(0.0, arriving, arriving)
    made = rates[layer.name] * layer.neurons * layer.time_steps
    come = sent = 0.0
    for number in range(len(layer.dense)):
        tensor = workload.tensors[layer.inputs[2 * number]]
        count = rates[tensor.name.removesuffix(".spikes")] * tensor.elements
        come += count
        sent += 0.0 if tensor.role == "input" else count
    return _Events(made, come, sent)


def analytic_rows(spec: ChipSpec, workload: Workload) -> tuple[list[OpCost], tuple[str, ...], list[str]]:
    """One row a layer, the figures that are unknown, and notes.

    Raises:
        InputError: layers that run for different numbers of steps, or more than the chips' cores hold.
    """
    layers = [op for op in workload.ops if isinstance(op, SpikingLayer)]
    counts = {layer.time_steps for layer in layers}
    if len(counts) > 1:
        raise InputError(f"workload {workload.name!r}: its layers run for {' and '.join(map(str, sorted(counts)))} steps")
    steps = counts.pop()
    cores = [layer_cores(spec, layer) for layer in layers]
    there = spec.cores * spec.chips.count
    if sum(cores) > there:
        raise InputError(
            f"workload {workload.name!r} needs {sum(cores)} cores, {spec.name} has {there} (chips: {spec.chips.count})"
        )
    unknown: dict[str, None] = {}
    events = spec.events

    def cost(event: str, what: str, count: float, kind: str | None = None) -> float:
        """Of so many events."""
        found = events.energy_pj(event, kind) if what == "energy_pj" else events.time_ns(event, kind)
        if found is None and count:
            unknown[f"{event}.{what}"] = None
        return 0.0 if found is None else count * found * (1e-12 if what == "energy_pj" else 1e-9)

    tiles = math.ceil(sum(cores) / spec.mesh.cores_per_tile)
    side = math.sqrt(tiles)
    # Mean distance of two points of a line of n places: (n² − 1) / 3n.
    along = (side * side - 1) / (3 * side) if side > 1 else 0.0
    work, energy = [], []
    for layer, used in zip(layers, cores, strict=True):
        kind, seen = synapse_kind(layer), _events(workload, layer)
        own = (("neuron_update_active", layer.neuron_updates), ("neuron_spike", seen.spikes))
        arriving, sent = seen.arriving * used, seen.sent * used
        work.append(
            (cost("synaptic_operation", "time_ns", layer.synaptic_operations, kind)
             + sum(cost(name, "time_ns", count) for name, count in own)
             + cost("axon_in", "time_ns", arriving) + cost("axon_out", "time_ns", sent)) / used
        )  # fmt: skip
        energy.append(
            {
                "synapses": cost("synaptic_operation", "energy_pj", layer.synaptic_operations, kind),
                "neurons": sum(cost(name, "energy_pj", count) for name, count in own),
                "axons": cost("axon_in", "energy_pj", arriving) + cost("axon_out", "energy_pj", sent),
                "network": cost("spike_within_tile", "energy_pj", arriving)
                + sum(cost(name, "energy_pj", arriving * along) for name in ("hop_east_west", "hop_north_south")),
            }
        )
    busy = max(work, default=0.0)
    if spec.synchronisation == "fixed":
        assert spec.step_time_s is not None
        total, barriers = max(busy, steps * spec.step_time_s), 0
    else:
        times, barriers = events.barrier.time_ns, steps
        if times is None:
            unknown["barrier.time_ns"] = None
        on_chip = min(tiles, spec.mesh.columns * spec.mesh.rows)
        total = busy + steps * (0.0 if times is None else barrier_of(spec, times).time_s(on_chip))
    chips = math.ceil(sum(cores) / spec.cores)
    static = (spec.static_power_w or 0.0) * chips + (spec.idle_power_w_per_core or 0.0) * sum(cores)
    for name in ("static_power_w", "idle_power_w_per_core"):
        if getattr(spec, name) is None:
            unknown[name] = None
    common = {"static": static * total, "barrier": cost("barrier", "energy_pj", barriers)}
    shares = [one / sum(work) if sum(work) else 1 / len(layers) for one in work]
    rows, start = [], 0.0
    for layer, share, joules, mine in zip(layers, shares, energy, work, strict=True):
        time_s = share * total
        rows.append(
            OpCost(
                name=layer.name, kind=layer.kind, module=layer.module, phase=layer.phase, format=spec.arithmetic, unit="cores",
                macs=layer.macs, time_s=time_s, cycles=time_s * spec.clock_hz, compute_cycles=share * busy * spec.clock_hz,
                stall_cycles=0.0, overhead_cycles=share * (total - busy) * spec.clock_hz, busy_cycles=mine * spec.clock_hz,
                energy_j={**joules, **{name: share * part for name, part in common.items() if part}}, bytes={"off_chip": 0},
                utilization=0.0, start_s=start,
            )
        )  # fmt: skip
        start += time_s
    notes = [f"{sum(cores)} cores of {there}, evenly loaded; all neurons count as active; no packet waits for another"]
    if not isinstance(workload.metadata.get("rates"), dict):
        notes.append("the workload does not say how many spikes its neurons make: their own cost is left out")
        unknown["neuron_spike.energy_pj"] = unknown["neuron_spike.time_ns"] = None
    return rows, tuple(unknown), notes
