"""A histogram of fixed size over any number of batches, whose bins depend on the values only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._display import displayed_by
from numerics.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 4096
"""Bins on each side of zero. The histogram ends at a power of two, so at least half of them lie below the largest magnitude."""


def as_doubles(x: Any) -> NDArray[np.float64]:
    """An array or tensor as an array of 64-bit floats."""
    return np.asarray(x.detach().cpu().double().numpy() if hasattr(x, "detach") else x, dtype=np.float64)


@displayed_by("numerics._cards:histogram")
class Histogram:
    """Counts of a tensor's values in bins of equal width, over any number of batches, in one place of fixed size.

    The bins end at ±2^k, the smallest power of two above every magnitude seen. When k grows, neighbouring bins are joined, so the
    counts depend on the values only, never on how they came in batches.

    Attributes:
        counts: values in each bin, from −2^k to 2^k; zeros are counted apart. Shape (2 · bins,), int64.
        zeros: values that are zero.
        low, high: smallest and largest value; ∞ and −∞ where nothing was seen.
    """

    def __init__(self, bins: int = BINS) -> None:
        if bins < 2 or bins & (bins - 1):
            raise InputError(f"bins: expected a power of two of at least 2, got {bins}")
        self.counts = np.zeros(2 * bins, np.int64)
        self.zeros = 0
        self.low, self.high = math.inf, -math.inf
        self._exponent: int | None = None

    @property
    def bins(self) -> int:
        """Bins on each side of zero."""
        return len(self.counts) // 2

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self._exponent or 0) / self.bins

    @property
    def total(self) -> int:
        """How many values were seen."""
        return int(self.counts.sum()) + self.zeros

    def add(self, x: Any) -> None:
        """Count the values of an array or tensor of any shape.

        Raises:
            InputError: a value that is not finite.
        """
        values = as_doubles(x).ravel()
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"x: calibration needs finite values, got {low if not math.isfinite(low) else high}")
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if largest > 0.0:
            self._grow(math.frexp(largest)[1])
        nonzero = values[values != 0.0]
        self.zeros += values.size - nonzero.size
        index = np.floor(nonzero / self.width).astype(np.int64) + self.bins
        self.counts += np.bincount(index, minlength=2 * self.bins)

    def _grow(self, exponent: int) -> None:
        """Cover ±2^exponent."""
        if self._exponent is None:
            self._exponent = exponent
        while self._exponent < exponent:
            half = self.bins // 2
            joined = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[half : 3 * half] = joined
            self._exponent += 1

    def largest(self, *, signed: bool = True) -> float:
        """The largest magnitude; without ``signed``, the largest value.

        Raises:
            InputError: nothing was seen.
        """
        if self.total == 0:
            raise InputError("calibration: no values seen; give at least one batch")
        return max(self.high, -self.low) if signed else self.high

    def magnitudes(self) -> NDArray[np.int64]:
        """Counts of |x| from 0 to 2^k; zeros apart. Shape (bins,)."""
        return self.counts[self.bins :] + self.counts[self.bins - 1 :: -1]

    def percentile(self, percent: float) -> float:
        """The upper end of the bin of |x| below which ``percent`` of the values lie: exact to one bin's width."""
        if percent == 100.0:
            return self.largest()
        below = self.zeros + np.cumsum(self.magnitudes())
        rank = percent / 100.0 * below[-1]
        return 0.0 if rank <= self.zeros else float(np.searchsorted(below, rank) + 1) * self.width

    def range(self, percent: float) -> tuple[float, float]:
        """Ends of the bins between which ``percent`` of the values lie, as many below as above; exact to one bin's width."""
        self.largest()
        if percent == 100.0:
            return self.low, self.high
        counts = np.insert(self.counts, self.bins, self.zeros)
        edges = np.insert(np.arange(-self.bins, self.bins + 1) * self.width, self.bins, 0.0)
        rank = (100.0 - percent) / 200.0 * self.total
        below = int(np.searchsorted(np.cumsum(counts), rank, side="right"))
        above = int(np.searchsorted(np.cumsum(counts[::-1]), rank, side="right"))
        return max(float(edges[below]), self.low), min(float(edges[::-1][above]), self.high)

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Middles of the bins that hold values, and their counts."""
        used = np.flatnonzero(self.counts)
        return (used.astype(np.float64) - self.bins + 0.5) * self.width, self.counts[used]
