"""Layers of several networks on several sub-accelerators at once: who runs what, and when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.device import Device
from hwsim.planning.assignment_costs import Layer, LayerCosts, layer_costs
from hwsim.planning.assignment_search import BOUND_SLACK, SLACK, Goal, Problem, Timed, exact, heuristic, lower_bounds
from hwsim.registry import get_device
from hwsim.report import Span
from hwsim.views.display import displayed, displayed_by
from hwsim.workload import Workload
from numerics.errors import InputError, unknown_name
from numerics.recipes import Recipe, get_recipe

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

GOALS: tuple[Goal, ...] = ("energy_j", "makespan_s")

NODES = 100_000
"""Partial schedules that the exact search tries before it gives up."""

DEEPEST = 300
"""Layers at most for the exact search, which goes one level deeper with each."""


@displayed
@dataclass(frozen=True, kw_only=True)
class Handover:
    """What brings a result to another machine, besides what its layer writes to the shared memory and the next one reads there.

    Attributes:
        bytes_per_s: bytes a second.
        latency_s: before the first byte.
        energy_pj_per_byte: of a byte.

    Raises:
        InputError: no bandwidth, a negative latency or energy.
    """

    bytes_per_s: float = np.inf
    latency_s: float = 0.0
    energy_pj_per_byte: float = 0.0

    def __post_init__(self) -> None:
        for name in ("bytes_per_s", "latency_s", "energy_pj_per_byte"):
            value, rate = getattr(self, name), name == "bytes_per_s"
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (value > 0 if rate else 0 <= value < np.inf):
                raise InputError(f"handover: {name}: expected a number {'above 0' if rate else '≥ 0'}, got {value!r}")


@displayed
@dataclass(frozen=True)
class PlacedLayer:
    """A layer with its machine and its time.

    Attributes:
        network: name of its network.
        layer: name of its main operator.
        ops: names of its operators.
        device: name of its machine.
        start_s, end_s: when it runs.
        energy_j: of the layer, without static power and handing over; None where it is not known.
    """

    network: str
    layer: str
    ops: tuple[str, ...]
    device: str
    start_s: float
    end_s: float
    energy_j: float | None


@displayed_by("hwsim.views.study_cards:assignment")
@dataclass(frozen=True)
class Assignment:
    """Which sub-accelerator runs which layer of which network, and when.

    Attributes:
        networks: names, numbered where two are alike.
        devices: names, numbered where two are alike.
        layers: each with its machine, by start.
        makespan_s: when the last layer ends.
        energy_j: of all layers, what they hand over, and the static power of every machine until the last layer ends; None
            where it is not known.
        area_mm2: of all machines; None where one's is not known.
        deadline_s: what the makespan was to keep; None for nothing.
        objective: what was minimised.
        least_makespan_s: no schedule is shorter.
        least_energy_j: no schedule that keeps the deadline takes less; infinite where none can keep it, None where energy is
            not known.
        optimal: whether nothing better exists, as far as is known.
        notes: what a reader must know.
    """

    networks: tuple[str, ...]
    devices: tuple[str, ...]
    layers: tuple[PlacedLayer, ...]
    makespan_s: float
    energy_j: float | None
    area_mm2: float | None
    deadline_s: float | None
    objective: Goal
    least_makespan_s: float
    least_energy_j: float | None
    optimal: bool
    notes: tuple[str, ...] = ()

    @property
    def meets_deadline(self) -> bool:
        """Whether the last layer ends in time; true without a deadline."""
        return self.deadline_s is None or self.makespan_s <= self.deadline_s * (1 + SLACK)

    @cached_property
    def latency_s(self) -> dict[str, float]:
        """Network → when its last layer ends."""
        found = dict.fromkeys(self.networks, 0.0)
        for one in self.layers:
            found[one.network] = max(found[one.network], one.end_s)
        return found

    @cached_property
    def utilization(self) -> dict[str, float]:
        """Machine → share of the makespan in which it works on a layer."""
        busy = dict.fromkeys(self.devices, 0.0)
        for one in self.layers:
            busy[one.device] += one.end_s - one.start_s
        return {name: seconds / self.makespan_s if self.makespan_s else 0.0 for name, seconds in busy.items()}

    def machine_of(self, network: str) -> dict[str, str]:
        """Layer → machine, of one network.

        Raises:
            InputError: no such network.
        """
        if network not in self.networks:
            raise unknown_name("network", network, self.networks)
        return {one.layer: one.device for one in self.layers if one.network == network}

    @property
    def spans(self) -> tuple[Span, ...]:
        """The timeline: a track a machine."""
        return tuple(
            Span(one.device, f"{one.network}: {one.layer}", one.start_s, one.end_s - one.start_s, {"ops": ", ".join(one.ops)})
            for one in self.layers
        )

    def timeline(self, path: str | Path | None = None) -> dict[str, Any]:
        """The timeline in the trace-event format that Perfetto opens, also written to ``path`` if given; a thread a machine."""
        threads = {name: number for number, name in enumerate(self.devices, 1)}
        events: list[dict[str, Any]] = [
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": tid, "args": {"name": name}} for name, tid in threads.items()
        ]
        for one in self.layers:
            start, end = round(one.start_s * 1e6, 6), round(one.end_s * 1e6, 6)
            args = {"ops": ", ".join(one.ops)} | ({} if one.energy_j is None else {"energy_j": one.energy_j})
            events.append(
                {
                    "name": one.layer, "cat": one.network, "ph": "X", "ts": start, "dur": round(end - start, 6), "pid": 1,
                    "tid": threads[one.device], "args": {"network": one.network, **args},
                }
            )  # fmt: skip
        data = {"traceEvents": events, "displayTimeUnit": "ns"}
        if path is not None:
            Path(path).write_text(json.dumps(data, allow_nan=False), encoding="utf-8")
        return data

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        least = self.least_energy_j
        return {
            "networks": list(self.networks),
            "devices": list(self.devices),
            "objective": self.objective,
            "makespan_s": self.makespan_s,
            "energy_j": self.energy_j,
            "area_mm2": self.area_mm2,
            "deadline_s": self.deadline_s,
            "meets_deadline": self.meets_deadline,
            "least_makespan_s": self.least_makespan_s,
            "least_energy_j": least if least is not None and np.isfinite(least) else None,
            "optimal": self.optimal,
            "latency_s": dict(self.latency_s),
            "utilization": dict(self.utilization),
            "layers": self.records(),
            "notes": list(self.notes),
        }

    def records(self) -> list[dict[str, Any]]:
        """One flat mapping a layer, by start."""
        return [
            {
                "network": one.network, "layer": one.layer, "device": one.device, "start_s": one.start_s, "end_s": one.end_s,
                "energy_j": one.energy_j, "ops": len(one.ops),
            }
            for one in self.layers
        ]  # fmt: skip

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer, by start."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def plot(self) -> Figure:
        """A bar a machine, a box a layer, a colour a network."""
        from hwsim.planning.assignment_picture import plot_assignment

        return plot_assignment(self)

    def __repr__(self) -> str:
        energy = "unknown energy" if self.energy_j is None else f"{self.energy_j:.6g} J"
        return (
            f"Assignment({', '.join(self.networks)} on {', '.join(self.devices)}: {self.makespan_s:.6g} s, {energy}, "
            f"{len(self.layers)} layers)"
        )


def assign(
    workloads: Workload | Iterable[Workload],
    devices: Iterable[str | Path | Mapping[str, Any] | Device],
    *,
    objective: Goal = "energy_j",
    deadline_s: float | None = None,
    recipe: str | Recipe | None = None,
    fidelity: str | None = None,
    handover: Handover | None = None,
    search: Literal["heuristic", "exact"] = "heuristic",
    nodes: int = NODES,
    node_nm: float | None = None,
) -> Assignment:
    """Place and time the layers of several networks on several sub-accelerators that share a memory.

    A sub-accelerator runs one layer at a time; a layer starts when those that it waits for have ended. What a layer takes is what
    its machine's ``simulate`` reports for it alone: it loads its inputs from the shared memory and stores its results there, so
    that a hand-over between machines is paid by these loads and stores (``handover`` adds what a network between machines takes).
    Nothing stays on chip from one layer to the next, since a layer of another network may come between. Each machine has its own
    share of the memory's bandwidth, the one in its spec. Static power of every machine is paid until the last layer ends.

    Args:
        workloads: the networks, to be run once each, from the same moment on.
        devices: as ``hwsim.get_device`` takes them.
        objective: ``energy_j``, or ``makespan_s``.
        deadline_s: for the last layer's end. Where no schedule that keeps it is found, the least late one comes, with a note.
        recipe: number formats; the default formats of the machines, where these are the same, otherwise.
        fidelity: a rung of every machine; each one's default otherwise.
        handover: what a result takes on its way to another machine; None for nothing more than the loads and stores.
        search: ``heuristic``: a local search (``assignment_search.heuristic``); ``exact``: branch and bound from there, for about
            a dozen layers.
        nodes: partial schedules that the exact search tries.
        node_nm: process of all machines, for their area; that of each one's spec otherwise.

    Raises:
        InputError: no workload or device, a layer that no machine runs, machines with different default formats, an energy to be
            minimised that is not known, an unknown objective or search, a deadline that is no positive number.
    """
    networks = [workloads] if isinstance(workloads, Workload) else list(workloads)
    for one in networks:
        if not isinstance(one, Workload):
            raise InputError(f"workloads: expected workloads, got {one!r}")
    machines = [get_device(device) for device in devices]
    if not networks or not any(workload.ops for workload in networks):
        raise InputError("workloads: expected at least one with operators, got none")
    if not machines:
        raise InputError("devices: expected at least one, got none")
    if objective not in GOALS:
        raise unknown_name("objective", str(objective), GOALS)
    if search not in ("heuristic", "exact"):
        raise unknown_name("search", str(search), ("heuristic", "exact"))
    costs = layer_costs(networks, machines, recipe=None if recipe is None else get_recipe(recipe), fidelity=fidelity)
    return scheduled(
        costs,
        networks=_numbered([workload.name for workload in networks]),
        devices=_numbered([machine.name for machine in machines]),
        area_mm2=total_area(machines, node_nm),
        objective=objective,
        deadline_s=deadline_s,
        handover=handover or Handover(),
        search=search,
        nodes=nodes,
    )


def scheduled(
    costs: LayerCosts,
    *,
    networks: Sequence[str],
    devices: Sequence[str],
    area_mm2: float | None = None,
    objective: Goal = "energy_j",
    deadline_s: float | None = None,
    handover: Handover,
    search: Literal["heuristic", "exact"] = "heuristic",
    nodes: int = NODES,
) -> Assignment:
    """Place and time layers whose costs are known; see ``assign``."""
    for name, value in (("deadline_s", deadline_s), ("nodes", nodes)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and 0 < value < np.inf):
            raise InputError(f"{name}: expected a finite number above 0, got {value!r}")
    known = bool(np.isfinite(costs.energy_j[np.isfinite(costs.time_s)]).all())
    if objective == "energy_j" and not known:
        raise InputError(
            "objective: expected 'makespan_s', as the specification of a machine knows nothing of energy; got 'energy_j'"
        )
    if search == "exact" and len(costs.layers) > DEEPEST:
        raise InputError(f"search: 'exact' takes at most {DEEPEST} layers, got {len(costs.layers)}; expected 'heuristic'")
    problem = _problem(costs, objective, deadline_s, handover, known)
    least_makespan, least_energy = lower_bounds(problem)
    best = heuristic(problem, least_energy if objective == "energy_j" else least_makespan)
    proven = False
    if search == "exact":
        best, proven = exact(problem, best, nodes=nodes)
    value, least = (best.energy_j, least_energy) if objective == "energy_j" else (best.makespan_s, least_makespan)
    in_time = deadline_s is None or best.makespan_s <= deadline_s * (1 + SLACK)
    notes = []
    if not in_time:
        never = proven or not np.isfinite(least_energy)
        what = "no schedule keeps" if never else "no schedule was found that keeps"
        notes.append(f"{what} the deadline of {deadline_s:.6g} s; this is the least late one found")
    if not known:
        notes.append("energy is not known: the specification of a machine says nothing of it")
    return Assignment(
        networks=tuple(networks),
        devices=tuple(devices),
        layers=_placed(costs, best, networks, devices),
        makespan_s=best.makespan_s,
        energy_j=best.energy_j if known else None,
        area_mm2=area_mm2,
        deadline_s=deadline_s,
        objective=objective,
        least_makespan_s=least_makespan,
        least_energy_j=least_energy if known else None,
        optimal=proven or (in_time and value <= least * (1 + BOUND_SLACK)),
        notes=tuple(notes),
    )


def _problem(costs: LayerCosts, objective: Goal, deadline_s: float | None, handover: Handover, known: bool) -> Problem:
    def way(size: int) -> tuple[float, float]:
        if not size:
            return 0.0, 0.0  # waits for it, reads nothing of it
        return handover.latency_s + size / handover.bytes_per_s, size * handover.energy_pj_per_byte * 1e-12

    runs = np.isfinite(costs.time_s)
    return Problem(
        time_s=costs.time_s,
        energy_j=np.where(runs, costs.energy_j, 0.0) if known else np.zeros_like(costs.energy_j),
        static_w=float(costs.static_power_w.sum()) if known else 0.0,
        needs=tuple(tuple((earlier, *way(size)) for earlier, size in layer.needs) for layer in costs.layers),
        goal=objective,
        deadline_s=np.inf if deadline_s is None else float(deadline_s),
    )


def _placed(costs: LayerCosts, best: Timed, networks: Sequence[str], devices: Sequence[str]) -> tuple[PlacedLayer, ...]:
    def one(number: int, layer: Layer) -> PlacedLayer:
        machine, start = best.machines[number], best.start_s[number]
        energy = float(costs.energy_j[number, machine])
        end = start + float(costs.time_s[number, machine])
        known = None if np.isnan(energy) else energy
        return PlacedLayer(networks[layer.network], layer.name, layer.ops, devices[machine], start, end, known)

    order = sorted(range(len(costs.layers)), key=lambda number: (best.start_s[number], number))
    return tuple(one(number, costs.layers[number]) for number in order)


def total_area(devices: Sequence[Device], node_nm: float | None = None) -> float | None:
    """Square millimetres of all machines together, in a process or each in its own; None where one's is not known."""
    total = 0.0
    for device in devices:
        method = getattr(device, "area", None)
        found = None if method is None else method(node_nm)
        size = None if found is None else found.total_mm2
        if size is None:
            return None
        total += float(size)
    return total


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Names, those that come again with a number behind."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
