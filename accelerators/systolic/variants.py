"""Configurations of one systolic array as columns of numbers, each value held against the spec's own rules once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from accelerators.systolic import _cost_fields as fields
from accelerators.systolic.spec import SystolicSpec
from hwsim.views.display import displayed
from numerics.errors import InputError

IDLE = frozenset({"summary", "energy_source", "process_nm", "memory.off_chip.capacity_bytes"})
"""Fields that neither time nor energy depends on."""

LARGEST_COUNT = 2**31
"""Whole numbers beyond this are left to the one-by-one way."""

Numbers = tuple[tuple[int, float], ...]
"""Columns and what stands in them."""


@displayed
@dataclass(frozen=True)
class Split:
    """A configuration's changes, in two.

    Attributes:
        structure: those that change which operators run, in which formats, or which parts the machine has.
        numbers: columns that the others set.
        refused: those of the others that the spec's rules refuse.
    """

    structure: tuple[tuple[str, Any], ...]
    numbers: Numbers
    refused: tuple[tuple[str, Any], ...]


def columns(spec: SystolicSpec) -> dict[str, int]:
    """Dotted field → its column, of the fields that this spec has."""
    names = [*fields.NAMES]
    for key in spec.mac_formats:
        names += [f"mac_formats.{key}.cycles_per_mac", f"mac_formats.{key}.energy_pj"]
    for key in spec.conversions:
        names += [f"conversions.{key}.cycles_per_element", f"conversions.{key}.energy_pj_per_element"]
    absent = [part for part in ("kernel", "host_link") if getattr(spec, part) is None]
    return {name: i for i, name in enumerate(names) if name and name.partition(".")[0] not in absent}


def base_row(spec: SystolicSpec) -> npt.NDArray[np.float64]:
    """The columns of a spec as it is."""
    found = columns(spec)
    row = np.zeros(fields.FORMATS + 2 * len(spec.mac_formats) + 2 * len(spec.conversions))
    for name, column in found.items():
        row[column] = _number(_value(spec, name.split(".")))
    row[fields.OFF_ACHIEVED] = spec.memory.off_chip.achieved_bytes_per_s
    return row


def _value(place: Any, path: Sequence[str]) -> Any:
    for part in path:
        place = place[part] if isinstance(place, Mapping) else getattr(place, part)
    return place


def _number(value: Any) -> float:
    return float(fields.NUMBERS[value] if isinstance(value, str) else value)


@displayed
class Variants:
    """Reads changes of one spec; a value seen before is not checked again.

    Args:
        spec: what is changed.
    """

    def __init__(self, spec: SystolicSpec) -> None:
        self.spec = spec
        self.columns = columns(spec)
        self._dram = spec.memory.off_chip.dram is not None
        self._read: dict[Hashable, Numbers | None] = {}
        self._sections: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {}

    def split(self, changes: Mapping[str, Any]) -> Split | None:
        """The changes in two; None for what only the one-by-one way takes: sections changed together with their fields, values
        that cannot be compared, numbers without measure."""
        structure: list[tuple[str, Any]] = []
        numbers: list[tuple[int, float]] = []
        refused: list[tuple[str, Any]] = []
        whole = False
        for name, value in changes.items():
            key = (name, value.__class__, value)
            try:
                read = self._read.get(key, 0)
            except TypeError:
                return None
            if read == 0:
                if not self._is_number(name):
                    structure.append((name, value))
                    whole = True
                    continue
                read = self._read[key] = self._check(name, value)
            if read is None:
                refused.append((name, value))
                continue
            assert not isinstance(read, int)
            whole = whole or name == "array.timing"
            numbers += read
        if whole and any(a != b and b.startswith(f"{a}.") for a in changes for b in changes):
            return None
        if any(not value < LARGEST_COUNT for column, value in numbers if column in _COUNTS):
            return None
        return Split(tuple(structure), tuple(numbers), tuple(refused))

    def _is_number(self, name: str) -> bool:
        if self._dram and name.startswith("memory.off_chip.") and not name.endswith(".energy_pj_per_byte"):
            return False
        return name in self.columns or name in IDLE or name == "array.timing"

    def _check(self, name: str, value: Any) -> Numbers | None:
        """The columns that a field's value sets; None where the field's section refuses it."""
        *parents, leaf = name.split(".")
        if name not in self._sections:
            self._sections[name] = self._section(parents)
        model, data = self._sections[name]
        inside = dict(data)
        place, path = inside, parents[len(parents) - self._depth(parents) :]
        for part in path:
            place[part] = dict(place[part])
            place = place[part]
        place[leaf] = value
        try:
            found = model.model_validate(inside)
        except (ValidationError, InputError):
            return None
        if name in IDLE:
            return ()
        if name == "array.timing":
            timing: Any = _value(found, [leaf])
            return tuple((self.columns[f"{name}.{end}"], _number(getattr(timing, end))) for end in type(timing).model_fields)
        return ((self.columns[name], _number(_value(found, [*path, leaf]))),)

    def _depth(self, parents: Sequence[str]) -> int:
        """How many of the last of ``parents`` are keys of a mapping, not sections."""
        place: Any = self.spec
        inside = 0
        for part in parents:
            place = place[part] if isinstance(place, Mapping) else getattr(place, part)
            inside = 0 if isinstance(place, BaseModel) else inside + 1
        return inside

    def _section(self, parents: Sequence[str]) -> tuple[type[BaseModel], dict[str, Any]]:
        section = _value(self.spec, parents[: len(parents) - self._depth(parents)])
        data = {name: getattr(section, name) for name in type(section).model_fields}
        if "calibrated" in data:
            data["calibrated"] = {}  # its values are in their places, and would replace what is changed
        return type(section), data


_COUNTS = frozenset(
    {fields.ROWS, fields.COLUMNS, fields.LATENCY, fields.ARRAYS, fields.IN_BANKS, fields.WEIGHT_BANKS, fields.OUT_BANKS}
)
