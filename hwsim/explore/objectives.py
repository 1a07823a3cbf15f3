"""What is sought, what must hold, and which configurations are the best of their kind."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name

Direction = Literal["min", "max"]

GROWING = ("accuracy",)
"""Metrics of which more is better where nothing is said."""

_CONSTRAINT = re.compile(r"^\s*([A-Za-z_][\w.*]*)\s*(<=|>=|≤|≥)\s*(\S+)\s*$")


@displayed
@dataclass(frozen=True)
class Objective:
    """A metric and which way is better.

    Raises:
        InputError: a direction that is neither ``min`` nor ``max``.
    """

    metric: str
    direction: Direction = "min"

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise InputError(f"objective: expected the name of a metric, got {self.metric!r}")
        if self.direction not in ("min", "max"):
            raise InputError(f"objective {self.metric}: expected 'min' or 'max', got {self.direction!r}")

    @property
    def sign(self) -> int:
        """What makes less better."""
        return 1 if self.direction == "min" else -1

    def __str__(self) -> str:
        return f"{self.direction} {self.metric}"


@displayed
@dataclass(frozen=True)
class Constraint:
    """A bound that a metric (or a parameter) has to keep; at the bound it is kept.

    Raises:
        InputError: a relation that is neither ``<=`` nor ``>=``, a bound that is no number.
    """

    metric: str
    relation: Literal["<=", ">="]
    bound: float

    def __post_init__(self) -> None:
        if self.relation not in ("<=", ">="):
            raise InputError(f"constraint {self.metric}: expected '<=' or '>=', got {self.relation!r}")
        number = isinstance(self.bound, int | float) and not isinstance(self.bound, bool)
        if not number or not math.isfinite(self.bound):
            raise InputError(f"constraint {self.metric}: expected a finite number as bound, got {self.bound!r}")

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """A constraint as it is written: ``area_mm2 <= 10``.

        Raises:
            InputError: another form.
        """
        match = _CONSTRAINT.match(text) if isinstance(text, str) else None
        try:
            if match is None:
                raise ValueError
            bound = float(match[3])
        except ValueError:
            raise InputError(f"constraint: expected METRIC <= NUMBER or METRIC >= NUMBER, got {text!r}") from None
        return cls(match[1], "<=" if match[2] in ("<=", "≤") else ">=", bound)

    def violation(self, value: float | None) -> float:
        """By how much a value breaks the bound; 0 where it keeps it, infinite where it is unknown."""
        if value is None:
            return math.inf
        if isinstance(value, bool | str):
            raise InputError(f"constraint {self.metric}: expected a metric or parameter of numbers, got {value!r}")
        if math.isnan(value):
            return math.inf
        return max(0.0, value - self.bound if self.relation == "<=" else self.bound - value)

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {repr(float(self.bound)).removesuffix('.0')}"


Objectives = Mapping[str, str] | Iterable[str | Objective] | str | None
"""How objectives are given: ``{"time_s": "min"}``, or names; ``accuracy`` is maximised where nothing is said."""


def objectives_from(given: Objectives, *, default: Sequence[str] = ()) -> tuple[Objective, ...]:
    """Objectives as they may be given; ``accuracy=max`` and ``max accuracy`` in a text say the direction.

    Raises:
        InputError: none, one twice, an unknown direction.
    """
    if isinstance(given, str):
        given = [given]
    found: list[Objective] = []
    if isinstance(given, Mapping):
        found = [Objective(metric, direction) for metric, direction in given.items()]  # type: ignore[arg-type]
    else:
        for one in default if given is None else given:
            if isinstance(one, Objective):
                found.append(one)
                continue
            if not isinstance(one, str):
                raise InputError(f"objectives: expected names of metrics, got {one!r}")
            metric, equals, direction = one.partition("=")
            if not equals and " " in one.strip():
                direction, _, metric = one.strip().partition(" ")
            metric = metric.strip()
            found.append(Objective(metric, direction.strip() or ("max" if metric in GROWING else "min")))  # type: ignore[arg-type]
    if not found:
        raise InputError("objectives: expected at least one metric, got none")
    names = [objective.metric for objective in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"objectives: {name} is given twice")
    return tuple(found)


def constraints_from(given: str | Iterable[str | Constraint]) -> tuple[Constraint, ...]:
    """Constraints as they may be given: texts (``time_s <= 0.01``) or ``Constraint`` objects."""
    listed = [given] if isinstance(given, str | Constraint) else list(given)
    return tuple(one if isinstance(one, Constraint) else Constraint.parse(one) for one in listed)


def known_metrics(asked: Iterable[str], known: Iterable[str], *, what: str) -> None:
    """Raise ``InputError`` for a metric that no evaluation gave."""
    have = list(known)
    for name in asked:
        if name not in have:
            raise unknown_name(what, name, have)


def non_dominated(costs: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of ``costs`` (points, objectives; less is better) no other row dominates. Equal rows stand together.

    A row dominates another that is nowhere less and somewhere more. Rows that are not finite are never on the front.
    """
    points = np.asarray(costs, dtype=np.float64)
    keep = np.zeros(len(points), dtype=bool)
    left = np.flatnonzero(np.isfinite(points).all(axis=1))
    # By the sum, no row can be dominated by a later one, but for rounding: the sort breaks its ties by the objectives.
    order = np.lexsort((*points[left].T[::-1], points[left].sum(axis=1)))
    left = left[order]
    while len(left):
        best = points[left[0]]
        rest = points[left]
        dominated = (rest >= best).all(axis=1) & (rest > best).any(axis=1)
        dominates = (rest <= best).all(axis=1) & (rest < best).any(axis=1)
        if not dominates.any():
            keep[left[0]] = True
            equal = (rest == best).all(axis=1)
            keep[left[equal]] = True
            left = left[~(dominated | equal)]
        else:  # sums rounded to the same number: the true one comes later
            left = np.concatenate([left[1:][dominates[1:]], left[1:][~dominates[1:]]])
    return keep


def hypervolume(costs: np.ndarray[Any, np.dtype[np.float64]], reference: Sequence[float]) -> float:
    """Volume that the rows of ``costs`` (points, objectives; less is better) dominate below ``reference`` (Zitzler & Thiele, IEEE
    Transactions on Evolutionary Computation 3(4), 1999), by ``moocore``.

    Raises:
        InputError: ``moocore`` is not installed.
    """
    moocore = extra("moocore")
    edge = np.asarray(reference, dtype=np.float64)
    points = np.asarray(costs, dtype=np.float64).reshape(-1, len(edge))
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(max(0.0, edge[0] - points.min()))
    return float(moocore.hypervolume(points, ref=edge))


def extra(name: str) -> Any:
    """A module of the optional packages of explorations.

    Raises:
        InputError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise InputError(f"{name}: not installed; pip install 'hwsim[explore]'") from None
