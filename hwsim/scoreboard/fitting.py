"""Fitting a few fields of a spec to measurements, and cross-validating the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hwsim.views.display import displayed
from numerics.errors import InputError

Array = np.ndarray[Any, np.dtype[np.float64]]
Range = tuple[float, float]

FIRST_SAMPLES_LOG2 = 4
"""Sobol' points an extra field doubles: 2⁴ for one field, 2⁵ for two, …"""
STARTS = 3
"""Samples from which the search goes on."""


@displayed
@dataclass
class FieldFit:
    """Fields of a spec and how their values change what is predicted.

    The search is the same for every choice of points and never sees those left out: a Sobol' sample of the ranges, then
    Nelder and Mead's simplex from the best few of it, on the mean absolute error relative to the measurements.

    Attributes:
        ranges: dotted field → (least, largest); a range over more than a decade is searched in its logarithm.
        predict: values, in the order of ``ranges`` → the figure of every point.
        measured: the measurements.
    """

    ranges: Mapping[str, Range]
    predict: Callable[[tuple[float, ...]], Array]
    measured: Array
    _seen: dict[tuple[float, ...], Array] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if not low < high:
                raise InputError(f"range of {name!r}: expected the least below the largest, got {low:g} and {high:g}")

    def fit(self, chosen: Sequence[int] | None = None) -> tuple[float, ...]:
        """The values that suit the points ``chosen`` (indices; all by default) best, rounded to six digits."""
        from scipy.optimize import minimize
        from scipy.stats import qmc

        use = np.arange(len(self.measured)) if chosen is None else np.asarray(chosen, dtype=int)
        dimensions = len(self.ranges)

        def loss(unit: Array) -> float:
            outside = float(np.abs(unit - np.clip(unit, 0, 1)).sum())
            errors = np.abs(self._predicted(np.clip(unit, 0, 1))[use] / self.measured[use] - 1)
            return float(errors.mean()) + outside

        sample = qmc.Sobol(dimensions, scramble=False).random_base2(FIRST_SAMPLES_LOG2 + dimensions)
        first = np.array([loss(unit) for unit in sample])
        best: tuple[float, Array] | None = None
        for start in np.argsort(first, kind="stable")[:STARTS]:
            options = {"xatol": 1e-3, "fatol": 1e-5, "maxiter": 150 * dimensions, "initial_simplex": _simplex(sample[start])}
            found = minimize(loss, sample[start], method="Nelder-Mead", options=options)
            if best is None or found.fun < best[0]:
                best = float(found.fun), np.clip(found.x, 0, 1)
        assert best is not None
        return self._values(best[1])

    def cross_validated(self, folds: int | Literal["leave_one_out"]) -> Array:
        """Every point as predicted with the values fitted to the points outside its fold.

        Raises:
            InputError: more folds than points, or so few points that a fold leaves fewer than fields.
        """
        count = len(self.measured)
        parts = count if folds == "leave_one_out" else folds
        if parts > count or count - -(-count // parts) < len(self.ranges):
            raise InputError(f"cross-validation: {count} points in {parts} folds cannot hold {len(self.ranges)} fitted fields")
        fold = np.arange(count) % parts
        np.random.default_rng(0).shuffle(fold)
        scored = np.empty(count)
        for part in range(parts):
            values = self.fit(np.flatnonzero(fold != part).tolist())
            scored[fold == part] = self.predict(values)[fold == part]
        return scored

    def _values(self, unit: Array) -> tuple[float, ...]:
        values = []
        for x, (low, high) in zip(unit.tolist(), self.ranges.values(), strict=True):
            in_log = low > 0 and high / low > 10
            value = low * (high / low) ** x if in_log else low + (high - low) * x
            values.append(min(max(float(f"{value:.6g}"), low), high))
        return tuple(values)

    def _predicted(self, unit: Array) -> Array:
        values = self._values(unit)
        if values not in self._seen:
            self._seen[values] = self.predict(values)
        return self._seen[values]


def _simplex(start: Array) -> Array:
    """A first simplex a tenth of the ranges wide, inside them."""
    corners = np.tile(start, (len(start) + 1, 1))
    for i in range(len(start)):
        corners[i + 1, i] += 0.1 if start[i] <= 0.5 else -0.1
    return corners
