"""When a campaign may stop: looks at sizes declared beforehand, whose intervals hold all together.

Whoever looks again and again until an interval is narrow enough is wrong more often than each interval says. So the looks share
one probability of error, and the interval of whichever look ends the campaign keeps the stated confidence.

>>> from hwsim.faults.looks import LookPlan
>>> from hwsim.faults.statistics import wilson
>>> plan = LookPlan(margin=0.02, first=500, growth=2)
>>> plan.sizes
(500, 1000, 2405)
>>> [plan.next_size(done) for done in (0, 500, 2405)]
[500, 1000, None]
>>> found = plan.interval(1, lambda level: wilson(30, 1000, confidence=level))
>>> print(found, plan.stops(found))
0.0300 [0.0167, 0.0534] at 95 % True
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwsim.faults.statistics import Interval, normal_quantile
from hwsim.views.display import displaying
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

Spending = Literal["obrien_fleming", "pocock", "bonferroni"]
_SPENDINGS = ("obrien_fleming", "pocock", "bonferroni")
_FARTHEST = 7.5  # standard deviations: beyond lies 6·10⁻¹⁴, which no confidence near 1 can tell from nothing
_LEAST_GROWTH = 1.05


@displaying("sizes")
@dataclass(frozen=True, kw_only=True)
class LookPlan:
    """Sizes at which a campaign is looked at, and the confidence of the interval made at each.

    Args:
        margin: half the width of an interval that is narrow enough; the first look with such a one is the last.
        confidence: that all looks' intervals hold the true value, so that the last one does however it was chosen (repeated
            confidence intervals: Jennison and Turnbull, JRSS B 51, 1989).
        first: trials at the first look.
        growth: of the sizes from look to look, at least 1.05. Fewer looks cost less confidence each.
        maximum: trials at the last look; None: as many as Wilson's interval needs for the margin at a proportion of 0.5.
        population: trials are drawn from so many without replacement.
        spending: how looks share the error. ``obrien_fleming``: hardly any at first (Lan and DeMets, Biometrika 70, 1983, α₁,
            each side its half), so that the last interval is nearly as narrow as without looks; ``pocock``: alike, all at one
            critical value (Pocock, Biometrika 64, 1977), which ends sooner where proportions are a few times the margin or less,
            and up to three quarters later where they are near 0.5; ``bonferroni``: α/looks each, whatever the looks have in
            common.

    Where a handful of faults at most is seen, Wilson's interval at any level is too narrow below: with ``pocock`` it may hold in
    89 % of campaigns that say 95 %. ``obrien_fleming``'s early levels make up for that where looks are many, and
    ``clopper_pearson`` at ``strict_levels`` holds everywhere; the tests sum over every course a campaign can take.

    Raises:
        InputError: numbers out of range, an unknown spending.
    """

    margin: float
    confidence: float = 0.95
    first: int = 400
    growth: float = 1.5
    maximum: int | None = None
    population: int | None = None
    spending: Spending = "obrien_fleming"

    def __post_init__(self) -> None:
        if self.spending not in _SPENDINGS:
            raise unknown_name("spending", self.spending, _SPENDINGS)
        if not isinstance(self.margin, Real) or not 0 < self.margin < 1:
            raise InputError(f"margin: expected a number between 0 and 1, got {self.margin!r}")
        normal_quantile(self.confidence)
        if not isinstance(self.growth, Real) or not _LEAST_GROWTH <= self.growth < math.inf:
            raise InputError(f"growth: expected a number ≥ {_LEAST_GROWTH}, got {self.growth!r}")
        for name, value in (("first", self.first), ("maximum", self.maximum), ("population", self.population)):
            if not (value is None and name != "first") and (not isinstance(value, Integral) or value < 1):
                raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")
        if self.maximum is not None and self.maximum < self.first:
            raise InputError(f"maximum: expected at least the {self.first} trials of the first look, got {self.maximum}")
        if self.population is not None and self.population < (self.maximum or self.first):
            raise InputError(f"population: expected at least {self.maximum or self.first} trials, got {self.population}")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Trials done at each look, increasing."""
        if self.maximum is not None:
            return self._until(int(self.maximum))
        maximum, needed = int(self.first), self._needed(normal_quantile(self.confidence))
        while maximum < needed:  # more looks ask for a wider last interval, and that for more trials
            maximum = needed
            last = _critical_values(self._information(self._until(maximum)), 1 - self.confidence, self.spending)
            needed = self._needed(last[-1] if last else 0.0)
        return self._until(maximum)

    def _until(self, maximum: int) -> tuple[int, ...]:
        sizes = [int(self.first)]
        # No look just before the last: the step there is between the roots of the growth and of its cube.
        while sizes[-1] * self.growth**1.5 < maximum:
            sizes.append(math.ceil(sizes[-1] * self.growth))
        return (*sizes, maximum) if maximum > sizes[-1] else tuple(sizes)

    def _needed(self, z: float) -> int:
        size = z * z / (4 * self.margin**2) - z * z
        if self.population is not None:
            size = size * self.population / (self.population - 1 + size)
        return max(math.ceil(size), int(self.first))

    def _information(self, sizes: tuple[int, ...]) -> tuple[float, ...]:
        """1/variance of the estimate at each look, but for σ²; a census, which knows everything, is left out."""
        if self.population is None:
            return tuple(float(n) for n in sizes)
        return tuple(n * self.population / (self.population - n) for n in sizes if n < self.population)

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Confidence of each look's own interval, for estimates that are near normal: proportions and means of many trials.

        All intervals hold together because a sum looked at again is correlated with itself: the critical values come from the
        joint distribution of normal sums (Armitage, McPherson, Rowe, JRSS A 132, 1969), not from the sum of the errors.
        """
        values = _critical_values(self._information(self.sizes), 1 - self.confidence, self.spending)
        return self._with_census(tuple(math.erf(z / math.sqrt(2)) for z in values))

    @cached_property
    def strict_levels(self) -> tuple[float, ...]:
        """The same for intervals that promise their confidence at any size, such as Clopper and Pearson's: the errors add up to 1
        - ``confidence``, and all hold together whatever the distribution.
        """
        information, error = self._information(self.sizes), 1 - self.confidence
        if self.spending == "obrien_fleming":
            spent = np.diff([_obrien_fleming(i / information[-1], error) for i in information], prepend=0.0)
        else:
            spent = np.full(len(information), error / max(len(information), 1))
        return self._with_census(tuple(1 - max(float(share), math.erfc(_FARTHEST / math.sqrt(2))) for share in spent))

    def _with_census(self, levels: tuple[float, ...]) -> tuple[float, ...]:
        return levels + (float(self.confidence),) * (len(self.sizes) - len(levels))

    def interval(self, look: int, estimate: Callable[[float], Interval], *, strict: bool = False) -> Interval:
        """The interval at a look, as part of the plan: made at the look's level, with the plan's confidence.

        Args:
            look: its place among ``sizes``, 0 the first.
            estimate: makes the interval of a confidence.
            strict: for intervals that hold at any size: see ``strict_levels``.

        Raises:
            InputError: no such look.
        """
        if not isinstance(look, Integral) or not 0 <= look < len(self.sizes):
            raise InputError(f"look: expected an integer from 0 to {len(self.sizes) - 1}, got {look!r}")
        return replace(estimate((self.strict_levels if strict else self.levels)[look]), confidence=float(self.confidence))

    def stops(self, interval: Interval) -> bool:
        """Whether an interval is narrow enough."""
        return interval.half_width <= self.margin

    def next_size(self, done: int) -> int | None:
        """Trials at the next look after ``done``; None after the last."""
        return next((size for size in self.sizes if size > done), None)


def _obrien_fleming(fraction: float, error: float) -> float:
    """Error spent at a fraction of the information, both sides together."""
    return min(2 * math.erfc(normal_quantile(1 - error / 2) / math.sqrt(2 * fraction)), error)


@cache
def _critical_values(information: tuple[float, ...], error: float, spending: Spending) -> tuple[float, ...]:
    """z of each look: P(|Z_k| > z_k at some k) = error for Z_k = B(I_k)/√I_k, B a Brownian motion."""
    from scipy.optimize import brentq

    looks, single = len(information), normal_quantile(1 - error)
    if looks <= 1:
        return (single,) * looks
    if spending == "bonferroni":
        return (normal_quantile(1 - error / looks),) * looks
    if spending == "pocock":

        def excess(z: float) -> float:
            walk = _Walk(information)
            return sum(walk.step(z) for _ in information) - error

        return (float(brentq(excess, single, normal_quantile(1 - error / looks), xtol=1e-10)),) * looks
    walk, spent, found = _Walk(information), 0.0, []
    for amount in information:
        share = _obrien_fleming(amount / information[-1], error) - spent
        if walk.crossing(_FARTHEST) >= share:
            found.append(_FARTHEST)
        else:
            found.append(float(brentq(lambda z, share=share: walk.crossing(z) - share, 0.0, _FARTHEST, xtol=1e-10)))
        spent += walk.step(found[-1])
    return tuple(found)


class _Walk:
    """Standardised sums from look to look: the density of those that have not crossed, on Gauss-Legendre nodes (Jennison and
    Turnbull, "Group sequential methods with applications to clinical trials", 2000, section 19.2)."""

    def __init__(self, information: tuple[float, ...]) -> None:
        self._information, self._look = information, 0
        self._nodes: NDArray[np.float64] = np.zeros(1)  # before the first look the sum is 0
        self._masses: NDArray[np.float64] = np.ones(1)

    def _kernel(self) -> tuple[float, float]:
        """Z at the coming look is normal around (the first) · Z at the last one, with (the second) for its deviation."""
        ratio = self._information[self._look - 1] / self._information[self._look] if self._look else 0.0
        return math.sqrt(ratio), math.sqrt(1 - ratio)

    def crossing(self, z: float) -> float:
        """Probability of leaving [-z, z] at the coming look."""
        from scipy.special import ndtr

        slope, deviation = self._kernel()
        centres = slope * self._nodes
        return float(self._masses @ (ndtr((centres - z) / deviation) + ndtr((-centres - z) / deviation)))

    def step(self, z: float) -> float:
        """Go on within [-z, z]; returns the probability of having left it."""
        left = self.crossing(z)
        slope, deviation = self._kernel()
        nodes, weights = _legendre(64 + math.ceil(12 * z / self._next_deviation(deviation)))
        nodes, weights = nodes * z, weights * z
        density = np.exp(-0.5 * ((nodes[:, None] - slope * self._nodes) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
        self._nodes, self._masses, self._look = nodes, weights * (density @ self._masses), self._look + 1
        return left

    def _next_deviation(self, deviation: float) -> float:
        """The narrower of this look's kernel and the next one's: nodes must resolve both."""
        if self._look + 1 == len(self._information):
            return deviation
        return min(deviation, math.sqrt(1 - self._information[self._look] / self._information[self._look + 1]))


@cache
def _legendre(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from numpy.polynomial.legendre import leggauss

    return leggauss(count)
