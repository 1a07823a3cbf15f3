"""A workload on many configurations of a systolic array at once.

Configurations that differ in numbers alone share what is made of the workload: schedule, what each operator moves, mapping
problems. What each costs then follows from a row of numbers, at ``analytic`` from the closed forms, at ``tile`` from the same
search and pipeline that ``simulate`` runs. Only what neither covers is simulated one by one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from accelerators.systolic import _cost_fields as fields
from accelerators.systolic import _cost_kernels as kernels
from accelerators.systolic import _group_kernels as group_kernels
from accelerators.systolic.mapping import Shape
from accelerators.systolic.outline import Floats, Outline, outline
from accelerators.systolic.pipeline import dimensions
from accelerators.systolic.spec import SystolicSpec
from accelerators.systolic.variants import Numbers, base_row
from hwsim.costs import Costs, simulated
from hwsim.registry import get_device
from hwsim.schedule import schedule
from hwsim.workload import Workload
from numerics.errors import InputError

if TYPE_CHECKING:
    from accelerators.systolic.device import SystolicArray

Configurations = list[tuple[int, Numbers]]


def costs_of_changes(device: SystolicArray, workload: Workload, changes: Sequence[Mapping[str, Any]], fidelity: str) -> Costs:
    """What ``simulate`` reports for each configuration; fields have their dotted names."""
    return _Batch(device, workload, changes, fidelity).costs()


class _Batch:
    def __init__(self, device: SystolicArray, workload: Workload, changes: Sequence[Mapping[str, Any]], fidelity: str) -> None:
        self.device, self.workload, self.changes, self.fidelity = device, workload, changes, fidelity
        self.time_s, self.energy_j = np.full(len(changes), np.nan), np.full(len(changes), np.nan)
        self.errors = [""] * len(changes)
        self.refusals: dict[Hashable, str] = {}
        self.alone: list[int] = []

    def costs(self) -> Costs:
        """The costs, in the order of the configurations."""
        alike: dict[Hashable, tuple[dict[str, Any], Configurations]] = {}
        for i, change in enumerate(self.changes):
            split = self.device.variants.split(change) if self.fidelity in ("analytic", "tile") else None
            if split is None:
                self.alone.append(i)
            elif split.refused:
                self.errors[i] = self._refusal(split.refused + split.structure)
            else:
                key = tuple((name, value.__class__, value) for name, value in split.structure)
                alike.setdefault(key, (dict(split.structure), []))[1].append((i, split.numbers))
        for structure, configurations in alike.values():
            self._structure(structure, configurations)
        if self.alone:
            found = simulated(self.device, self.workload, [self.changes[i] for i in self.alone], self.fidelity)
            for place, i in enumerate(self.alone):
                self.time_s[i], self.energy_j[i], self.errors[i] = found.time_s[place], found.energy_j[place], found.errors[place]
        return Costs(self.time_s, self.energy_j, tuple(self.errors))

    def _refusal(self, changes: tuple[tuple[str, Any], ...]) -> str:
        """Why the spec's rules refuse these changes; "" where they do not."""
        key = tuple((name, value.__class__, value) for name, value in changes)
        if key not in self.refusals:
            try:
                get_device(self.device, overrides=dict(changes))
                self.refusals[key] = ""
            except InputError as error:
                self.refusals[key] = str(error)
        return self.refusals[key]

    def _structure(self, structure: dict[str, Any], configurations: Configurations) -> None:
        """Configurations that differ in numbers alone."""
        try:
            device = cast("SystolicArray", get_device(self.device, overrides=structure)) if structure else self.device
            spec, plan = device.spec, outline(device, self.workload)
        except InputError as error:
            for i, _ in configurations:
                self.errors[i] = str(error)
            return
        table = np.repeat(base_row(spec)[None], len(configurations), axis=0)
        for row, (_, numbers) in zip(table, configurations, strict=True):
            for column, value in numbers:
                row[column] = value
        if spec.memory.off_chip.dram is None:
            table[:, fields.OFF_ACHIEVED] = table[:, fields.OFF_BANDWIDTH] * table[:, fields.OFF_FRACTION]
        places = np.array([i for i, _ in configurations])
        if spec.kernel is not None:
            shared = table[:, fields.ARRAYS] % table[:, fields.CORES] == 0
            for i in places[~shared]:
                self.errors[i] = self._refusal(tuple(self.changes[i].items()))
            places, table = places[shared], table[shared]
        if self.fidelity == "analytic":
            seconds, joules = kernels.analytic(
                table, plan.operators, plan.groups, plan.on_array, plan.work, plan.converted, plan.order, len(spec.mac_formats)
            )
        elif spec.memory.off_chip.dram is None:
            seconds, joules, stuck = _tiles(spec, table, plan)
            for place, group in stuck:
                self.errors[places[place]] = self._too_small(self.changes[places[place]], group)
        else:  # what a banked memory reaches depends on the mapping
            self.alone += places.tolist()
            return
        self.time_s[places], self.energy_j[places] = seconds, joules

    def _too_small(self, change: Mapping[str, Any], number: int) -> str:
        """Which buffer holds no tile of a group, as ``simulate`` says it."""
        device = cast("SystolicArray", get_device(self.device, overrides=change))
        placed = device.placed(self.workload).expanded()
        plan = schedule(placed, device.spec.memory.input.retained_capacity_bytes)
        at = plan.likeness.index(number)
        try:
            device._costs([device._job(placed, plan.groups[at], plan.traffic[at], plan.residency)], self.fidelity)
        except InputError as error:
            return str(error)
        raise AssertionError(f"group {number} has a mapping after all")


def _tiles(spec: SystolicSpec, table: Floats, plan: Outline) -> tuple[Floats, Floats, list[tuple[int, int]]]:
    """(seconds, joules) of each configuration at ``tile``, NaN where a buffer holds no tile; those, and of which group."""
    seconds, joules = np.full(len(table), np.nan), np.full(len(table), np.nan)
    macs = len(spec.mac_formats)
    shared = (plan.operators, plan.work, plan.converted, macs)
    at_once = group_kernels.shares(table, plan.operators, plan.groups)
    known: dict[bytes, tuple[Floats, int]] = {}
    stuck = []
    timing = table.copy()
    timing[:, fields.untimed(macs, len(spec.conversions))] = 0.0
    energies = np.zeros((len(plan.operators), fields.COMPONENTS))
    for i, row in enumerate(table):
        key = timing[i].tobytes()
        if key not in known:
            costs = np.zeros((len(plan.operators), fields.COST_FIELDS))
            known[key] = costs, _groups(spec, row, plan, shared, at_once[i], costs)
        costs, failed = known[key]
        if failed >= 0:
            stuck.append((i, failed))
            continue
        seconds[i], joules[i] = kernels.total(
            row, plan.operators, plan.on_array, plan.work, plan.converted, macs, costs, plan.order, energies
        )
    return seconds, joules, stuck


def _groups(spec: SystolicSpec, row: Floats, plan: Outline, shared: tuple[Any, ...], at_once: Any, costs: Floats) -> int:
    """Fill ``costs`` with those of each group; the first of which a buffer holds no tile, or −1."""
    operators, work, converted, macs = shared
    windows = spec.kernel is not None
    rows, columns, dataflow = int(row[fields.ROWS]), int(row[fields.COLUMNS]), _DATAFLOWS[int(row[fields.DATAFLOW])]
    for g, shape in enumerate(plan.shapes):
        cuts = _no_cuts() if shape is None or windows else dimensions(shape, rows, columns, dataflow, int(at_once[g]))
        if not group_kernels.group_cost(row, windows, plan.groups[g], operators, work, converted, macs, cuts, costs):
            return g
    return -1


_DATAFLOWS = ("weight_stationary", "output_stationary", "input_stationary")


@cache
def _no_cuts() -> tuple[Any, ...]:
    """Stands for the cuts where nothing is cut."""
    return dimensions(Shape(1, 1, 1, 1), 1, 1, "weight_stationary", 1)
