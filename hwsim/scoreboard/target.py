"""Targets: what was measured, on what, and how a row of the data becomes something a device can simulate."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwsim.spec import Count, Positive, SpecPart, validate_spec
from numerics.errors import InputError, unknown_name

Size = str | int


class Goal(SpecPart):
    """What the errors of a figure should stay below, in percent (or percentage points)."""

    mean: Positive | None = None
    worst: Positive | None = None


class Subset(SpecPart):
    """A part of a target's points with a goal of its own: where the largest of some columns lies within bounds.

    Attributes:
        largest_of: columns.
        at_most, above: bounds of the largest of them.
    """

    name: str
    largest_of: tuple[str, ...] = Field(min_length=1)
    at_most: float | None = None
    above: float | None = None
    goal: Goal = Goal()

    def holds(self, row: Mapping[str, str]) -> bool:
        """Whether a row of the data belongs to it."""
        largest = max(number(row[column], column) for column in self.largest_of)
        return (self.at_most is None or largest <= self.at_most) and (self.above is None or largest > self.above)


class Figure(SpecPart):
    """One measured figure of the target.

    Attributes:
        name: what the scoreboard calls it.
        modelled: the figure of a report it is held against (``hwsim.scoreboard.figures``).
        column: column of the data.
        scale: what a value of the column is multiplied by to get the SI unit.
        error: ``percent`` of the measured value, or ``points``: the difference of two percentages.
        goal: for all points.
        where: column → value: the rows that it is about; all by default.
        fit: name of the fit, under the device's ``calibrated``, whose fields were fitted to this figure.
        informed: fields that were not fitted, but whose values were chosen with this figure in view; they count as fitted.
        cross_validation: number of folds, or ``leave_one_out``.
        subsets: parts with goals of their own.
    """

    name: str
    modelled: str
    column: str
    scale: Positive = 1.0
    error: Literal["percent", "points"] = "percent"
    goal: Goal = Goal()
    where: Mapping[str, str] = Field(default_factory=dict)
    fit: str = ""
    informed: tuple[str, ...] = ()
    cross_validation: Literal["leave_one_out"] | Annotated[int, Field(ge=2, strict=True)] = "leave_one_out"
    subsets: tuple[Subset, ...] = ()

    def holds(self, row: Mapping[str, str]) -> bool:
        """Whether it is about a row of the data."""
        return all(row.get(column) == value for column, value in self.where.items())


class Points(SpecPart):
    """How a row of the data becomes a workload: one operator, a layer of a network, or a network.

    Attributes:
        measurements: the data are as ``hwsim measure`` writes them: each row names its operator, sizes and formats.
        operator: a name of ``OPERATOR_SIZES``; ``sizes`` says which column, or number, each of its sizes is.
        model: a network of the zoo, with the ``options`` batch, seq_len, kv_len and phase.
        layers: label in ``label`` → module of the network, for data with a row a layer.
        label: column that names the row.
        formats: role → number format; the device's default formats otherwise.
        zeros: column with the share of zeros in the first operand.
        overrides: dotted field of the device's spec → column, for data about several configurations of one chip.
        rows: labels of the rows that count; all of them otherwise.
    """

    measurements: bool = False
    operator: str = ""
    sizes: Mapping[str, Size] = Field(default_factory=dict)
    model: str = ""
    options: Mapping[str, Count | str] = Field(default_factory=dict)
    layers: Mapping[str, str] = Field(default_factory=dict)
    label: str = ""
    formats: Mapping[str, str] = Field(default_factory=dict)
    zeros: str = ""
    overrides: Mapping[str, str] = Field(default_factory=dict)
    rows: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> Points:
        if bool(self.operator) + bool(self.model) + self.measurements != 1:
            raise ValueError("expected either operator, model or measurements")
        if self.measurements and (named := sorted(self.model_fields_set - {"measurements"})):
            raise ValueError(f"{named[0]}: each row of measurements says it")
        if (self.layers or self.rows) and not self.label:
            raise ValueError("label: layers and rows need the column that names a row")
        return self


class Target(SpecPart):
    """A measured set, and the device it is held against.

    Attributes:
        name: of the target; its file's stem.
        title: one line on what was measured.
        source: who measured it, where it was published.
        evidence: ``silicon``, or ``estimate`` (a vendor's own).
        device: name of the device.
        data: file in ``hwsim/data/measured``.
        transposed: the file has a row a figure and a column a point.
        points: how its rows become workloads.
        figures: what was measured.
        note: what a reader must know.
    """

    name: str
    title: str
    source: str
    evidence: Literal["silicon", "estimate"]
    device: str
    data: str
    transposed: bool = False
    points: Points
    figures: tuple[Figure, ...] = Field(min_length=1)
    note: str = ""


def number(text: str, column: str) -> float:
    """A number of a data file; ``38.7%`` is 0.387.

    Raises:
        InputError: not a finite number.
    """
    word = text.strip()
    try:
        value = float(word[:-1]) / 100 if word.endswith("%") else float(word)
    except ValueError:
        raise InputError(f"column {column!r}: expected a number, got {text!r}") from None
    if value != value or abs(value) == float("inf"):
        raise InputError(f"column {column!r}: expected a finite number, got {text!r}")
    return value


def read_rows(path: str | Path, *, transposed: bool = False) -> list[dict[str, str]]:
    """Rows of a CSV file, comment lines (``#``) left out; names and values stripped of blanks.

    Raises:
        InputError: the file cannot be read, has no rows, a column twice, or a row of another length.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    reader = csv.reader(line for line in text.splitlines() if line.strip()[:1] != "#")
    try:
        table = [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:  # a cell of more than 131072 characters: an unclosed quotation mark, or no CSV file at all
        raise InputError(f"{path}: line {reader.line_num} (comments left out): not valid CSV: {error}") from None
    table = [row for row in table if any(row)]
    if len({len(row) for row in table}) > 1:
        odd = next(i for i, row in enumerate(table) if len(row) != len(table[0]))
        raise InputError(f"{path}: data row {odd}: expected {len(table[0])} values, got {len(table[odd])}")
    if transposed:
        table = [list(row) for row in zip(*table, strict=True)]
    if len(table) < 2:
        raise InputError(f"{path}: expected a line of column names and rows of values")
    header = table[0]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise InputError(f"{path}: column {twice!r} is given twice")
    return [dict(zip(header, row, strict=True)) for row in table[1:]]


def _folder(name: str) -> Path:
    return Path(str(resources.files("hwsim") / "data" / name))


@cache
def target_files() -> Mapping[str, Path]:
    """Target → its file, in the order they are scored."""
    return {path.stem: path for path in sorted(_folder("targets").glob("*.yaml"))}


def load_target(name: str) -> Target:
    """The target of that name.

    Raises:
        InputError: no such target, or a file that does not validate.
    """
    from hwsim.registry import read_spec

    if name not in target_files():
        raise unknown_name("target", name, target_files())
    path = target_files()[name]
    target = validate_spec(Target, read_spec(path), source=f"target {name!r}")
    if target.name != name:
        raise InputError(f"target {name!r}: name: expected {name!r}, got {target.name!r}")
    return target


def target_rows(target: Target) -> list[dict[str, str]]:
    """The rows of a target's data that count."""
    rows = read_rows(_folder("measured") / target.data, transposed=target.transposed)
    points = target.points
    wanted = points.rows or tuple(points.layers)
    if not wanted:
        return rows
    if rows and points.label not in rows[0]:
        raise InputError(f"target {target.name!r}: {target.data} has no column {points.label!r}")
    by_label = {row[points.label]: row for row in rows}
    missing = [label for label in wanted if label not in by_label]
    if missing:
        raise InputError(f"target {target.name!r}: {target.data} has no row {missing[0]!r}")
    return [by_label[label] for label in wanted]
