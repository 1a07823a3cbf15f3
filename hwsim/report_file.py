"""Reading a report back from plain data: nothing missing, unknown or of another type, and totals that are those of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args

from hwsim.report import SCHEMA, SCHEMA_VERSION, OpCost, Origin, Report, Span
from numerics.errors import InputError, unknown_name

Check = Callable[[str, Any], Any]


def _refused(where: str, expected: str, got: Any) -> InputError:
    return InputError(f"report: {where}: expected {expected}, got {got!r}")


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _refused(where, "text", value)
    return value


def _truth(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refused(where, "true or false", value)
    return value


def _number(where: str, value: Any) -> float:
    # An integer beyond the floats cannot be asked whether it is finite.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf or abs(value) > 1e300:
        raise _refused(where, "a finite number", value)
    return value


def _amount(where: str, value: Any) -> float:
    if _number(where, value) < 0:
        raise _refused(where, "a number ≥ 0", value)
    return value


def _positive(where: str, value: Any) -> float:
    if not _number(where, value) > 0:
        raise _refused(where, "a number above 0", value)
    return value


def _count(where: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise _refused(where, "a whole number from 0 to 2^64", value)
    return value


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _refused(where, "a mapping of names", value)
    return value


def _listed(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _refused(where, "a list", value)
    return list(value)


def _each(check: Check) -> Check:
    """The check of a mapping's values."""
    return lambda where, value: {name: check(f"{where}.{name}", one) for name, one in _mapping(where, value).items()}


def _origin(where: str, value: Any) -> str:
    if value not in get_args(Origin):
        raise _refused(where, " or ".join(map(repr, get_args(Origin))), value)
    return str(value)


_OP: Mapping[str, Check] = {
    **dict.fromkeys(("name", "kind", "module", "phase", "format", "unit", "fused_with"), _text),
    **dict.fromkeys(("time_s", "cycles", "busy_cycles", "overhead_cycles", "start_s", "utilization", "energy_j"), _amount),
    # Differences of larger numbers, which may come out a rounding below zero.
    **dict.fromkeys(("compute_cycles", "stall_cycles"), _number),
    "macs": _count,
    "modelled": _truth,
    "energy_by_component_j": _each(_amount),
    "bytes_by_level": _each(_count),
    "bytes_offchip": _count,
}
_SPAN: Mapping[str, Check] = {"track": _text, "name": _text, "start_s": _amount, "duration_s": _amount, "details": _mapping}
_REPORT: Mapping[str, Check] = {
    **dict.fromkeys(("schema", "hwsim_version", "device", "workload", "fidelity", "recipe"), _text),
    "schema_version": _count,
    "clock_hz": _positive,
    "peak_macs_per_s": _amount,
    "offchip_bandwidth_bytes_per_s": _amount,
    "origin": _each(_origin),
    "notes": _listed,
    "totals": _mapping,
    "ops": _listed,
    "spans": _listed,
    "tables": _each(_listed),
    "spec": _mapping,
}


def _checked(where: str, data: Any, checks: Mapping[str, Check]) -> dict[str, Any]:
    """The fields of a mapping, each checked."""
    begin = f"{where}." if where else ""
    _mapping(where or "the file", data)
    for name in data:
        if name not in checks:
            raise unknown_name(f"report: {begin}field" if where else "report: field", name, checks)
    for name in checks:
        if name not in data:
            raise InputError(f"report: field {begin + name!r} is missing")
    return {name: check(begin + name, data[name]) for name, check in checks.items()}


def _op(where: str, data: Any) -> OpCost:
    entry = _checked(where, data, _OP)
    total, offchip = entry.pop("energy_j"), entry.pop("bytes_offchip")
    energy, bytes_ = entry.pop("energy_by_component_j"), entry.pop("bytes_by_level")
    for name in ("compute_cycles", "stall_cycles"):
        if entry[name] < -1e-9 * max(1.0, entry["cycles"]):
            raise _refused(f"{where}.{name}", "a number ≥ 0", entry[name])
    if entry["utilization"] > 1 + 1e-9:
        raise _refused(f"{where}.utilization", "at most 1", entry["utilization"])
    try:
        op = OpCost(**entry, energy_j=energy, bytes=bytes_)
    except ValueError as error:
        raise InputError(f"report: {where}: {error}") from None
    _same(f"{where}.energy_j", total, op.energy_total_j)
    _same(f"{where}.bytes_offchip", offchip, op.bytes_offchip)
    return op


def _same(where: str, given: Any, found: Any) -> None:
    """See that a figure of the file is the one that its parts give."""
    if isinstance(found, Mapping):
        for name in {*_mapping(where, given), *found}:
            if name not in given or name not in found:
                raise _refused(where, f"the fields {', '.join(sorted(found))}", given)
            _same(f"{where}.{name}", given[name], found[name])
    elif found is None or given is None:
        if given is not found:
            raise _refused(where, f"{found!r}, as its parts say", given)
    elif not math.isclose(_number(where, given), found, rel_tol=1e-9, abs_tol=1e-300):
        raise _refused(where, f"{found!r}, as its parts say", given)


def _plain(where: str, values: Iterable[Any]) -> None:
    """See that the cells of a table are text, numbers, truths or nothing."""
    for value in values:
        if isinstance(value, int | float) and not isinstance(value, bool):
            _number(where, value)


def report_of(data: Any) -> Report:
    """See ``Report.from_dict``."""
    _mapping("the file", data)
    if data.get("schema") != SCHEMA or data.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"report: expected schema {SCHEMA!r} version {SCHEMA_VERSION}, "
            f"got {data.get('schema')!r} version {data.get('schema_version')!r}"
        )
    entry = _checked("", data, _REPORT)
    for where, rows in entry["tables"].items():
        for place, row in enumerate(rows):
            _plain(f"tables.{where}[{place}]", _mapping(f"tables.{where}[{place}]", row).values())
    roles = entry["totals"].get("peak_memory_by_role_bytes")
    report = Report(
        ops=tuple(_op(f"ops[{place}]", one) for place, one in enumerate(entry["ops"])),
        spans=tuple(Span(**_checked(f"spans[{place}]", one, _SPAN)) for place, one in enumerate(entry["spans"])),
        notes=tuple(_text(f"notes[{place}]", one) for place, one in enumerate(entry["notes"])),
        peak_memory_bytes=_each(_count)("totals.peak_memory_by_role_bytes", roles),
        version=entry["hwsim_version"],
        **{f.name: entry[f.name] for f in fields(Report) if f.name in entry and f.name not in ("ops", "spans", "notes")},
    )
    for place, op in enumerate(report.ops):
        if not math.isclose(op.time_s * report.clock_hz, op.cycles, rel_tol=1e-6, abs_tol=1e-6):
            raise _refused(f"ops[{place}].cycles", f"{op.time_s * report.clock_hz!r}, its time in cycles of the clock", op.cycles)
    _same("totals", entry["totals"], report.totals())
    return report
