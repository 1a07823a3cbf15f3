"""Third stage: noise, given by its standard deviation or by its leakage.

Leakage is the probability that noise moves a number that is on one of ``precision`` levels a unit nearer to another of them:
P(|noise| > 1/(2 · precision)) (AnalogVNN: V. Shah and N. Youngblood, APL Mach. Learn. 1, 2023, doi 10.1063/5.0134156).

>>> round(GaussianNoise(leakage=0.5, bits=4).std, 4)
0.0494
"""

from __future__ import annotations

import math
from abc import abstractmethod
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from numerics.errors import InputError
from photonic._numbers import number
from photonic.analog.precision import levels
from photonic.analog.stages import Backward, RandomStage


class Noise(RandomStage):
    """x + noise of mean 0, drawn for each element and call.

    Attributes:
        std: standard deviation; of ``PoissonNoise``, where |x| = 1.
        backward: ``straight_through`` or ``none``. What is added does not depend on x, so that straight through is exact; of
            ``PoissonNoise`` it is the derivative of the mean.
        seed, fixed_in_eval: as for every ``RandomStage``.

    Raises:
        InputError: not just one of ``std`` or ``leakage``; ``leakage`` without ``precision`` or ``bits``, or these without it; a
            deviation that is not > 0 (no noise is ``Ideal``), a leakage that is not between 0 and 1.
    """

    backwards = ("straight_through", "none")

    def __init__(
        self,
        *,
        std: float | None = None,
        leakage: float | None = None,
        precision: int | None = None,
        bits: int | None = None,
        backward: Backward = "straight_through",
        seed: int | None = None,
        fixed_in_eval: bool = False,
    ) -> None:
        super().__init__(backward, seed=seed, fixed_in_eval=fixed_in_eval)
        if (std is None) == (leakage is None):
            raise InputError(f"std: expected either std or leakage, got {std!r} and {leakage!r}")
        if leakage is None:
            if precision is not None or bits is not None:
                raise InputError("precision: expected none beside std; leakage is what needs it")
            number("std", std, above=True)
            self.std = float(std)  # type: ignore[arg-type]
        else:
            number("leakage", leakage, above=True)
            if leakage >= 1:
                raise InputError(f"leakage: expected above 0 and below 1, got {leakage!r}")
            self.std = self.std_of(float(leakage), levels(precision, bits))

    @classmethod
    @abstractmethod
    def std_of(cls, leakage: float, precision: int) -> float:
        """Standard deviation with that leakage among so many levels."""

    @abstractmethod
    def leakage_at(self, precision: int) -> float:
        """Probability of leaving a level where there are so many of them."""

    @abstractmethod
    def variance(self, x: torch.Tensor) -> torch.Tensor:
        """Of the noise on each of x."""

    def extra_repr(self) -> str:
        """All that was given."""
        return f"std={self.std:.4g}, backward={self.backward!r}, seed={self.seed}"


class AddedNoise(Noise):
    """x + std · n, where n does not depend on x."""

    @abstractmethod
    def unit(self, rng: np.random.Generator, shape: tuple[int, ...], kind: Any) -> Any:
        """Independent numbers of mean 0 and variance 1."""

    def variance(self, x: torch.Tensor) -> torch.Tensor:
        """std²."""
        return torch.full_like(x, self.std**2)

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """x with noise."""
        return torch.add(x, self.drawn(x, self.unit), alpha=self.std)


class GaussianNoise(AddedNoise):
    """Normal deviates: leakage = erfc(1/(2√2 · precision · std))."""

    @classmethod
    def std_of(cls, leakage: float, precision: int) -> float:
        """−1/(2 · precision · Φ⁻¹(leakage/2))."""
        return -0.5 / (precision * NormalDist().inv_cdf(leakage / 2))

    def leakage_at(self, precision: int) -> float:
        """erfc(1/(2√2 · precision · std))."""
        return math.erfc(1 / (2 * math.sqrt(2) * precision * self.std))

    def unit(self, rng: np.random.Generator, shape: tuple[int, ...], kind: Any) -> Any:
        """Standard normal."""
        return rng.standard_normal(shape, kind)


class LaplacianNoise(AddedNoise):
    """Density exp(−|n|/b)/2b with b = std/√2: leakage = exp(−1/(2 · precision · b))."""

    @classmethod
    def std_of(cls, leakage: float, precision: int) -> float:
        """−√2/(2 · precision · ln leakage)."""
        return -math.sqrt(0.5) / (precision * math.log(leakage))

    def leakage_at(self, precision: int) -> float:
        """exp(−1/(√2 · precision · std))."""
        return math.exp(-math.sqrt(0.5) / (precision * self.std))

    def unit(self, rng: np.random.Generator, shape: tuple[int, ...], kind: Any) -> Any:
        """The difference of two exponential deviates is one of these, of variance 2."""
        first, second = rng.standard_exponential(shape, kind), rng.standard_exponential(shape, kind)
        return (first - second) * kind(math.sqrt(0.5))


class UniformNoise(AddedNoise):
    """Uniform within ±w/2, w = √12 · std: leakage = max(0, 1 − 1/(precision · w))."""

    @classmethod
    def std_of(cls, leakage: float, precision: int) -> float:
        """1/(√12 · precision · (1 − leakage))."""
        return 1 / (math.sqrt(12) * precision * (1 - leakage))

    def leakage_at(self, precision: int) -> float:
        """max(0, 1 − 1/(√12 · precision · std))."""
        return max(0.0, 1 - 1 / (math.sqrt(12) * precision * self.std))

    def unit(self, rng: np.random.Generator, shape: tuple[int, ...], kind: Any) -> Any:
        """Within ±√3."""
        return (rng.random(shape, kind) - kind(0.5)) * kind(math.sqrt(12))


class PoissonNoise(Noise):
    """Counted photons: sign(x) · N/photons, N Poisson of mean |x| · photons, photons = 1/std². Its variance is |x| · std².

    Leakage is that of |x| = 1, where it is largest.

    Raises:
        InputError: more than 2^53 photons.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        if self.std**-2 > 2**53:
            raise InputError(f"std: expected at least 2^-26.5 = {2**-26.5:.3g}, so that a double counts, got {self.std:.3g}")

    @property
    def photons(self) -> float:
        """Mean count where |x| = 1."""
        return self.std**-2

    @classmethod
    def std_of(cls, leakage: float, precision: int) -> float:
        """By bisection, with the count's distribution function Q(n + 1, photons) taken at n that are no integers, too."""
        from scipy.optimize import brentq
        from scipy.special import gammaincc

        def excess(log_photons: float) -> float:
            photons = math.exp(log_photons)
            above, below = photons * (1 + 0.5 / precision), photons * (1 - 0.5 / precision)
            return float(1 - gammaincc(above + 1, photons) + gammaincc(below + 1, photons)) - leakage

        most = math.log(2.0**53)
        if excess(most) > 0:
            raise InputError(f"leakage: expected one that 2^53 photons reach at {precision} levels, got {leakage}")
        return math.exp(-0.5 * float(brentq(excess, -20.0, most, xtol=1e-12)))

    def leakage_at(self, precision: int) -> float:
        """1 − P(1 − 1/(2 · precision) < N/photons ≤ 1 + 1/(2 · precision)), counts as they are."""
        from scipy.special import pdtr

        above, below = self.photons * (1 + 0.5 / precision), self.photons * (1 - 0.5 / precision)
        return float(1 - pdtr(math.floor(above), self.photons) + pdtr(math.floor(below), self.photons))

    def variance(self, x: torch.Tensor) -> torch.Tensor:
        """|x|/photons."""
        return x.abs() / self.photons

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """What is counted.

        Raises:
            InputError: numbers that are not finite, or too large to be counted.
        """
        mean = x.abs().double().cpu().numpy() * self.photons
        if mean.size and not mean.max() < 2**62:
            raise InputError(f"x: expected finite numbers of fewer than 2^62 photons, got a mean of {mean.max():g}")
        counts = self.drawn(x, lambda rng, shape, kind: rng.poisson(mean) / self.photons)
        return torch.sign(x) * counts
