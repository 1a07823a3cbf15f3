"""The columns of an exploration as pictures and pages need them: units, labels, and bytes that a page can hold."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MARKS = ("trial", "stage", "error", "feasible", "front")
"""Columns that say what a row is."""

MOST_REPEATED = 64
"""Different numbers up to which a column is kept as codes into a list of its values."""

SPREAD_FOR_LOG = 10.0
"""Largest over smallest value from which on a column is shown, and explained, by its logarithm."""

_UNITS = {
    "_bytes_per_s": "B/s",
    "_per_s": "/s",
    "_bytes": "B",
    "_mm2": "mm²",
    "_m2": "m²",
    "_hz": "Hz",
    "_js": "J·s",
    "_j": "J",
    "_s": "s",
    "_w": "W",
}
_FRACTIONS = ("accuracy", "utilization")


def unit_of(name: str) -> str:
    """The unit that a name ends in; ``%`` for a fraction that is read in percent, empty where there is none."""
    last = name.rpartition(".")[2]
    if last in _FRACTIONS:
        return "%"
    return next((unit for end, unit in _UNITS.items() if last.endswith(end)), "")


def is_number(value: Any) -> bool:
    """Whether a value is a number rather than a truth value, a text or unknown."""
    import numpy as np

    return type(value) in (float, int) or (isinstance(value, int | float | np.number) and not isinstance(value, bool))


@dataclass(frozen=True)
class Field:
    """A column with what is known of it.

    Attributes:
        name: as in the data.
        role: ``parameter``, ``metric`` or ``mark``.
        label: how it is written where there is little room.
        unit: see ``unit_of``.
        values: one a row; None is unknown.
        ordered: whether there is a distance between its values.
        choices: the values it may take, in their order, where the space lists them.
    """

    name: str
    role: str
    label: str
    unit: str
    values: Sequence[Any]
    ordered: bool
    choices: tuple[Any, ...] = ()

    @cached_property
    def numbers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The values as floats (rows,), NaN where unknown; codes of the values where they have no order."""
        import numpy as np

        if self.ordered:
            return np.array([math.nan if value is None else value for value in self.values], dtype=np.float64)
        order = {_key(value): float(code) for code, value in enumerate(self.distinct)}
        order[_key(None)] = math.nan
        return np.array([order[_key(value)] for value in self.values], dtype=np.float64)

    @cached_property
    def distinct(self) -> list[Any]:
        """The different values, unknown left out: numbers by size, others in the order of the space, or of their appearance."""
        if self.ordered:
            return sorted({value for value in self.values if value is not None})
        found = {_key(value): value for value in self.values if value is not None}
        listed = {_key(value): value for value in self.choices if _key(value) in found}
        return list({**listed, **found}.values())

    @cached_property
    def log(self) -> bool:
        """Whether its logarithm tells the values apart better: all are above 0, and they spread over a decade, or are few and
        more evenly apart."""
        import numpy as np

        values = [value for value in self.distinct if math.isfinite(value)] if self.ordered else []
        if len(values) < 2 or values[0] <= 0:
            return False
        if values[-1] / values[0] >= SPREAD_FOR_LOG:
            return True
        gaps, logs = np.diff(values), np.diff(np.log(values))
        return 3 <= len(values) <= 16 and bool(logs.max() / logs.sum() < 0.9 * gaps.max() / gaps.sum())


def _key(value: Any) -> tuple[bool, Any]:
    """Tells True from 1."""
    return isinstance(value, bool), value


def _plain(values: Iterable[Any]) -> list[Any]:
    """Plain Python values, NaN as None."""
    import numpy as np

    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    return [None if isinstance(value, float) and math.isnan(value) else value for value in plain]


def _parameter_label(name: str, names: Sequence[str]) -> str:
    """The end of a dotted name, as long as it tells the parameter from the others."""
    parts = name.split(".")
    for start in range(len(parts) - 1, -1, -1):
        end = ".".join(parts[start:])
        if sum(other == end or other.endswith(f".{end}") for other in names) == 1:
            return end
    return name


def _metric_label(name: str) -> str:
    """A metric without the unit that its values are shown with."""
    end = next((end for end in _UNITS if name.endswith(end) and not end.startswith("_bytes")), "")
    return name.removesuffix(end).replace("_", " ") or name


def fields_of(data: Mapping[str, Any]) -> list[Field]:
    """The columns of an exploration (``Exploration.to_dict``): marks, parameters, metrics.

    Raises:
        InputError: no columns, lists of different lengths, a mark or parameter that is missing.
    """
    columns = data.get("columns")
    if not isinstance(columns, Mapping) or not columns:
        raise InputError("exploration: columns: expected a mapping from names to lists with at least one, got none")
    space = data.get("space")
    if not isinstance(space, Mapping):
        raise InputError(
            f"exploration: space: expected a mapping from parameters to what they may be, got {type(space).__name__}"
        )
    for name in (*MARKS, *space):
        if name not in columns:
            raise InputError(f"exploration: columns: {name} is missing")
    lengths = {name: len(values) for name, values in columns.items()}
    for name, length in lengths.items():
        if length != lengths["trial"]:
            raise InputError(f"exploration: columns: {name}: expected {lengths['trial']} values as in trial, got {length}")
    fields = [Field(name, "mark", name, "", _plain(columns[name]), name == "trial") for name in MARKS]
    names = list(space)
    for name, parameter in space.items():
        values = _plain(columns[name])
        choices = tuple(parameter.get("values", ()))
        ordered = all(value is None or is_number(value) for value in (*values, *choices))
        fields.append(
            Field(name, "parameter", _parameter_label(name, names), unit_of(name) if ordered else "", values, ordered, choices)
        )
    for name, values in columns.items():
        if name in MARKS or name in space:
            continue
        plain = _plain(values)
        ordered = all(value is None or is_number(value) for value in plain)
        fields.append(Field(name, "metric", _metric_label(name), unit_of(name), plain, ordered))
    return fields


def packed(field: Field) -> dict[str, Any]:
    """A column as little-endian bytes in base 64, in the smallest form that loses nothing.

    ``type`` is ``u1``, ``u2``, ``u4``, ``f4`` or ``f8``; with ``values`` the bytes are codes into that list. Unknown is NaN, or
    None in the list.
    """
    import numpy as np

    values, distinct = field.values, field.distinct
    few = (
        field.name != "trial" and len(distinct) <= MOST_REPEATED and all(map(math.isfinite, distinct)) if field.ordered else True
    )
    if few:
        listed = [*distinct, None] if None in values else distinct
        codes = {_key(value): code for code, value in enumerate(listed)}
        width = "u1" if len(listed) <= 2**8 else "u2" if len(listed) <= 2**16 else "u4"
        return {"type": width, "values": listed, "data": _base64([codes[_key(value)] for value in values], width)}
    numbers = field.numbers
    if (numbers == np.floor(numbers)).all() and (numbers >= 0).all() and (numbers < 2**32).all():
        return {"type": "u4", "data": _base64(numbers, "u4")}
    with np.errstate(over="ignore"):
        exact = np.array_equal(numbers.astype(np.float32).astype(np.float64), numbers, equal_nan=True)
    return {"type": "f4" if exact else "f8", "data": _base64(numbers, "f4" if exact else "f8")}


def _base64(values: Any, width: str) -> str:
    import numpy as np

    return base64.b64encode(np.asarray(values).astype(f"<{width}").tobytes()).decode("ascii")
