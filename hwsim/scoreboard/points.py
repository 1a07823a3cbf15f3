"""Points: a row of measurements as a workload, the device's settings, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from hwsim.device import Device
from hwsim.machine import OperatorMachine
from hwsim.operators import Convolution, Matmul
from hwsim.registry import get_device
from hwsim.report import Report
from hwsim.scoreboard.figures import figure
from hwsim.scoreboard.single import single_operator
from hwsim.scoreboard.target import Points, Target, number, target_rows
from hwsim.views.display import displayed
from hwsim.workload import Workload, chain
from numerics.errors import InputError
from numerics.recipes import Recipe

Array = np.ndarray[Any, np.dtype[np.float64]]


@displayed
@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        label: what it is called.
        workload: in its formats, or without any for the device's default ones.
        measured: name of the figure → value in SI units.
        overrides: dotted field of the device's spec → value.
        row: the row of the data.
    """

    label: str
    workload: Workload
    measured: Mapping[str, float]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, str] = field(default_factory=dict)


def target_points(target: Target) -> list[Point]:
    """The points of a target."""
    from hwsim.scoreboard.measurements import row_workload

    found = []
    for row in target_rows(target):
        measured = {}
        for wanted in target.figures:
            value = number(_cell(row, wanted.column, target.data), wanted.column) * wanted.scale
            if value <= 0 and wanted.error == "percent":
                raise InputError(f"{target.data}: column {wanted.column!r}: expected a number above 0, got {value:g}")
            measured[wanted.name] = value
        if target.points.measurements:
            label, workload = row_workload(row)
            found.append(Point(label, workload, measured, row=row))
            continue
        overrides = {name: _whole(number(_cell(row, c, target.data), c)) for name, c in target.points.overrides.items()}
        workload = _workload(target.points, row, target.data)
        label = _cell(row, target.points.label, target.data) if target.points.label else workload.name
        found.append(Point(label, workload, measured, overrides, row))
    return found


def _cell(row: Mapping[str, str], column: str, source: str) -> str:
    if column not in row:
        raise InputError(f"{source}: has no column {column!r} (columns: {', '.join(row)})")
    return row[column]


def _whole(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _workload(points: Points, row: Mapping[str, str], source: str) -> Workload:
    density = 1 - number(_cell(row, points.zeros, source), points.zeros) if points.zeros else None
    if points.operator:
        sizes = {
            name: size if isinstance(size, int) else _size(_cell(row, size, source), size) for name, size in points.sizes.items()
        }
        made = single_operator(points.operator, sizes, density=density)
        made = replace(made, name=" ".join(f"{name}={value}" for name, value in sizes.items()))
    else:
        made = _network(points.model, tuple(sorted(points.options.items())))
        if points.layers:
            made = _layer(made, points.layers[_cell(row, points.label, source)], density)
    return made.with_formats(Recipe("measured", dict(points.formats))) if points.formats else made


def _size(text: str, column: str) -> int:
    value = number(text, column)
    if not value.is_integer():
        raise InputError(f"column {column!r}: expected a whole number, got {text!r}")
    return int(value)


@cache
def _network(model: str, options: tuple[tuple[str, Any], ...]) -> Workload:
    from hwsim.api import workload_from

    return workload_from(model, **dict(options))


def _layer(network: Workload, module: str, density: float | None) -> Workload:
    """The matrix operators of one module as a workload of their own, operands and results in off-chip memory."""
    ops = [op for op in network.ops if op.module == module and isinstance(op, Matmul | Convolution)]
    if not ops:
        raise InputError(f"model {network.name!r}: module {module!r} has no matrix operator")
    made = chain(module, ops)
    if density is not None:
        tensors = dict(made.tensors)
        for op in made.ops:
            tensors[op.inputs[0]] = replace(tensors[op.inputs[0]], density=density)
        made = replace(made, tensors=tensors)
    return made


def predict(data: Mapping[str, Any], points: Sequence[Point], modelled: str) -> Array:
    """The figure ``modelled`` of every point on the device that a spec's data describes."""
    return prediction(points, modelled)(data)


def prediction(points: Sequence[Point], modelled: str) -> Callable[[Mapping[str, Any]], Array]:
    """A spec's data → the figure ``modelled`` of every point on that device; a fit asks thousands of times.

    Matmuls are costed all at once where the device can; all else is simulated one by one.
    """
    matmuls = _plain_matmuls(points) if modelled == "time_s" else None

    def predicted(data: Mapping[str, Any]) -> Array:
        device = get_device(data)
        if matmuls is not None and isinstance(device, OperatorMachine):
            shapes, recipe = matmuls
            m, n, k, batch = shapes.T
            return device.matmul_time_s(m, n, k, batch=batch, recipe=recipe)
        return _one_by_one(device, data, points, modelled)

    return predicted


def _one_by_one(device: Device, data: Mapping[str, Any], points: Sequence[Point], modelled: str) -> Array:
    devices: dict[tuple[tuple[str, Any], ...], Device] = {(): device}
    reports: dict[tuple[int, Any], Report] = {}
    values = np.empty(len(points))
    for i, point in enumerate(points):
        key = tuple(sorted(point.overrides.items()))
        if key not in devices:
            devices[key] = get_device(data, overrides=point.overrides)
        run = id(point.workload), key
        if run not in reports:
            reports[run] = devices[key].simulate(point.workload)
        report = reports[run]
        elements = sum(op.elements_out for op in point.workload.ops)
        values[i] = figure(modelled, report, report.ops, elements)
    return values


def _plain_matmuls(points: Sequence[Point]) -> tuple[np.ndarray[Any, Any], Recipe | None] | None:
    """Sizes (points, 4) and recipe of points that are all plain matmuls in the same formats; None of others."""
    shapes, formats = [], set()
    for point in points:
        ops = point.workload.ops
        sparse = any(t.density is not None for t in point.workload.tensors.values())
        if len(ops) != 1 or not isinstance(ops[0], Matmul) or ops[0].bias or sparse or point.overrides:
            return None
        op = ops[0]
        stored = tuple(point.workload.tensors[name].format for name in (*op.inputs, *op.outputs))
        formats.add((point.workload.recipe, op.formats, stored))
        shapes.append((op.m, op.n, op.k, op.batch))
    if len(formats) != 1:
        return None
    return np.array(shapes), _recipe_of(points[0].workload)


def _recipe_of(workload: Workload) -> Recipe | None:
    """A recipe that gives a single matmul the formats it has."""
    op = workload.ops[0]
    if op.formats is None:
        return None
    activation, weight = op.formats.operands[:2]
    return Recipe("measured", {"activation": activation, "weight": weight, "accumulator": op.formats.accumulator})
