"""What a run on a chip costs: energy is the sum over events, time follows from the cores' work, the network and the barrier.

A step of a core: it updates its neurons one after another and sends the packets of those that spike as it comes to them; and it
takes the packets that arrive, each with its synapses. A core is done when it has done both, and not before its last packet has
come and been taken; the step's work is done when the last core and the last packet are. What a chip's spec says nothing of
takes nothing here and is named in ``unknown``: totals are then lower bounds.
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed_by
from neuromorphic.chip.interconnect import ChipLink, Interconnect, Rung
from neuromorphic.chip.mapping import Mapping
from neuromorphic.chip.running import KINDS, ChipActivity
from neuromorphic.chip.spec import ChipSpec
from neuromorphic.chip.synchronisation import Barrier, FixedStep, Schedule, diameter
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

PACKETS_AT_ONCE = 1 << 18
"""Packets in memory at a time; steps are taken as many at once as send about so many."""


EXACT_PACKETS = 3_000_000
"""Packets up to which the network is stepped exactly where nothing else is asked for: about half a second's work."""


@displayed_by("neuromorphic.cards:chip_costs")
@dataclass(frozen=True)
class ChipCosts:
    """What a run cost.

    Attributes:
        spec: of the chip.
        cores: (used,) numbers of the cores that hold neurons, as below.
        counts: event of ``spec.EVENTS`` → how often it happened, (steps,) int64.
        energy_j: component → (steps,) joules: ``synapses``, ``neurons``, ``axons``, ``network``, ``barrier``, ``idle``,
            ``static``.
        update_s: (steps, cores) time that each core takes for its neurons and what they send.
        receive_s: (steps, cores) time that each core takes for packets and synapses.
        core_s: (steps, cores) when each core is done, from the beginning of the step.
        network_s: (steps,) when the last packet is delivered.
        busy_s: (steps,) time of a step's work, without barrier or waiting for its tick.
        waiting_s: (steps,) time that packets waited for others, their sum.
        schedule: of the steps.
        link_load: (rows, columns, 5) packets that left each router by ``RouterPort``.
        core_energy_j: (cores,) of synapses, neurons and axons.
        unknown: figures of the spec that are missing though their events happened.
        rung: that the network was carried at.
    """

    spec: ChipSpec
    cores: npt.NDArray[np.int64]
    counts: Table[str, npt.NDArray[np.int64]]
    energy_j: Table[str, npt.NDArray[np.float64]]
    update_s: npt.NDArray[np.float64]
    receive_s: npt.NDArray[np.float64]
    core_s: npt.NDArray[np.float64]
    network_s: npt.NDArray[np.float64]
    busy_s: npt.NDArray[np.float64]
    waiting_s: npt.NDArray[np.float64]
    schedule: Schedule
    link_load: npt.NDArray[np.int64]
    core_energy_j: npt.NDArray[np.float64]
    unknown: tuple[str, ...]
    rung: Rung

    @property
    def time_s(self) -> float:
        """Of the whole run."""
        return self.schedule.total_s

    @cached_property
    def total_j(self) -> float:
        """Energy of the whole run."""
        return float(sum(part.sum() for part in self.energy_j.values()))


def interconnect_of(spec: ChipSpec) -> tuple[Interconnect, bool]:
    """The chip's network, and whether its times are known; where they are not, hops are counted and take no time."""
    events, mesh, chips = spec.events, spec.mesh, spec.chips
    times = [events.time_ns(name) for name in ("hop_east_west", "hop_north_south")]
    known = all(time is not None for time in times)
    within = events.time_ns("spike_within_tile") or 0.0
    # A chip of one router says 0 of links that it does not have.
    east_west, north_south = (float(time) if known and time else 1.0 for time in times)
    link = None
    if chips.count > 1:
        # Where its time is unknown, and so named, a link between chips passes packets as quickly as one on a chip.
        link = ChipLink(hop_ns=chips.hop_time_ns or max(east_west, north_south))
    network = Interconnect(
        columns=mesh.columns, rows=mesh.rows, cores_per_tile=mesh.cores_per_tile, cores=spec.cores,
        chips=(chips.columns, chips.rows), hop_east_west_ns=east_west, hop_north_south_ns=north_south, within_tile_ns=within,
        tile_occupancy_ns=within or min(east_west, north_south), chip_link=link,
    )  # fmt: skip
    return network, known


def chip_costs(activity: ChipActivity, mapping: Mapping, *, rung: Rung | None = None) -> ChipCosts:
    """What a run cost on its chip.

    Args:
        activity: of ``chip.run`` with this mapping.
        mapping: of the network.
        rung: of ``Interconnect.traffic``: ``cycle``, which is exact, or ``event``; None: exact up to ``EXACT_PACKETS``.
    """
    spec, events = mapping.spec, mapping.spec.events
    for name, cores in mapping.core_of.items():
        if name not in activity.core_of or not np.array_equal(activity.core_of[name], cores):
            raise InputError(
                f"mapping: {name!r}: expected the mapping that the activity was run with, its neurons are on other cores"
            )
    unknown: dict[str, None] = {}
    used = mapping.used
    steps, most = activity.steps, activity.cores
    inside = used[used < most]

    def of_cores(counts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """(steps, used) of counts by core number."""
        found = np.zeros((steps, used.size), np.int64)
        found[:, : inside.size] = counts[:, inside]
        return found

    def figure(event: str, what: str, count: Any, kind: str | None = None) -> float:
        found = events.energy_pj(event, kind) if what == "energy_pj" else events.time_ns(event, kind)
        if found is None and int(np.sum(count)):
            unknown[f"{event}.{what}"] = None
        return 0.0 if found is None else float(found) * (1e-12 if what == "energy_pj" else 1e-9)

    operations = np.stack([of_cores(activity.operations[:, :, k]) for k in range(len(KINDS))], axis=2)
    active, inactive = of_cores(activity.updates_active), of_cores(activity.updates_inactive)
    spikes, out, taken = of_cores(activity.spikes), of_cores(activity.axons_out), of_cores(activity.axons_in)
    by_core: dict[str, npt.NDArray[np.int64]] = {
        "neuron_update_active": active, "neuron_update_inactive": inactive, "neuron_spike": spikes,
        "axon_out": out, "axon_in": taken,
    }  # fmt: skip

    def weighed(names: tuple[str, ...], what: str) -> npt.NDArray[np.float64]:
        found = np.zeros((steps, used.size))
        for name in names:
            found += by_core[name] * figure(name, what, by_core[name])
        return found

    def synapses(what: str) -> npt.NDArray[np.float64]:
        each = [figure("synaptic_operation", what, operations[:, :, k], kind) for k, kind in enumerate(KINDS)]
        return np.asarray(operations @ np.array(each), np.float64)

    neuron_events = ("neuron_update_active", "neuron_update_inactive", "neuron_spike")
    energies = {
        "synapses": synapses("energy_pj"),
        "neurons": weighed(neuron_events, "energy_pj"),
        "axons": weighed(("axon_out", "axon_in"), "energy_pj"),
    }
    update_s = weighed((*neuron_events, "axon_out"), "time_ns")
    receive_s = weighed(("axon_in",), "time_ns") + synapses("time_ns")

    network, known = interconnect_of(spec)
    if rung is None:
        rung = "cycle" if int(out.sum()) + int(taken.sum()) <= 2 * EXACT_PACKETS else "event"
    traffic = _traffic(activity, mapping, network, update_s if known else None, rung)
    hops = {name: traffic[name] for name in ("hop_east_west", "hop_north_south", "hop_between_chips")}
    sent = traffic["packets"]
    if not known and int(sent.sum()):
        unknown["hop.time_ns"] = None
    figure("spike_within_tile", "time_ns", sent)
    if spec.chips.hop_time_ns is None and int(hops["hop_between_chips"].sum()):
        unknown["chips.hop_time_ns"] = None
    moved = sent * figure("spike_within_tile", "energy_pj", sent)
    for name in ("hop_east_west", "hop_north_south"):
        moved = moved + hops[name] * figure(name, "energy_pj", hops[name])
    if spec.chips.hop_energy_pj is None and int(hops["hop_between_chips"].sum()):
        unknown["chips.hop_energy_pj"] = None
    moved = moved + hops["hop_between_chips"] * ((spec.chips.hop_energy_pj or 0.0) * 1e-12)

    last = traffic["last_s"]
    each_s = np.divide(receive_s, taken, out=np.zeros_like(receive_s), where=taken > 0)
    core_s = np.maximum(update_s + receive_s, np.where(taken > 0, last + each_s, 0.0))
    network_s = traffic["latency_s"]
    busy_s = np.maximum(core_s.max(axis=1, initial=0.0), network_s)
    schedule = _schedule(spec, mapping, busy_s, unknown)
    barriers = np.ones(steps, np.int64) if spec.synchronisation == "barrier" else np.zeros(steps, np.int64)

    lengths = np.diff(np.append(schedule.begin_s, schedule.total_s))
    for name in ("static_power_w", "idle_power_w_per_core"):
        if getattr(spec, name) is None:
            unknown[name] = None
    energy = {name: part.sum(axis=1) for name, part in energies.items()}
    energy["network"] = moved
    energy["barrier"] = barriers * figure("barrier", "energy_pj", barriers)
    energy["idle"] = lengths * ((spec.idle_power_w_per_core or 0.0) * used.size)
    energy["static"] = lengths * ((spec.static_power_w or 0.0) * mapping.chips)
    counts = {"synaptic_operation": operations.sum(axis=(1, 2)), **{name: part.sum(axis=1) for name, part in by_core.items()}}
    return ChipCosts(
        spec=spec, cores=used, counts={**counts, "spike_within_tile": sent, **hops, "barrier": barriers}, energy_j=energy,
        update_s=update_s, receive_s=receive_s, core_s=core_s, network_s=network_s, busy_s=busy_s,
        waiting_s=traffic["waiting_s"], schedule=schedule, link_load=traffic["link_load"],
        core_energy_j=sum((part.sum(axis=0) for part in energies.values()), np.zeros(used.size)),
        unknown=tuple(unknown), rung=rung,
    )  # fmt: skip


def _traffic(
    activity: ChipActivity, mapping: Mapping, network: Interconnect, update_s: npt.NDArray[np.float64] | None, rung: Rung
) -> dict[str, Any]:
    """What the network carried, by step; without ``update_s`` nothing takes time."""
    from neuromorphic.chip._cost_kernels import last_arrivals, releases

    steps, used = activity.steps, mapping.used
    names = ("packets", "hop_east_west", "hop_north_south", "hop_between_chips")
    found: dict[str, Any] = {name: np.zeros(steps, np.int64) for name in names}
    found |= {name: np.zeros(steps) for name in ("latency_s", "waiting_s")}
    found["last_s"] = np.zeros((steps, used.size))
    shape = (network.chips[1] * network.rows, network.chips[0] * network.columns, 5)
    found["link_load"] = np.zeros(shape, np.int64)
    rank = np.full(network.core_count, -1, np.int64)
    rank[used] = np.arange(used.size)
    neurons = np.bincount(np.concatenate(list(mapping.core_of.values())), minlength=network.core_count)[used]
    sent = activity.axons_out.sum(axis=1, dtype=np.int64) + activity.axons_in.sum(axis=1, dtype=np.int64)
    bounds = np.searchsorted(np.cumsum(sent), np.arange(PACKETS_AT_ONCE, int(sent.sum()) + 1, PACKETS_AT_ONCE)) + 1
    edges = sorted({0, *bounds.tolist(), steps})
    for first, end in pairwise(edges):
        # Turns instead of seconds, which differ from core to core: 0 from outside, then 1 and up.
        packets = activity.packets(first, end, neuron_time_s=1.0)
        step = np.repeat(np.arange(end - first, dtype=np.int32), np.diff(packets.first))
        release = np.zeros(packets.count)
        if update_s is not None:
            assert packets.release_s is not None
            releases(step, packets.release_s, rank[packets.source], update_s[first:end], neurons, release)
        carried = network.traffic(replace(packets, release_s=release), rung=rung, record=update_s is not None)
        part = slice(first, end)
        found["packets"][part] = carried.packets
        for name, hops in zip(
            names[1:], (carried.hops_east_west, carried.hops_north_south, carried.hops_between_chips), strict=True
        ):
            found[name][part] = hops
        found["link_load"] += carried.link_load
        if carried.delivered_s is not None:
            found["latency_s"][part], found["waiting_s"][part] = carried.latency_s, carried.waiting_s
            last_arrivals(step, rank[packets.target], carried.delivered_s, found["last_s"][part])
    return found


def _schedule(spec: ChipSpec, mapping: Mapping, busy_s: npt.NDArray[np.float64], unknown: dict[str, None]) -> Schedule:
    """When steps begin and end."""
    if spec.synchronisation == "fixed":
        assert spec.step_time_s is not None
        return FixedStep(spec.step_time_s).schedule(busy_s)
    times = spec.events.barrier.time_ns
    if times is None:
        unknown["barrier.time_ns"] = None
        times = {1: 0.0}
    x, y, _ = mapping.positions
    return barrier_of(spec, times).schedule(busy_s, diameter=diameter(x[mapping.used], y[mapping.used]))


def barrier_of(spec: ChipSpec, times: Table[int, float]) -> Barrier:
    """The barrier of a chip whose times for so many tiles, the first of one chip's mesh, are known."""
    # The tiles that were measured may be more than this chip has.
    return Barrier(times, spec.mesh.columns, max(spec.mesh.rows, -(-max(times) // spec.mesh.columns)))
