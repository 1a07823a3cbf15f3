"""How often each integer occurs among the operands that are recoded, and the cycles that follow from it.

A group of lanes takes its operands together: a *step*. It ends when the lane with the most non-zero digits is done or, where all
lanes are at one bit weight, after the weights at which any lane has a digit; after one cycle where there is none. Groups wait for
one another after a *window* of steps. All of it is exact for lanes whose operands are drawn independently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.bit_serial.booth import check_fits
from accelerators.bit_serial.encodings import Encoding, encoding
from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

DISTRIBUTIONS = ("uniform", "gaussian")
GAUSSIAN_SAMPLES = 1 << 18
"""Of a tensor whose largest magnitude scales it, where no other number is given."""


@displayed
@dataclass(frozen=True)
class CodeDistribution:
    """Probability of each integer of ``bits`` bits, −2^(bits−1) first.

    Raises:
        InputError: another number of probabilities, one below 0, or a sum that is not 1.
    """

    bits: int
    probabilities: tuple[float, ...] = field(repr=False)

    def __post_init__(self) -> None:
        p = np.asarray(self.probabilities)
        if p.shape != (1 << self.bits,) or not (p >= 0).all() or abs(p.sum() - 1) > 1e-9:
            raise InputError(
                f"probabilities: expected {1 << self.bits} of at least 0 that add up to 1, got {p.size} that make {p.sum():g}"
            )
        object.__setattr__(self, "_hash", hash((self.bits, self.probabilities)))

    def __hash__(self) -> int:
        return int(self._hash)  # type: ignore[attr-defined]

    @classmethod
    def named(cls, name: str, bits: int = 8, *, samples: int = GAUSSIAN_SAMPLES) -> CodeDistribution:
        """``uniform`` over all codes, or ``gaussian``: normal numbers, scaled so that the largest magnitude of ``samples`` of
        them (its median) is the largest code, and rounded.

        Raises:
            InputError: an unknown name, fewer than one sample.
        """
        if name not in DISTRIBUTIONS:
            raise unknown_name("distribution", name, DISTRIBUTIONS)
        if samples < 1:
            raise InputError(f"samples: expected an integer ≥ 1, got {samples!r}")
        size, half = 1 << bits, 1 << (bits - 1)
        if name == "uniform":
            return cls(bits, (1 / size,) * size)
        normal = NormalDist()
        # P(all |x| ≤ t) = (2Φ(t) − 1)^samples = 1/2
        largest = normal.inv_cdf((1 + 0.5 ** (1 / samples)) / 2)
        edges = [normal.cdf((c + 0.5) / (half - 1) * largest) for c in range(-half, half - 1)]
        return cls(bits, tuple(np.diff([0.0, *edges, 1.0]).tolist()))

    @classmethod
    def of(cls, codes: Any, bits: int = 8) -> CodeDistribution:
        """That of an array of integers.

        Raises:
            InputError: no integers, none at all, or one that ``bits`` do not hold.
        """
        values, half = np.asarray(codes), 1 << (bits - 1)
        if not values.size:
            raise InputError("codes: expected at least one, got none")
        check_fits("codes", values, bits)
        counts = np.bincount(values.reshape(-1).astype(np.int64) + half, minlength=1 << bits)
        return cls(bits, tuple((counts / values.size).tolist()))

    def with_density(self, density: float) -> CodeDistribution:
        """The same with this share of non-zero codes.

        Raises:
            InputError: a share outside 0 to 1; one above 0 of codes that are all 0.
        """
        if not 0 <= density <= 1:
            raise InputError(f"density: expected a share from 0 to 1, got {density!r}")
        p, zero = np.array(self.probabilities), 1 << (self.bits - 1)
        rest = 1 - p[zero]
        if density and rest <= 0:
            raise InputError(f"density: expected 0 where every code is 0, got {density!r}")
        p = p * (density / rest) if density else p * 0
        p[zero] = 1 - density
        return CodeDistribution(self.bits, tuple((p / p.sum()).tolist()))

    def mean_digits(self, name: str = "booth") -> float:
        """Mean number of non-zero digits of an operand in an encoding."""
        masks = _mask_probabilities(self, encoding(name, self.bits))
        return float(sum(p * int(mask).bit_count() for mask, p in enumerate(masks)))


@lru_cache(256)
def _mask_probabilities(distribution: CodeDistribution, how: Encoding) -> NDArray[np.float64]:
    """(2^places,): probability that the digits which are not 0 are those of the mask."""
    half = 1 << (distribution.bits - 1)
    nonzero = how.digits(np.arange(-half, half)) != 0
    masks = nonzero @ (1 << np.arange(how.places))
    return np.bincount(masks, np.array(distribution.probabilities), 1 << how.places).astype(np.float64)


@lru_cache(1024)
def step_pmf(distribution: CodeDistribution, how: Encoding, lanes: int, shared_weight: bool) -> NDArray[np.float64]:
    """Probability that a step of ``lanes`` lanes takes 0, 1, … ``places`` cycles; that of 0 is 0."""
    masks = _mask_probabilities(distribution, how)
    sizes = np.array([m.bit_count() for m in range(len(masks))])
    if shared_weight:
        inside = masks.copy()  # P(mask within S), then of all lanes, then P(the union is S)
        for place in range(how.places):
            pairs = inside.reshape(-1, 2, 1 << place)
            pairs[:, 1] += pairs[:, 0]
        inside **= lanes
        for place in range(how.places):
            pairs = inside.reshape(-1, 2, 1 << place)
            pairs[:, 1] -= pairs[:, 0]
        found = np.bincount(sizes, inside, how.places + 1)
    else:
        below = np.cumsum(np.bincount(sizes, masks, how.places + 1))
        found = np.diff(np.minimum(below, 1) ** lanes, prepend=0)
    found[1] += found[0]
    found[0] = 0
    return np.maximum(found, 0.0).astype(np.float64)


@lru_cache(1024)
def window_cycles(
    distribution: CodeDistribution, how: Encoding, groups: tuple[tuple[int, int, int], ...], steps: int, shared_weight: bool
) -> float:
    """Mean cycles of a window: the slowest group's.

    Args:
        groups: (how many, lanes of all steps but the last, lanes of the last) of each kind of group.
        steps: of the window.
    """
    below: NDArray[np.float64] | None = None
    for count, lanes, last in groups:
        total = _power(step_pmf(distribution, how, lanes, shared_weight), steps - 1)
        total = np.convolve(total, step_pmf(distribution, how, last, shared_weight))
        one = np.minimum(np.cumsum(total), 1) ** count
        below = one if below is None else below * one
    assert below is not None
    return float((1 - below).sum())


def _power(pmf: NDArray[np.float64], times: int) -> NDArray[np.float64]:
    """Distribution of the sum of ``times`` independent draws."""
    found, square = np.ones(1), pmf
    while times:
        if times & 1:
            found = np.convolve(found, square)
        square, times = (np.convolve(square, square) if times > 1 else square), times >> 1
    return found


def step_cycles(nonzero: NDArray[np.bool_], *, shared_weight: bool) -> NDArray[np.int64]:
    """Cycles of steps: ``nonzero`` says which digits are not 0, (…, lanes, places); int64 of shape (…), at least 1."""
    counts = nonzero.any(axis=-2).sum(axis=-1) if shared_weight else nonzero.sum(axis=-1).max(axis=-1)
    return np.maximum(counts, 1).astype(np.int64)


def mean_step(distribution: CodeDistribution, name: str = "booth", *, lanes: int = 1, shared_weight: bool = False) -> float:
    """Mean cycles of a step of ``lanes`` lanes: the gain that lockstep leaves."""
    pmf = step_pmf(distribution, encoding(name, distribution.bits), lanes, shared_weight)
    return float(pmf @ np.arange(len(pmf)))
