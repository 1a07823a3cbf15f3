"""Ratios of area and switching energy between units of ``rtl``, as ``data/rtl_ratios.csv`` has them.

A spec that scales a figure by one of them names the file, the rows and the figure it scales. The head of the file says what the
ratios are not: absolute areas or energies of any node.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name


@displayed
@dataclass(frozen=True)
class RtlRatio:
    """A row of the file.

    Attributes:
        quantity: ``area``, ``energy`` and ``signal_energy`` (without the clock at the flip-flops) in a library's cells;
            ``transistors`` and ``toggles`` (of nets) in generic gates.
        unit, configuration: as ``rtl/configurations.yaml`` names them.
        per: what one operation of the unit is; ``unit`` for areas and transistors.
        data: ``random``, ``sparse``, ``small`` or ``binary`` operands; empty for areas and transistors.
        library: of the cells.
        value: relative to ``mac_int8 wrapping``, with random operands.
    """

    quantity: str
    unit: str
    configuration: str
    per: str
    data: str
    library: str
    value: float


@cache
def ratios() -> tuple[RtlRatio, ...]:
    """Every row, in the order of the file."""
    text = resources.files("hwsim").joinpath("data/rtl_ratios.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(RtlRatio(**{**row, "value": float(row["value"])}) for row in rows)  # type: ignore[arg-type]


def ratio(
    quantity: str,
    unit: str,
    configuration: str,
    *,
    data: str | None = None,
    over: tuple[str, str] = ("mac_int8", "wrapping"),
    over_data: str | None = None,
) -> float:
    """How much more of a quantity one unit takes than another, both per operation of their own.

    Args:
        quantity: as ``RtlRatio`` has it.
        unit, configuration: the one.
        data: kind of its operands; ``random`` by default, where the quantity is one of data.
        over: unit and configuration of the other.
        over_data: kind of the other's operands; the same by default.

    Raises:
        InputError: the file has no such row.
    """
    return _value(quantity, unit, configuration, data) / _value(quantity, *over, data if over_data is None else over_data)


def _value(quantity: str, unit: str, configuration: str, data: str | None) -> float:
    rows = [row for row in ratios() if row.quantity == quantity]
    if not rows:
        raise unknown_name("quantity", quantity, {row.quantity for row in ratios()})
    if unit not in (units := {row.unit for row in rows}):
        raise unknown_name("unit", unit, units)
    rows = [row for row in rows if row.unit == unit]
    if configuration not in (names := {row.configuration for row in rows}):
        raise unknown_name("configuration", configuration, names)
    rows = [row for row in rows if row.configuration == configuration]
    kinds = [row.data for row in rows]
    if kinds == [""]:
        if data is not None:
            raise InputError(f"data: {quantity} depends on no data, got {data!r}")
        return rows[0].value
    wanted = "random" if data is None else data
    if wanted not in kinds:
        raise unknown_name("data", wanted, kinds)
    return rows[kinds.index(wanted)].value
