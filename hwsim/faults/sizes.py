"""How many trials a fault campaign needs for its margin, and how strata share them.

>>> from hwsim.faults.sizes import sample_size
>>> sample_size(0.01), sample_size(0.01, population=50_000), sample_size(0.01, confidence=0.998)
(9604, 8057, 23874)
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwsim.faults.statistics import normal_quantile
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Rule = Literal["proportional", "equal", "neyman"]
_RULES = ("proportional", "equal", "neyman")
_COUNTABLE = 2**53  # integers up to here are floats


def sample_size(margin: float, *, confidence: float = 0.95, population: int | None = None, proportion: float = 0.5) -> int:
    """Trials of a simple random sample whose estimate lies within the margin: n = N / (1 + e² (N - 1)/(z² p (1 - p))).

    Leveugle, Calvez, Maistri, Vanhauwaert, "Statistical fault injection: quantified error and confidence", DATE 2009, section 3.

    Args:
        margin: half the width of the interval, e.
        population: faults there are, N; None: without end, n = z² p (1 - p) / e².
        proportion: expected, p; 0.5 needs the most trials.

    Raises:
        InputError: a margin or proportion outside 0 to 1, an empty population.
    """
    for name, value in (("margin", margin), ("proportion", proportion)):
        if not isinstance(value, Real) or not 0 < value < 1:
            raise InputError(f"{name}: expected a number between 0 and 1, got {value!r}")
    unbounded = normal_quantile(confidence) ** 2 * proportion * (1 - proportion) / margin**2
    if population is None:
        return math.ceil(unbounded)
    if not isinstance(population, Integral) or population < 1:
        raise InputError(f"population: expected an integer ≥ 1, got {population!r}")
    return min(math.ceil(int(population) / (1 + (int(population) - 1) / unbounded)), int(population))


def allocate(
    total: int,
    sizes: ArrayLike,
    *,
    rule: Rule = "proportional",
    deviations: ArrayLike | None = None,
    minimum: int = 0,
) -> NDArray[np.int64]:
    """Trials of each stratum, ``total`` together, none with more than it holds.

    What a full stratum cannot take goes to the others by the same rule (Cochran, "Sampling techniques", 3rd edition, 1977,
    section 5.8); fractions are rounded by largest remainder, the first stratum where they tie.

    Args:
        total: trials.
        sizes: faults each stratum holds, N_h.
        rule: ``proportional`` to N_h, ``equal``, or ``neyman``: to N_h s_h, which makes the variance of the estimate least
            (section 5.5).
        deviations: standard deviation of each stratum's outcomes, s_h > 0, for ``neyman``; see ``pilot_deviations``.
        minimum: trials of a stratum, or all it holds where that is less.

    Raises:
        InputError: a total that the strata cannot hold or that the minimum exceeds, an unknown rule, deviations missing or not
            wanted.
    """
    size = _sizes(sizes)
    weights = _weights(size, rule, deviations)
    for name, value in (("total", total), ("minimum", minimum)):
        if not isinstance(value, Integral) or not 0 <= value <= _COUNTABLE:
            raise InputError(f"{name}: expected an integer from 0 to {_COUNTABLE}, got {value!r}")
    least = np.minimum(size, minimum)
    if not least.sum() <= total <= size.sum():
        raise InputError(f"total: expected from {least.sum():g} to {size.sum():g} for these strata, got {total}")

    # Filled like connected vessels: to one level, between each stratum's floor and its brim.
    low, high = 0.0, float((size / weights).max())
    while low < (level := (low + high) / 2) < high:
        low, high = (level, high) if np.clip(level * weights, least, size).sum() < total else (low, level)
    wanted = np.clip(high * weights, least, size)
    found = np.floor(wanted)
    missing = int(total - found.sum())
    step = 1 if missing > 0 else -1
    while missing:  # the level is a float, so that a full round may not do
        able = np.flatnonzero(found < size if missing > 0 else found > least)
        order = able[np.argsort(-step * (wanted - found)[able], kind="stable")][: abs(missing)]
        found[order] += step
        missing -= step * order.size
    return found.astype(np.int64)


def stratified_sample_size(
    margin: float,
    sizes: ArrayLike,
    *,
    confidence: float = 0.95,
    rule: Rule = "proportional",
    deviations: ArrayLike | None = None,
    minimum: int = 1,
) -> int:
    """Trials over all strata for which z √(Σ W_h² s_h² / n_h · (N_h - n_h)/(N_h - 1)) ≤ margin, shared out by ``allocate``.

    Where no stratum fills up this is Cochran's closed form (section 5.12), to the rounding of the shares.

    Args:
        margin: half the width of the interval.
        sizes: faults each stratum holds.
        rule, deviations, minimum: as in ``allocate``; without deviations the outcomes' are at their most, 0.5.

    Raises:
        InputError: as ``allocate``; a margin outside 0 to 1; a minimum below 1.
    """
    if not isinstance(margin, Real) or not 0 < margin < 1:
        raise InputError(f"margin: expected a number between 0 and 1, got {margin!r}")
    if not isinstance(minimum, Integral) or minimum < 1:
        raise InputError(f"minimum: expected an integer ≥ 1, got {minimum!r}")
    size = _sizes(sizes)
    spread = np.full(size.size, 0.5) if deviations is None else _deviations(deviations, size)
    wanted, weights = (margin / normal_quantile(confidence)) ** 2, size / size.sum()

    def enough(total: int) -> bool:
        n = allocate(total, size, rule=rule, deviations=spread if rule == "neyman" else None, minimum=minimum)
        return bool((weights**2 * spread**2 / n * (size - n) / np.maximum(size - 1, 1)).sum() <= wanted)

    low, most = int(np.minimum(size, minimum).sum()), int(size.sum())
    high = low
    while high < most and not enough(high):
        low, high = high + 1, min(2 * high, most)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def pilot_deviations(successes: ArrayLike, trials: ArrayLike) -> NDArray[np.float64]:
    """Standard deviation of each stratum's outcomes from a pilot: √(p (1 - p)) at p = (x + 1)/(n + 2).

    Laplace's estimate, since Neyman's rule gives a stratum without a failure in its pilot no trial ever again.

    Raises:
        InputError: lengths that differ, more successes than trials.
    """
    x, n = np.asarray(successes, np.float64).reshape(-1), np.asarray(trials, np.float64).reshape(-1)
    if x.shape != n.shape or (x < 0).any() or not (x <= n).all():
        raise InputError(f"successes: expected from 0 to the stratum's trials {n.tolist()}, got {x.tolist()}")
    share = (x + 1) / (n + 2)
    return np.sqrt(share * (1 - share))


def _sizes(sizes: ArrayLike) -> NDArray[np.float64]:
    size = np.asarray(sizes, np.float64).reshape(-1)
    if not size.size or not np.isfinite(size).all() or (size < 1).any() or (size != np.floor(size)).any():
        raise InputError(f"sizes: expected integers ≥ 1, one a stratum, got {size.tolist()}")
    return size


def _deviations(deviations: ArrayLike, size: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = np.asarray(deviations, np.float64).reshape(-1)
    if spread.shape != size.shape or not np.isfinite(spread).all() or (spread <= 0).any():
        raise InputError(f"deviations: expected {size.size} numbers above 0, one a stratum, got {spread.tolist()}")
    return spread


def _weights(size: NDArray[np.float64], rule: Rule, deviations: ArrayLike | None) -> NDArray[np.float64]:
    if rule not in _RULES:
        raise unknown_name("rule", rule, _RULES)
    if (rule == "neyman") != (deviations is not None):
        raise InputError(f"deviations: expected with the rule 'neyman' and with no other, got {deviations!r} with {rule!r}")
    if deviations is not None:
        return size * _deviations(deviations, size)
    return size if rule == "proportional" else np.ones_like(size)
