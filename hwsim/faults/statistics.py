"""Confidence intervals of what a fault campaign counts and averages.

>>> from hwsim.faults.statistics import stratified_proportion, wilson
>>> print(wilson(3, 400))  # 3 silent corruptions in 400 trials
0.0075 [0.0026, 0.0218] at 95 %
>>> print(stratified_proportion([3, 0], [200, 200], [1000, 9000]))  # a stratum a tenth of the population has them all
0.0015 [0.0006, 0.0181] at 95 %
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwsim.views.display import displayed_by, displaying
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MeanMethod = Literal["bernstein", "student"]
_ROUNDING = 1e-13  # what sums of shares are off by: where all strata agree the variance is 0, and any gap would count


@displayed_by("hwsim.views.study_cards:interval")
@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and what surrounds it.

    Attributes:
        estimate, low, high: in the unit of what is estimated.
        confidence: the least probability that such an interval holds the true value, as its method promises it.
        standard_error: of the estimate, itself estimated: 0 where all trials of a stratum agree, though the interval has a width.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    standard_error: float

    @property
    def half_width(self) -> float:
        """Half of ``high`` - ``low``: the margin reached."""
        return (self.high - self.low) / 2

    def covers(self, value: float) -> bool:
        """Whether ``value`` lies within, the ends included."""
        return self.low <= value <= self.high

    def reaching(self, least: Interval, most: Interval) -> Interval:
        """The same estimate, from the low end of one interval to the high end of another: where trials that came to nothing
        counted as all the one, and all the other, extreme."""
        return replace(self, low=min(self.low, least.low), high=max(self.high, most.high))

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}] at {100 * self.confidence:g} %"


def allowing_for(
    failed: Sequence[int],
    hits: Sequence[int],
    trials: Sequence[int],
    share: Callable[[Sequence[int], Sequence[int]], Interval],
) -> Interval:
    """``share(hits, trials)``, by stratum, reaching from where all ``failed`` trials missed to where all of them hit."""
    found = share(hits, trials)
    if not any(failed):
        return found
    every = [n + more for n, more in zip(trials, failed, strict=True)]
    return found.reaching(share(hits, every), share([n + more for n, more in zip(hits, failed, strict=True)], every))


# --- a proportion ---------------------------------------------------------------------------------------------------------------


def wilson(successes: int, trials: int, *, confidence: float = 0.95, population: int | None = None) -> Interval:
    """Wilson's score interval of a proportion, without continuity correction.

    The mean of its coverage over all proportions is the stated confidence; at single ones, near 0 and 1 most, it is below or
    above (Brown, Cai, DasGupta, "Interval estimation for a binomial proportion", Statistical Science 16, 2001).
    ``clopper_pearson`` is never below. Equations: Wilson, JASA 22, 1927; there, section 3.1.1.

    Args:
        successes, trials: counted; trials are independent.
        confidence: between 0 and 1.
        population: trials were drawn from so many without replacement: the variance shrinks by (N - n)/(N - 1), and once all are
            drawn nothing is left to doubt.

    Raises:
        InputError: more successes than trials, more trials than the population, a confidence outside 0 to 1.
    """
    x, n = _counts(successes, trials, population)
    share = x / n
    error = math.sqrt(share * (1 - share) / n * _left(n, population))
    if population == n:
        return Interval(estimate=share, low=share, high=share, confidence=_level(confidence), standard_error=0.0)
    z2 = normal_quantile(confidence) ** 2
    size = n / _left(n, population)
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = math.sqrt(z2 * (share * (1 - share) / size + z2 / (4 * size * size))) / (1 + z2 / size)
    low, high = (0.0 if x == 0 else centre - half), (1.0 if x == n else centre + half)
    return Interval(estimate=share, low=low, high=high, confidence=confidence, standard_error=error)


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95, population: int | None = None) -> Interval:
    """The exact interval of a proportion: at least the stated confidence at every proportion, and wider for it.

    Clopper and Pearson, Biometrika 26, 1934. With ``population`` the same of the hypergeometric law: all counts of the population
    that neither tail of (1 - confidence)/2 excludes. The counts of all strata of a proportional sample may be pooled: their sum
    strays less than the binomial's (Hoeffding, Annals of Mathematical Statistics 27, 1956, theorem 5).

    Raises:
        InputError: as ``wilson``.
    """
    x, n = _counts(successes, trials, population)
    tail, share = (1 - _level(confidence)) / 2, x / n
    if population is None:
        from scipy.special import betaincinv

        low = 0.0 if x == 0 else float(betaincinv(x, n - x + 1, tail))
        high = 1.0 if x == n else float(betaincinv(x + 1, n - x, 1 - tail))
    else:
        from scipy.stats import hypergeom

        # Counts of the population at which a tail first exceeds its share; the tails are monotone in the count.
        low = _first(x, population - n + x, lambda k: hypergeom.sf(x - 1, population, k, n) > tail) / population
        high = (
            population - _first(n - x, population - x, lambda k: hypergeom.sf(n - x - 1, population, k, n) > tail)
        ) / population
    error = math.sqrt(share * (1 - share) / n * _left(n, population))
    return Interval(estimate=share, low=low, high=high, confidence=confidence, standard_error=error)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


# --- a proportion over strata ---------------------------------------------------------------------------------------------------


def stratified_proportion(
    successes: ArrayLike, trials: ArrayLike, sizes: ArrayLike, *, confidence: float = 0.95, replacement: bool = False
) -> Interval:
    """Σ W_h p_h over strata of shares W_h, with the score interval that is Wilson's where there is one stratum.

    It holds each value P that the data does not reject: |p̂ - P| ≤ z √(Σ W_h² p̃_h (1 - p̃_h) / n_h), the p̃_h those most likely
    among all with Σ W_h p̃_h = P (the restricted estimates of Miettinen and Nurminen, Statistics in Medicine 4, 1985, for two
    strata and their difference). Where no fault was seen it has a width all the same, which Σ W_h² p̂_h (1 - p̂_h) / n_h, and
    with it the stratified Wilson interval of Yan and Su (Statistics in Biopharmaceutical Research 2, 2010), does not. A stratum
    with no trials may be anything: the interval grows by its share. As with ``wilson``, coverage is near the confidence, not
    always above it.

    Args:
        successes, trials: of each stratum.
        sizes: faults each stratum holds; W_h is their share.
        replacement: trials were drawn with replacement; else each stratum's variance shrinks by (N_h - n_h)/(N_h - 1).

    Raises:
        InputError: lengths that differ, counts that cannot be, no trial at all.
    """
    x, n, size = (_array(name, given) for name, given in (("successes", successes), ("trials", trials), ("sizes", sizes)))
    if not x.shape == n.shape == size.shape or not x.size:
        raise InputError(f"successes, trials, sizes: expected one number a stratum, got {x.size}, {n.size} and {size.size}")
    if (x > n).any() or (not replacement and (n > size).any()):
        which = int(np.argmax((x > n) | (n > size)))
        raise InputError(
            f"trials: stratum {which} of {size[which]:g} faults cannot have {n[which]:g} trials with {x[which]:g} successes"
        )
    if not n.any():
        raise InputError("trials: expected at least one, got none")
    z, weights = normal_quantile(confidence), size / size.sum()
    seen = n > 0
    share_seen = float(weights[seen].sum())
    x, n, size, weights = x[seen], n[seen], size[seen], weights[seen] / share_seen
    left = np.ones_like(n) if replacement else (size - n) / np.maximum(size - 1, 1)
    rates = x / n
    estimate = float((weights * rates).sum())
    error = math.sqrt(float((weights**2 * rates * (1 - rates) * left / n).sum()))
    known = left == 0
    certain, open_share = float((weights * rates)[known].sum()), float(weights[~known].sum())
    n, rates, weights = n[~known] / left[~known], rates[~known], weights[~known]
    low = certain + _score_limit(rates, n, weights, z)
    # From above it is the same with successes and failures exchanged.
    high = certain + open_share - _score_limit(1 - rates, n, weights, z)
    return Interval(
        estimate=estimate,
        low=min(max(low, 0.0), estimate) * share_seen,
        high=max(min(high, 1.0), estimate) * share_seen + (1 - share_seen),
        confidence=confidence,
        standard_error=error,
    )


def _score_limit(rates: NDArray[np.float64], n: NDArray[np.float64], weights: NDArray[np.float64], z: float) -> float:
    """The least Σ W_h p_h that the score does not reject.

    Along the multiplier λ of the constraint the most likely rates solve n_h (p̂_h / p - (1 - p̂_h)/(1 - p)) = λ W_h, a quadratic
    each.
    """
    if not rates.any():
        return 0.0
    estimate = float((weights * rates).sum())

    def at(multiplier: float) -> tuple[float, bool]:
        pull = multiplier * weights / n
        # The root without cancellation; below 0 under the square root there are only roundings.
        p = 2 * rates / (1 + pull + np.sqrt(np.maximum((1 + pull) ** 2 - 4 * pull * rates, 0.0)))
        there, variance = float((weights * p).sum()), float((weights**2 * p * (1 - p) / n).sum())
        gap = estimate - there
        return there, gap > _ROUNDING and gap * gap > z * z * variance

    low, high = 0.0, float((n / weights).min())
    while not at(high)[1]:
        high *= 4
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if at(middle)[1] else (middle, high)
    return at(high)[0]


# --- a mean ---------------------------------------------------------------------------------------------------------------------


@displaying("variance")
@dataclass(frozen=True)
class Moments:
    """What intervals of a mean need to know of the values: workers add up their own and send these.

    Attributes:
        count: of the values.
        mean: of the values.
        squares: sum of the squared deviations from the mean.
    """

    count: int
    mean: float
    squares: float

    @classmethod
    def of(cls, values: ArrayLike) -> Moments:
        """Those of some values.

        Raises:
            InputError: values that are not finite.
        """
        array = np.asarray(values, np.float64).reshape(-1)
        if not np.isfinite(array).all():
            raise InputError(f"values: expected finite numbers, got {array[~np.isfinite(array)][0]}")
        if not array.size:
            return cls(0, 0.0, 0.0)
        mean = float(array.mean())
        return cls(int(array.size), mean, float(((array - mean) ** 2).sum()))

    def merged(self, other: Moments) -> Moments:
        """Those of both (Chan, Golub, LeVeque, The American Statistician 37, 1983). Merge in trial order: floats add in one
        order."""
        if not self.count or not other.count:
            return self if self.count else other
        count, step = self.count + other.count, other.mean - self.mean
        squares = self.squares + other.squares + step * step * self.count * other.count / count
        return Moments(count, self.mean + step * other.count / count, squares)

    @property
    def variance(self) -> float:
        """Of the population, unbiased: n - 1 below."""
        return self.squares / (self.count - 1)


def mean_interval(
    values: ArrayLike | Moments,
    *,
    confidence: float = 0.95,
    method: MeanMethod = "bernstein",
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> Interval:
    """The mean of trials' bounded values, such as the drop in accuracy each fault causes.

    Args:
        values: one a trial, independent, or their moments; two at least.
        method: ``bernstein`` holds its confidence for any values within the bounds and any number of them: x̄ ± (√(2 s² L / n) +
            7 (b - a) L / (3 (n - 1))), L = ln(4 / (1 - confidence)) (Maurer and Pontil, "Empirical Bernstein bounds and
            sample-variance penalization", COLT 2009, theorem 4, once a side). ``student``, x̄ ± t s/√n, is half as wide or less,
            and right where values are near normal or trials many. Most faults change nothing and a few change all, so a sample
            may well show no change whatever: Student's interval then has no width and is wrong, hence the default.
        bounds: least and greatest value there can be.

    Raises:
        InputError: fewer than two values, values beyond the bounds, an unknown method.
    """
    low, high = (float(bound) for bound in bounds)
    if not low < high or not math.isfinite(high - low):
        raise InputError(f"bounds: expected two finite numbers, the lower first, got {bounds}")
    if not isinstance(values, Moments):
        array = np.asarray(values, np.float64)
        outside = array[(array < low) | (array > high)]
        if outside.size:
            raise InputError(f"values: expected from {low:g} to {high:g}, got {outside.flat[0]:g}")
        values = Moments.of(array)
    if values.count < 2:
        raise InputError(f"values: expected at least 2, got {values.count}")
    if not low <= values.mean <= high:
        raise InputError(f"values: expected a mean from {low:g} to {high:g}, got {values.mean:g}")
    error = math.sqrt(values.variance / values.count)
    if method == "student":
        half = _student_quantile(confidence, values.count - 1) * error
    elif method == "bernstein":
        log = math.log(4 / (1 - _level(confidence)))
        half = math.sqrt(2 * log) * error + 7 * (high - low) * log / (3 * (values.count - 1))
    else:
        raise unknown_name("method", method, ("bernstein", "student"))
    return Interval(
        estimate=values.mean,
        low=max(low, values.mean - half),
        high=min(high, values.mean + half),
        confidence=confidence,
        standard_error=error,
    )


def stratified_mean(
    strata: Sequence[Moments], sizes: ArrayLike, *, confidence: float = 0.95, replacement: bool = False
) -> Interval:
    """Σ W_h x̄_h over strata of shares W_h, with Student's interval at Satterthwaite's degrees of freedom.

    Cochran, "Sampling techniques", 3rd edition, 1977, section 5.4. For many trials a stratum, or near-normal values; see
    ``mean_interval`` for what goes wrong elsewhere.

    Args:
        strata: moments of each stratum's values; two values at least.
        sizes: faults each stratum holds.
        replacement: trials were drawn with replacement; else each stratum's variance shrinks by 1 - n_h/N_h.

    Raises:
        InputError: lengths that differ, a stratum with fewer than two values, or with more than it holds.
    """
    size = _array("sizes", sizes)
    counts = np.array([part.count for part in strata], np.float64)
    if size.shape != counts.shape or not size.size:
        raise InputError(f"sizes: expected one a stratum, {counts.size}, got {size.size}")
    if (counts < 2).any() or (not replacement and (counts > size).any()):
        which = int(np.argmax((counts < 2) | (counts > size)))
        raise InputError(f"strata: expected from 2 to {size[which]:g} values in stratum {which}, got {counts[which]:g}")
    weights = size / size.sum()
    left = 1.0 if replacement else 1 - counts / size
    parts = weights**2 * np.array([part.variance for part in strata]) * left / counts
    estimate, variance = float((weights * [part.mean for part in strata]).sum()), float(parts.sum())
    half = 0.0
    if variance:
        half = _student_quantile(confidence, variance**2 / float((parts**2 / (counts - 1)).sum())) * math.sqrt(variance)
    return Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        confidence=_level(confidence),
        standard_error=math.sqrt(variance),
    )


def _student_quantile(confidence: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, (1 - _level(confidence)) / 2))


# --- a difference ---------------------------------------------------------------------------------------------------------------


def paired_difference(lost: int, gained: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """The drop in accuracy between two runs over the same images: (lost - gained)/trials, with Tango's score interval.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design", Statistics
    in Medicine 17, 1998, section 3: all δ with |lost - gained - n δ| ≤ z √(n (2 q + δ (1 - δ))), where q is the most likely share
    of gained images given δ.

    Args:
        lost: images right in the first run and wrong in the second.
        gained: images wrong in the first and right in the second.
        trials: images in all.

    Raises:
        InputError: counts that cannot be.
    """
    n = _counts(0, trials, None)[1]
    for name, value in (("lost", lost), ("gained", gained)):
        if not isinstance(value, Integral) or not 0 <= value <= n:
            raise InputError(f"{name}: expected an integer from 0 to {n}, got {value!r}")
    if lost + gained > n:
        raise InputError(f"lost + gained: expected at most {n} trials, got {lost + gained}")
    estimate = (lost - gained) / n
    z = normal_quantile(confidence)
    error = math.sqrt(max(lost + gained - (lost - gained) ** 2 / n, 0)) / n
    # The lower limit of a drop is the upper limit of the rise, with its sign.
    low, high = -_tango(int(gained), int(lost), n, z), _tango(int(lost), int(gained), n, z)
    return Interval(estimate=estimate, low=low, high=high, confidence=confidence, standard_error=error)


def _tango(b: int, c: int, n: int, z: float) -> float:
    """The upper limit of (b - c)/n."""
    low, high = (b - c) / n, 1.0
    for _ in range(100):
        delta = (low + high) / 2
        linear = (2 * n - b + c) * delta - b - c
        q = (math.sqrt(linear * linear + 8 * n * c * delta * (1 - delta)) - linear) / (4 * n)
        within = n * delta - (b - c) <= z * math.sqrt(max(n * (2 * q + delta * (1 - delta)), 0.0))
        low, high = (delta, high) if within else (low, delta)
    return high


# --- checks ---------------------------------------------------------------------------------------------------------------------


def normal_quantile(confidence: float) -> float:
    """z with P(|Z| ≤ z) = confidence for a standard normal Z.

    Raises:
        InputError: a confidence outside 0 to 1.
    """
    return -NormalDist().inv_cdf((1 - _level(confidence)) / 2)


def _level(confidence: float) -> float:
    if not isinstance(confidence, Real) or not 0 < confidence < 1:
        raise InputError(f"confidence: expected a number between 0 and 1, got {confidence!r}")
    return float(confidence)


def _counts(successes: int, trials: int, population: int | None) -> tuple[int, int]:
    for name, value, least in (("trials", trials, 1), ("successes", successes, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise InputError(f"{name}: expected an integer ≥ {least}, got {value!r}")
    if successes > trials:
        raise InputError(f"successes: expected at most the {trials} trials, got {successes}")
    if population is not None and not (isinstance(population, Integral) and population >= trials):
        raise InputError(f"population: expected at least the {trials} trials, got {population!r}")
    return int(successes), int(trials)


def _left(n: int, population: int | None) -> float:
    return 1.0 if population is None else (population - n) / max(population - 1, 1)


def _array(name: str, given: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(given, np.float64).reshape(-1)
    if not np.isfinite(array).all() or (array < (name == "sizes")).any() or (array != np.floor(array)).any():
        raise InputError(f"{name}: expected integers ≥ {int(name == 'sizes')}, got {array.tolist()}")
    return array
