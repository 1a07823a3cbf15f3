"""A user's own measurements: the CSV file that ``hwsim measure`` writes and ``hwsim validate --csv`` reads.

One row a kernel: ``operator``, the sizes it needs (``OPERATOR_SIZES``; others empty), ``formats``, and its time in ``time_s``,
``time_ms`` or ``time_us``. Lines that begin with ``#`` say where and how it was measured. Other columns are kept and not used.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsim.scoreboard.points import Point
from hwsim.scoreboard.single import OPERATOR_SIZES, single_operator
from hwsim.scoreboard.target import number, read_rows
from hwsim.workload import Workload
from numerics.errors import InputError, unknown_name
from numerics.recipes import Recipe, recipe_names

TIME_COLUMNS: Mapping[str, float] = {"time_s": 1.0, "time_ms": 1e-3, "time_us": 1e-6}
"""Column of times → its unit in seconds."""


def format_recipe(name: str) -> Recipe | str | None:
    """The number formats that the column ``formats`` names: a recipe, ``fp16`` for operands in one format, ``fp16*int8`` for
    activations and weights, nothing for the device's default.

    Raises:
        InputError: an unknown format, or one side of the ``*`` empty.
    """
    if not name:
        return None
    if name in recipe_names():
        return name
    activation, star, weight = name.partition("*")
    if not activation or (star and not weight):
        raise InputError(f"column 'formats': expected formats on both sides of '*' (activations*weights), got {name!r}")
    accumulator = "int32" if activation.startswith(("int", "uint")) else "fp32"
    return Recipe(name, {"activation": activation, "weight": weight or activation, "accumulator": accumulator})


def read_measurements(path: str | Path) -> list[Point]:
    """The points of a CSV file of measurements.

    Raises:
        InputError: a column that is missing, a value that is no number or out of range; the row is named.
    """
    rows = read_rows(path)
    header = rows[0]
    times = [name for name in TIME_COLUMNS if name in header]
    if "operator" not in header:
        raise InputError(f"{path}: column 'operator' is missing (columns: {', '.join(header)})")
    if len(times) != 1:
        raise InputError(f"{path}: expected one of the columns {', '.join(TIME_COLUMNS)}, got {', '.join(times) or 'none'}")
    found = []
    for index, row in enumerate(rows, 1):
        try:
            found.append(measured_point(row, times[0]))
        except InputError as error:
            raise InputError(f"{path}: data row {index}: {error}") from None
    return found


def row_workload(row: Mapping[str, str]) -> tuple[str, Workload]:
    """Label and workload of a row of measurements, in the formats that it names or without any.

    Raises:
        InputError: an unknown operator, a size that is missing or no whole number.
    """
    operator = row.get("operator", "")
    if operator not in OPERATOR_SIZES:
        raise unknown_name("operator", operator, OPERATOR_SIZES)
    sizes = {}
    for name in (n for group in OPERATOR_SIZES[operator] for n in group):
        if row.get(name):
            value = number(row[name], name)
            if not value.is_integer():
                raise InputError(f"column {name!r}: expected a whole number, got {row[name]!r}")
            sizes[name] = int(value)
    workload = single_operator(operator, sizes)
    recipe = format_recipe(row.get("formats", ""))
    label = " ".join([operator, *(f"{name}={value}" for name, value in sizes.items())])
    return label, workload if recipe is None else workload.with_formats(recipe)


def measured_point(row: Mapping[str, str], column: str) -> Point:
    """The point of a row whose time is in ``column``.

    Raises:
        InputError: as ``row_workload``, or a time that is no number above 0.
    """
    label, workload = row_workload(row)
    time_s = number(row[column], column) * TIME_COLUMNS[column]
    if time_s <= 0:
        raise InputError(f"column {column!r}: expected a time above 0, got {row[column]!r}")
    return Point(label, workload, {"time_s": time_s}, row=row)


def measurements_text(rows: Sequence[Mapping[str, Any]], comments: Iterable[str]) -> str:
    """Rows of measurements as the text of a CSV file, after comment lines."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    buffer.writelines(f"# {line}\n" for line in comments)
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
