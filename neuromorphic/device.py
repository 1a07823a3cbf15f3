"""The spiking chip as a device: a network's spikes in the chip's integers, what they cost, and the report."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from collections.abc import Mapping as Table
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwsim.device import check_request
from hwsim.machine import Machine
from hwsim.operators import Op, SpikingLayer
from hwsim.report import OpCost, Report
from hwsim.views.display import displayed_by
from hwsim.views.units import counted
from hwsim.workload import Workload
from neuromorphic.chip.spec import ChipSpec
from neuromorphic.network import SpikingNetwork
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

    from hwsim.area.components import Area
    from hwsim.area.process import Process
    from neuromorphic.chip.costs import ChipCosts
    from neuromorphic.chip.mapping import Mapping
    from neuromorphic.chip.network import ChipNetwork
    from neuromorphic.chip.running import ChipActivity
    from neuromorphic.events import Events
    from numerics.recipes import Recipe

MOST_DOTS = 20_000
"""Spikes that a report's raster keeps, about; a longer run is thinned."""


@displayed_by("neuromorphic.cards:chip_run")
@dataclass(frozen=True)
class ChipRun:
    """A network on a chip: in its numbers, on its cores, run, and paid for."""

    network: ChipNetwork
    mapping: Mapping
    activity: ChipActivity
    costs: ChipCosts


class NeuromorphicChip(Machine[ChipSpec]):
    """A chip of spiking cores; its ``simulate`` takes spiking networks.

    ``event`` runs the network, spike by spike, in the chip's arithmetic on its cores and network. ``analytic`` knows only how
    many spikes there are: every core does its even share of the work, and packets are in nobody's way.
    """

    kind: ClassVar[str] = "neuromorphic_chip"
    spec_class = ChipSpec
    package: ClassVar[str] = "neuromorphic"
    fidelities: ClassVar[tuple[str, ...]] = ("analytic", "event")
    default_fidelity: ClassVar[str] = "event"
    event_driven: ClassVar[bool] = True

    def _area(self, process: Process) -> Area:
        from neuromorphic.chip.area import device_area

        return device_area(self.name, self._spec, process)

    # --- the way of a network -----------------------------------------------------------------------------------------

    def quantise(self, network: SpikingNetwork, **choices: Any) -> ChipNetwork:
        """The network in this chip's numbers; see ``neuromorphic.quantise``."""
        from neuromorphic.chip.quantisation import quantise

        return quantise(network, self.spec, **choices)

    def map(self, network: SpikingNetwork | ChipNetwork, **choices: Any) -> Mapping:
        """The network on this chip's cores; see ``neuromorphic.map_network``."""
        from neuromorphic.chip.mapping import check, map_network

        if isinstance(network, SpikingNetwork):
            check(network, self.spec)
            network = self.quantise(network)
        return map_network(network, self.spec, **choices)

    def run(
        self,
        network: SpikingNetwork | ChipNetwork,
        inputs: Table[str, Events | npt.ArrayLike],
        *,
        steps: int | None = None,
        mapping: Mapping | None = None,
        record: Sequence[str] = (),
        faults: Any = None,
    ) -> ChipRun:
        """Run a network, and say what it cost.

        Args:
            network: in real numbers, or in this chip's.
            inputs: each input population → its events, or an array (steps, size).
            steps: how many; by default as many as the inputs have and, after them, until the outputs' last.
            mapping: where its neurons are; found if left out.
            record: populations whose states are kept.
            faults: ``ChipFaults``.

        Raises:
            InputError: a network that the chip cannot hold or compute, inputs that do not fit it.
        """
        from neuromorphic.chip import running
        from neuromorphic.chip.costs import chip_costs
        from neuromorphic.chip.mapping import Mapping as Placed

        if mapping is not None and not isinstance(mapping, Placed):
            raise InputError(f"mapping: expected what map() gives, got {type(mapping).__name__}")
        numbers = self.quantise(network) if isinstance(network, SpikingNetwork) else network
        placed = self.map(numbers) if mapping is None else mapping
        activity = running.run(numbers, inputs, steps=steps, mapping=placed, record=record, faults=faults)
        return ChipRun(numbers, placed, activity, chip_costs(activity, placed))

    def workload(self, module: nn.Module, *example_inputs: Any, **options: Any) -> Workload:
        """What a spiking torch module computes; see ``neuromorphic.workload.module_workload``.

        Raises:
            InputError: also an option that a module does not leave open.
        """
        from neuromorphic.workload import module_workload

        for key in options.keys() - inspect.signature(module_workload).parameters.keys():
            raise InputError(f"{key}: a torch module leaves no such choice; leave {key} out")
        return module_workload(module, *example_inputs, **options)

    # --- what it costs ------------------------------------------------------------------------------------------------

    def simulate(
        self,
        workload: Workload,
        *,
        fidelity: str | None = None,
        inputs: Any = None,
        parameters: Any = None,
    ) -> Report:
        """What a spiking network costs; see ``hwsim.device.Device.simulate``.

        Args:
            workload: of a ``.nir`` file or ``neuromorphic.spiking_workload``; for ``analytic`` any workload of spiking layers.
            inputs: each input population → events or an array (steps, size), instead of the workload's own.
            parameters: the ``SpikingNetwork``, where the workload has none.
        """
        if not isinstance(workload, Workload):
            raise InputError(
                f"workload: expected a Workload, got {type(workload).__name__}; workload(module, example) makes one of a spiking "
                "module, and neuromorphic.to_network and spiking_workload do so step by step"
            )
        chosen = check_request(self, fidelity, inputs, parameters, valued=("event",))
        others = [op for op in workload.ops if not isinstance(op, SpikingLayer)]
        if others or not workload.ops:
            found = f"{others[0].name!r} is a {others[0].kind}" if others else "it has none"
            raise InputError(
                f"workload {workload.name!r}: {self.name} runs spiking layers only, and {found}; a .nir file has them, and "
                "neuromorphic.convert makes them of a trained network"
            )
        if workload.recipe:
            raise InputError(
                f"formats: {self.name} computes in its own integers ({self.spec.arithmetic}); leave {workload.recipe!r} out"
            )
        if chosen == "analytic":
            return self._analytic(workload)
        network = getattr(workload, "network", None) if parameters is None else parameters
        if not isinstance(network, SpikingNetwork):
            raise InputError(f"workload {workload.name!r}: has no neurons and synapses to run; fidelity 'analytic' needs none")
        given = getattr(workload, "events", None) if inputs is None else inputs
        if given is None:
            if network.inputs:
                raise InputError(f"inputs: expected events of {', '.join(network.inputs)}, got none")
            given = {}
        layers = {op.name for op in workload.ops}
        computing = {one.name for one in network.populations if one.neurons.kind != "input"}
        if layers != computing:
            odd = sorted(layers ^ computing)[0]
            raise InputError(
                f"parameters: {odd!r} is not both a layer of workload {workload.name!r} and a population of the network"
            )
        (steps,) = {op.time_steps for op in workload.ops if isinstance(op, SpikingLayer)}
        numbers = self.quantise(network)
        # What the last step brings comes out some steps later.
        return self._report(workload, network, self.run(numbers, given, steps=steps + numbers.latency))

    def _report(self, workload: Workload, network: SpikingNetwork, ran: ChipRun) -> Report:
        costs, activity = ran.costs, ran.activity
        shares = _shares(ran, {op.name for op in workload.ops})
        rows = self._rows(workload.ops, shares, costs)
        last = costs.schedule
        counts = {name: int(count.sum()) for name, count in costs.counts.items()}
        hops = sum(count for name, count in counts.items() if name.startswith("hop_"))
        chips = f" on {ran.mapping.chips} chips" if ran.mapping.chips > 1 else ""
        entered = sum(activity.events[one.name].count for one in ran.network.populations if one.kind == "input")
        notes = [
            f"{activity.steps:,} steps: {counts['neuron_spike']:,} spikes of neurons and {entered:,} that enter, "
            f"{counts['synaptic_operation']:,} synaptic operations, {counts['spike_within_tile']:,} packets over {hops:,} hops, "
            f"{counted(ran.mapping.used.size, 'core')}{chips}",
            f"energy and time by event: set {self.spec.event_set!r} ({self.spec.events.source})",
            *self._unknown_note(costs.unknown),
            *getattr(workload, "notes", ()),
            *dict.fromkeys((*network.notes, *ran.network.notes)),
            *((last.note(),) if last.note() else ()),
            "time and shared energy of a step are split among populations as their work is",
            *self._pace_note(network),
            *_added_note(ran, {one.name for one in network.populations}),
            *_silence_note(workload, activity),
            *(() if costs.rung == "cycle" else ("so many packets are carried one after another, not router by router",)),
        ]
        for count, what in ((activity.wrapped, "sums of inputs wrapped"), (activity.clipped, "voltages saturated")):
            if count:
                notes.append(f"{count:,} {what} at the ends of their registers")
        report = self.report(
            workload,
            rows,
            fidelity="event",
            peak_macs_per_s=0.0,
            offchip_bandwidth_bytes_per_s=0.0,
            tables=_tables(ran, shares),
            notes=notes,
        )
        return self._bounded(report, costs.unknown)

    def _rows(self, ops: Sequence[Op], shares: Table[str, _Share], costs: ChipCosts) -> list[OpCost]:
        """One row a population: its own events' energy, and its share of what all of them need together."""
        total = costs.time_s
        common = {name: float(costs.energy_j[name].sum()) for name in ("network", "axons", "barrier", "idle", "static")}
        common = {name: joules for name, joules in common.items() if joules}
        busy = float(costs.busy_s.sum())
        # Until the last core is done, what is not the busiest core's own work is waiting for packets.
        worked = min(float((costs.update_s + costs.receive_s).max(axis=1, initial=0.0).sum()), busy)
        clock = self.spec.clock_hz
        rows, start = [], 0.0
        for op in ops:
            share = shares[op.name]
            time_s = share.time * total
            rows.append(
                OpCost(
                    name=op.name,
                    kind=op.kind,
                    module=op.module,
                    phase=op.phase,
                    format=self.spec.arithmetic,
                    unit="cores",
                    macs=op.macs,
                    time_s=time_s,
                    cycles=time_s * clock,
                    compute_cycles=share.time * worked * clock,
                    stall_cycles=share.time * (busy - worked) * clock,
                    overhead_cycles=share.time * max(total - busy, 0.0) * clock,
                    busy_cycles=share.work_s * clock,
                    energy_j={
                        "synapses": share.synapses_j,
                        "neurons": share.neurons_j,
                        **{name: joules * share.time for name, joules in common.items()},
                    },
                    bytes={"off_chip": 0, "synapses": share.synapse_bytes},
                    utilization=0.0,
                    start_s=start,
                )
            )
            start += time_s
        return rows

    def _bounded(self, report: Report, unknown: Sequence[str]) -> Report:
        """The report, whose time or energy is a lower bound where a figure of theirs is unknown."""
        energy = [name for name in unknown if name.endswith(("energy_pj", "power_w", "power_w_per_core"))]
        origin: dict[str, Any] = dict(report.origin)
        if energy:
            origin["energy"] = "lower bound"
        if len(energy) < len(unknown):
            origin["time"] = "lower bound"
        return replace(report, origin=origin)

    def _pace_note(self, network: SpikingNetwork) -> list[str]:
        """Where the chip's step is another than the network's."""
        step = self.spec.step_time_s
        if step is None or abs(step / network.dt_s - 1) < 1e-9:
            return []
        return [f"a step of the network is {network.dt_s:g} s, of the chip {step:g} s: {step / network.dt_s:.3g} times as long"]

    def _unknown_note(self, unknown: Sequence[str]) -> list[str]:
        if not unknown:
            return []
        return [f"unknown to set {self.spec.event_set!r}, and not counted: {', '.join(unknown)}; totals are lower bounds"]

    def _analytic(self, workload: Workload) -> Report:
        from neuromorphic.chip.analytic import analytic_rows

        rows, unknown, notes = analytic_rows(self.spec, workload)
        report = self.report(
            workload, rows, fidelity="analytic", peak_macs_per_s=0.0, offchip_bandwidth_bytes_per_s=0.0,
            notes=[f"energy and time by event: set {self.spec.event_set!r} ({self.spec.events.source})",
                   *self._unknown_note(unknown), *notes],
        )  # fmt: skip
        return self._bounded(report, unknown)

    # --- what it computes ---------------------------------------------------------------------------------------------

    def emulate(
        self,
        module: nn.Module,
        recipe: str | Recipe | None = None,
        *,
        fidelity: str | None = None,
        example_inputs: Any = None,
        seed: int = 0,
    ) -> Any:
        """The spiking module in this chip's integer arithmetic; see ``neuromorphic.emulate``.

        Raises:
            InputError: a recipe (the chip has one arithmetic), a module that is no spiking network.
        """
        from neuromorphic.chip.emulation import emulate

        if recipe is not None:
            raise InputError(f"recipe: {self.name} computes in its own integers ({self.spec.arithmetic}); leave the recipe out")
        if fidelity not in (None, "event"):
            raise InputError(f"fidelity: expected 'event', which computes values, got {fidelity!r}")
        emulated = emulate(module, self.spec)
        if example_inputs is not None:
            emulated(*(example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)))
        return emulated


@dataclass(frozen=True)
class _Share:
    """Of one population: its spikes and work, and its part of the time."""

    size: int
    spikes: int
    operations: int
    updates_active: float
    work_s: float
    synapses_j: float
    neurons_j: float
    synapse_bytes: int
    time: float


def _shares(ran: ChipRun, layers: Collection[str]) -> dict[str, _Share]:
    """What each of a workload's layers did; what was added for the chip's sake goes to the layer that it serves.

    Synaptic operations and spikes are counted by population; active updates by core, and split among the populations of a core
    by their neurons.
    """
    activity, network, spec = ran.activity, ran.network, ran.mapping.spec
    events = spec.events
    computing = [one for one in network.populations if one.kind != "input"]
    active = activity.updates_active.sum(axis=0, dtype=np.int64)
    cores = activity.cores
    neurons = activity.neurons
    sent = {name: one.neuron for name, one in activity.events.items()}
    bits = spec.synapses.weight_bits or spec.bits.weight

    def cost(name: str, what: str, kind: str | None = None) -> float:
        value = events.energy_pj(name, kind) if what == "energy" else events.time_ns(name, kind)
        return 0.0 if value is None else value * (1e-12 if what == "energy" else 1e-9)

    found: dict[str, dict[str, Any]] = {}
    for one in computing:
        where = np.bincount(activity.core_of[one.name], minlength=cores)[:cores]
        updates = float((active * np.divide(where, neurons, out=np.zeros(cores), where=neurons > 0)).sum())
        spikes = int(sent[one.name].size) if one.kind == "spiking" else 0
        idle = one.size * activity.steps - updates
        own = {"neuron_update_active": updates, "neuron_update_inactive": idle, "neuron_spike": spikes}
        found[one.name] = {
            "size": one.size, "spikes": spikes, "operations": 0, "updates_active": updates, "synapses_j": 0.0,
            "neurons_j": sum(count * cost(name, "energy") for name, count in own.items()),
            "work_s": sum(count * cost(name, "time") for name, count in own.items()),
        }  # fmt: skip
    for projection in network.projections:
        fan_out = np.diff(projection.first)
        done = int(np.bincount(sent[projection.source], minlength=fan_out.size) @ fan_out) if fan_out.size else 0
        target = found[projection.target]
        target["operations"] += done
        target["synapses_j"] += done * cost("synaptic_operation", "energy", projection.kind)
        target["work_s"] += done * cost("synaptic_operation", "time", projection.kind)
    for name in [name for name in found if name not in layers]:
        served = next(p.target for p in network.projections if p.source == name)
        extra = found.pop(name)
        for field, value in extra.items():
            if field != "size":
                found[served][field] += value
    # A chip may do more than one operation a synapse, such as two rows for a source of both signs.
    counted = int(ran.costs.counts["synaptic_operation"].sum())
    named = sum(part["operations"] for part in found.values())
    paid, joules = sum(part["synapses_j"] for part in found.values()), float(ran.costs.energy_j["synapses"].sum())
    for part in found.values():
        part["operations"] = round(part["operations"] * counted / named) if named else 0
        part["synapses_j"] *= joules / paid if paid else 1.0
    work = sum(part["work_s"] for part in found.values())
    # Where a chip says nothing of times, populations share by their neurons.
    every = sum(part["size"] for part in found.values())
    return {
        name: _Share(
            **part,
            synapse_bytes=part["operations"] * bits // 8,
            time=part["work_s"] / work if work else part["size"] / every,
        )
        for name, part in found.items()
    }


def _tables(ran: ChipRun, shares: Table[str, _Share]) -> dict[str, list[dict[str, Any]]]:
    costs, activity, mapping = ran.costs, ran.activity, ran.mapping
    limits = {f"{name}_limit": limit for name, limit in mapping.limits.items() if limit is not None}
    operations = np.zeros(max(int(mapping.used.max(initial=-1)) + 1, activity.cores), np.int64)
    operations[: activity.cores] = activity.synaptic_operations.sum(axis=0)
    cores = [
        {**row, **limits, "synaptic_operations": int(done), "busy_s": float(busy), "energy_j": float(joules)}
        for row, done, busy, joules in zip(
            mapping.table(),
            operations[mapping.used],
            (costs.update_s + costs.receive_s).sum(axis=0),
            costs.core_energy_j,
            strict=True,
        )
    ]
    allowed = costs.schedule.step_time_s
    steps = [
        {
            "step": t, "begin_s": float(costs.schedule.begin_s[t]), "busy_s": float(costs.busy_s[t]), "allowed_s": allowed,
            "late_s": float(costs.schedule.late_s[t]), "network_s": float(costs.network_s[t]),
            "waiting_s": float(costs.waiting_s[t]), **{name: int(count[t]) for name, count in costs.counts.items()},
            **{f"energy_{name}_j": float(part[t]) for name, part in costs.energy_j.items()},
        }
        for t in range(activity.steps)
    ]  # fmt: skip
    populations = [
        {"population": one.name, "size": one.size, "spikes": int(activity.events[one.name].count), "input": one.kind == "input",
         "synaptic_operations": shares[one.name].operations if one.name in shares else 0}
        for one in sorted(ran.network.populations, key=lambda one: one.kind != "input")
    ]  # fmt: skip
    # Links that leave a router; what goes out to its own cores is not among them.
    load = costs.link_load
    links = [
        {"x": int(x), "y": int(y), "direction": direction, "packets": int(load[y, x, port])}
        for port, direction in enumerate(("north", "east", "south", "west"))
        for y, x in zip(*np.nonzero(load[:, :, port]), strict=True)
    ]
    return {
        "populations": populations, "core_map": cores, "links": links, "time_steps": steps,
        "raster": _raster(activity),
    }  # fmt: skip


def _added_note(ran: ChipRun, own: Collection[str]) -> list[str]:
    """What neurons cost that were added for the chip's sake."""
    notes = []
    for one in ran.network.populations:
        if one.name not in own:
            sent = ran.activity.events[one.name]
            done = sum(
                int(np.diff(p.first)[sent.neuron].sum()) for p in ran.network.projections if p.source == one.name and sent.count
            )
            notes.append(
                f"{sent.count:,} of the spikes and {done:,} of the synaptic operations are of {one.name!r}, which was added for "
                "the chip"
            )
    return notes


def _silence_note(workload: Workload, activity: ChipActivity) -> list[str]:
    """Populations that the workload says to fire, and that never do in the chip's numbers."""
    rates = workload.metadata.get("rates", {})
    silent = [
        f"{name!r} ({rates[name]:.3g} spikes a neuron and step expected)"
        for name, events in activity.events.items()
        if not events.count and activity.network.population(name).kind == "spiking" and rates.get(name, 0) > 0
    ]
    return [f"never spikes in this chip's numbers: {', '.join(silent)}"] if silent else []


def _raster(activity: ChipActivity) -> list[dict[str, Any]]:
    """Who fired when; of a long run a share of the spikes, drawn by a seed of its own."""
    names = [one.name for one in activity.network.populations if one.kind != "readout"]
    total = sum(activity.events[name].count for name in names)
    draw = np.random.default_rng(0)
    rows = []
    for name in names:
        events = activity.events[name]
        step = np.repeat(np.arange(events.steps), np.diff(events.first))
        shown = draw.random(events.count) * total < MOST_DOTS if total > MOST_DOTS else np.ones(events.count, np.bool_)
        for t, neuron in zip(step[shown].tolist(), events.neuron[shown].tolist(), strict=True):
            rows.append({"population": name, "step": t, "neuron": neuron})
    return rows
