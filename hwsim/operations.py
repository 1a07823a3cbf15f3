"""What an operator costs in primitive operations: one table, ``data/operations.csv``, for every machine."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources

from numerics.errors import unknown_name

PRIMITIVES = ("add", "multiply", "multiply_add", "compare", "divide", "exp", "log", "sqrt", "move")
"""The kinds of primitive operation a vector unit executes."""


@cache
def table() -> dict[tuple[str, str], dict[str, int]]:
    """(operation, "element" | "row") → primitive → count, without the zeros."""
    text = resources.files("hwsim").joinpath("data/operations.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {(row["operation"], row["per"]): {p: int(row[p]) for p in PRIMITIVES if int(row[p])} for row in rows}


@cache
def operation_names() -> frozenset[str]:
    """Every operation the table knows."""
    return frozenset(name for name, _ in table())


def primitive_counts(operation: str, elements: int, rows: int = 0) -> dict[str, int]:
    """Primitive operations of ``operation`` over ``elements`` elements in ``rows`` reduced rows.

    Raises:
        InputError: the table has no such operation.
    """
    known = table()
    if (operation, "element") not in known:
        raise unknown_name("operation", operation, operation_names())
    counts = {p: n * elements for p, n in known[operation, "element"].items()}
    for primitive, n in known.get((operation, "row"), {}).items():
        counts[primitive] = counts.get(primitive, 0) + n * rows
    return {p: n for p, n in counts.items() if n}


def add_counts(*parts: Mapping[str, int]) -> dict[str, int]:
    """The sum of several counts."""
    total: dict[str, int] = {}
    for part in parts:
        for primitive, n in part.items():
            total[primitive] = total.get(primitive, 0) + n
    return total
