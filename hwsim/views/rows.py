"""What the views draw as one row: an operator, a block of them, or a whole report among others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hwsim.report import OpCost, Report
from hwsim.views.units import counted
from numerics.errors import InputError

PARTS = ("compute", "stall", "overhead")
"""What the time of an operator is made of."""

ORIGINS = {
    "calibrated": "calibrated figures were fitted to a named measurement",
    "predicted": "predicted figures follow from the specification and the model alone",
    "lower bound": "lower bounds leave out what the specification does not know; the notes name it",
}


def parts_s(op: OpCost) -> tuple[float, float, float]:
    """Seconds of compute, stall and overhead; they add up to ``op.time_s``."""
    cycles = (op.compute_cycles, op.stall_cycles, op.overhead_cycles)
    whole = sum(cycles)
    if whole <= 0:
        return op.time_s, 0.0, 0.0
    return (op.time_s * cycles[0] / whole, op.time_s * cycles[1] / whole, op.time_s * cycles[2] / whole)


def total_parts_s(ops: Iterable[OpCost]) -> tuple[float, float, float]:
    """Seconds of compute, stall and overhead of several operators."""
    compute = stall = overhead = 0.0
    for op in ops:
        c, s, o = parts_s(op)
        compute, stall, overhead = compute + c, stall + s, overhead + o
    return compute, stall, overhead


@dataclass(frozen=True)
class Row:
    """One bar of a picture: an operator or several of them."""

    label: str
    ops: tuple[OpCost, ...]

    @cached_property
    def parts_s(self) -> tuple[float, float, float]:
        """Seconds of compute, stall and overhead."""
        return total_parts_s(self.ops)

    @cached_property
    def time_s(self) -> float:
        """Seconds of the total time."""
        return sum(op.time_s for op in self.ops)

    @cached_property
    def energy_j(self) -> dict[str, float]:
        """Component → joules."""
        total: dict[str, float] = {}
        for op in self.ops:
            for component, joules in op.energy_j.items():
                total[component] = total.get(component, 0.0) + joules
        return total


def slowest(report: Report, most: int | None) -> tuple[list[OpCost], list[OpCost]]:
    """The ``most`` slowest operators in execution order, and the others.

    Raises:
        InputError: ``most`` is less than 1.
    """
    if most is not None and most < 1:
        raise InputError(f"most: must be an integer ≥ 1, got {most}")
    if most is None or len(report.ops) <= most:
        return list(report.ops), []
    order = sorted(range(len(report.ops)), key=lambda i: -report.ops[i].time_s)
    kept = set(order[:most])
    shown = [op for i, op in enumerate(report.ops) if i in kept]
    return shown, [op for i, op in enumerate(report.ops) if i not in kept]


def picture_rows(report: Report, *, most: int = 60, most_groups: int = 40) -> tuple[list[Row], str]:
    """The bars of a picture in execution order, and how they were aggregated ("" where each is one operator).

    Up to ``most`` operators have a bar each. More are grouped by the longest prefixes of their modules' paths
    that give at most ``most_groups`` bars; where modules allow no such grouping, the slowest operators keep a
    bar and the others share one.
    """
    if len(report.ops) <= most:
        return [Row(op.name, (op,)) for op in report.ops], ""
    phases = len({op.phase for op in report.ops}) > 1
    depths = max(len(op.module.split(".")) for op in report.ops)
    for depth in range(depths, 0, -1):
        groups: dict[tuple[str, str], list[OpCost]] = {}
        for op in report.ops:
            prefix = ".".join(op.module.split(".")[:depth])
            groups.setdefault((prefix, op.phase if phases else ""), []).append(op)
        if 2 <= len(groups) <= most_groups:
            rows = [
                Row((prefix or "(no module)") + (f" · {phase}" if phase else ""), tuple(ops))
                for (prefix, phase), ops in groups.items()
            ]
            return rows, f"{len(report.ops)} operators grouped into {len(rows)} modules"
    shown, others = slowest(report, most_groups - 1)
    rows = [Row(op.name, (op,)) for op in shown]
    return [
        *rows,
        Row(counted(len(others), "other"), tuple(others)),
    ], f"the {len(shown)} slowest of {len(report.ops)} operators"


def origin_text(report: Report) -> str:
    """How the figures came about: ``time calibrated, energy predicted``."""
    return ", ".join(f"{what} {origin}" for what, origin in report.origin.items())


def source_text(report: Report) -> str:
    """One line on where a picture's figures come from."""
    fields = [report.device, report.workload, report.recipe, report.fidelity, origin_text(report)]
    return f"hwsim {report.version} · " + " · ".join(f for f in fields if f)


def comparison_labels(reports: Sequence[Report]) -> list[str]:
    """One label a report: its device, and whatever else tells the reports apart."""
    columns = [[r.device for r in reports]]
    for values in ([r.workload for r in reports], [r.recipe for r in reports], [r.fidelity for r in reports]):
        if len(set(values)) > 1:
            columns.append(values)
    labels = [" · ".join(v for v in values if v) for values in zip(*columns, strict=True)]
    return [f"{x} ({labels[: i + 1].count(x)})" if labels.count(x) > 1 else x for i, x in enumerate(labels)]


def comparison_rows(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """One flat mapping a report; ``relative_time`` is latency over the fastest one's (``None`` if that is 0).

    Time and energy of which nothing is known are ``None``.

    Raises:
        InputError: no reports.
    """
    if not reports:
        raise InputError("reports: expected at least one to compare, got none")
    known = [report.known_time_s for report in reports]
    fastest = min((time for time in known if time is not None), default=0.0)
    rows = []
    for report, time_s in zip(reports, known, strict=True):
        compute, stall, overhead = total_parts_s(report.ops)
        rows.append(
            {
                "device": report.device,
                "workload": report.workload,
                "recipe": report.recipe,
                "fidelity": report.fidelity,
                "time_s": time_s,
                "relative_time": time_s / fastest if time_s is not None and fastest > 0 else None,
                "compute_s": compute,
                "stall_s": stall,
                "overhead_s": overhead,
                "energy_j": report.known_energy_j,
                "average_power_w": report.average_power_w,
                "macs": report.macs,
                "bytes_offchip": report.bytes_offchip,
                "utilization": report.utilization,
                "time_origin": report.origin.get("time", ""),
                "energy_origin": report.origin.get("energy", ""),
                "operators": len(report.ops),
                "unmodelled": len(report.unmodelled),
                "hwsim_version": report.version,
            }
        )
    return rows
