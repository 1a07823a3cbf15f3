"""Figures of a report that measurements are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hwsim.operators import FLOPS_PER_MAC
from hwsim.report import OpCost, Report
from numerics.errors import InputError, unknown_name


def _time(report: Report, ops: Sequence[OpCost]) -> float:
    return sum(op.time_s for op in ops)


def _processing_time(report: Report, ops: Sequence[OpCost]) -> float:
    return sum(op.compute_cycles + op.overhead_cycles for op in ops) / report.clock_hz


def _power(report: Report, ops: Sequence[OpCost]) -> float:
    return sum(op.energy_total_j for op in ops) / _time(report, ops)


def _chip_power(report: Report, ops: Sequence[OpCost]) -> float:
    return sum(op.energy_total_j - op.energy_j.get("off_chip", 0.0) for op in ops) / _time(report, ops)


def _per_second(report: Report, ops: Sequence[OpCost]) -> float:
    return 1 / _time(report, ops)


def _ops_per_second(report: Report, ops: Sequence[OpCost]) -> float:
    return FLOPS_PER_MAC * sum(op.macs for op in ops) / _time(report, ops)


FIGURES: Mapping[str, Callable[[Report, Sequence[OpCost]], float]] = {
    "time_s": _time,
    "processing_time_s": _processing_time,
    "power_w": _power,
    "chip_power_w": _chip_power,
    "runs_per_s": _per_second,
    "ops_per_s": _ops_per_second,
}
"""Name → function of a report and of those of its operators that the measurement is about. ``processing_time_s`` leaves out
the time lost to memory, ``chip_power_w`` the off-chip memory; ``runs_per_s`` is how often the whole runs a second, whatever
its batch; ``ops_per_s`` counts a MAC as two."""

PER_ELEMENT = "elements_per_s"
"""The figure that needs the workload as well: elements of its results a second."""


def figure(name: str, report: Report, ops: Sequence[OpCost], elements: int) -> float:
    """A figure of ``ops`` by name: of ``FIGURES``, ``elements_per_s``, ``bytes:LEVEL`` or ``table:TABLE:PART:COLUMN``, the value
    in the row of an extra table whose ``part`` is PART.

    Raises:
        InputError: no such figure in this report.
    """
    if name == PER_ELEMENT:
        return elements / _time(report, ops)
    if name.startswith("bytes:"):
        level = name.removeprefix("bytes:")
        if not any(level in op.bytes for op in ops):
            raise unknown_name("figure: memory level", level, sorted({key for op in ops for key in op.bytes}))
        return float(sum(op.bytes.get(level, 0) for op in ops))
    if name.startswith("table:"):
        try:
            _, table, part, column = name.split(":")
        except ValueError:
            raise InputError(f"figure: expected table:TABLE:PART:COLUMN, got {name!r}") from None
        for row in report.tables.get(table, ()):
            if row.get("part") == part and column in row:
                return float(row[column])
        raise InputError(f"figure: the report of {report.device!r} has no {column!r} of {part!r} in a table {table!r}")
    if name not in FIGURES:
        raise unknown_name("figure", name, (*FIGURES, PER_ELEMENT))
    return FIGURES[name](report, ops)
