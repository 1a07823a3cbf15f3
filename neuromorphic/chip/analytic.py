"""What spiking layers cost by their counts alone: no network, no spikes, no places.

Every layer lies on as few cores as its neurons and synapses need, all its cores work alike, and a step lasts as long as the
busiest layer's cores. A packet goes to every core of the next layers; its hops are those between two routers of a compact
rectangle, on average. All neurons count as active.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hwsim.operators import SpikingLayer
from hwsim.report import OpCost
from neuromorphic.chip.spec import ChipSpec

if TYPE_CHECKING:
    from hwsim.workload import Workload


def layer_cores(spec: ChipSpec, layer: SpikingLayer) -> int:
    """The least number of cores that hold a layer's neurons, and its synapses one by one."""
    bits = (spec.synapses.weight_bits or spec.bits.weight) + spec.synapses.index_bits
    synapses = layer.sources * layer.fan_out
    found = [math.ceil(layer.neurons / spec.neurons_per_core)]
    if spec.synapse_memory_bytes_per_core is not None and not spec.synapses.shares_weights:
        found.append(math.ceil(synapses * bits / 8 / spec.synapse_memory_bytes_per_core))
    if spec.synapses_per_core is not None:
        found.append(math.ceil(synapses / spec.synapses_per_core))
    return max(found)


def analytic_rows(spec: ChipSpec, workload: Workload) -> tuple[list[OpCost], tuple[str, ...], list[str]]:
    """One row a layer, the figures that are unknown, and notes.

    Raises:
        InputError: layers that run for different numbers of steps.
    """
    from numerics.errors import InputError

    layers = [op for op in workload.ops if isinstance(op, SpikingLayer)]
    counts = {layer.time_steps for layer in layers}
    if len(counts) > 1:
        raise InputError(f"workload {workload.name!r}: its layers run for {' and '.join(map(str, sorted(counts)))} steps")
    steps = counts.pop()
    unknown: dict[str, None] = {}
    events = spec.events

    def cost(event: str, what: str) -> float:
        found = events.energy_pj(event) if what == "energy_pj" else events.time_ns(event)
        if found is None:
            unknown[f"{event}.{what}"] = None
        return 0.0 if found is None else found * (1e-12 if what == "energy_pj" else 1e-9)

    cores = [layer_cores(spec, layer) for layer in layers]
    tiles = math.ceil(sum(cores) / spec.mesh.cores_per_tile)
    side = math.sqrt(tiles)
    # Mean distance of two points of a line of n places: (n² − 1) / 3n.
    along = (side * side - 1) / (3 * side) if side > 1 else 0.0
    work, energy = [], []
    for layer, used in zip(layers, cores, strict=True):
        operations, updates = layer.synaptic_operations, layer.neuron_updates
        packets = round(layer.sources * layer.event_rate * layer.time_steps) * used
        work.append(
            (operations * cost("synaptic_operation", "time_ns") + updates * cost("neuron_update_active", "time_ns")
             + packets * cost("axon_in", "time_ns")) / used
        )  # fmt: skip
        network = cost("spike_within_tile", "energy_pj") + along * (
            cost("hop_east_west", "energy_pj") + cost("hop_north_south", "energy_pj")
        )
        energy.append(
            {
                "synapses": operations * cost("synaptic_operation", "energy_pj"),
                "neurons": updates * cost("neuron_update_active", "energy_pj"),
                "axons": packets * (cost("axon_in", "energy_pj") + cost("axon_out", "energy_pj")),
                "network": packets * network,
            }
        )
    busy = max(work, default=0.0)
    barrier = events.barrier.time_at(tiles)
    if spec.synchronisation == "fixed":
        assert spec.step_time_s is not None
        total = max(busy, steps * spec.step_time_s)
    else:
        if barrier is None:
            unknown["barrier.time_ns"] = None
        total = busy + steps * (barrier or 0.0) * 1e-9
    static = (spec.static_power_w or 0.0) + (spec.idle_power_w_per_core or 0.0) * sum(cores)
    for name in ("static_power_w", "idle_power_w_per_core"):
        if getattr(spec, name) is None:
            unknown[name] = None
    shares = [one / sum(work) if sum(work) else 1 / len(layers) for one in work]
    rows, start = [], 0.0
    for layer, share, joules, mine in zip(layers, shares, energy, work, strict=True):
        time_s = share * total
        rows.append(
            OpCost(
                name=layer.name, kind=layer.kind, module=layer.module, phase=layer.phase, format=spec.arithmetic, unit="cores",
                macs=layer.macs, time_s=time_s, cycles=time_s * spec.clock_hz, compute_cycles=share * busy * spec.clock_hz,
                stall_cycles=0.0, overhead_cycles=share * (total - busy) * spec.clock_hz, busy_cycles=mine * spec.clock_hz,
                energy_j={**joules, "static": share * static * total}, bytes={"off_chip": 0}, utilization=0.0, start_s=start,
            )
        )  # fmt: skip
        start += time_s
    notes = [f"{sum(cores)} cores of {spec.cores * spec.chips.count}, evenly loaded; no packet waits for another"]
    if sum(cores) > spec.cores * spec.chips.count:
        raise InputError(
            f"workload {workload.name!r} needs {sum(cores)} cores, {spec.name} has {spec.cores * spec.chips.count} "
            f"(chips: {spec.chips.count})"
        )
    return rows, tuple(unknown), notes
