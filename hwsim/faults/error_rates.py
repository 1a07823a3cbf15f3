"""Published bit error rates of memories, and what lies between their points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Points:
    """Bit error rates at some stress, the logarithm of the rate linear between them.

    Attributes:
        stress: what makes bits fail, increasing.
        rates: bit error rates there, increasing; above 0 and at most 1.
    """

    stress: tuple[float, ...]
    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.stress) != len(self.rates) or len(self.stress) < 2:
            raise InputError(
                f"points: expected two or more, each with a rate, got {len(self.stress)} and {len(self.rates)} rates"
            )
        rising = all(a < b for values in (self.stress, self.rates) for a, b in pairwise(values))
        if not rising or not self.rates[0] > 0 or self.rates[-1] > 1 or not np.isfinite((*self.stress, *self.rates)).all():
            raise InputError(
                f"points: expected rates of (0, 1] that rise with every step towards failure, got {list(self.rates)}"
            )

    def rate(self, stress: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rates; beyond the points the line through the last two goes on, up to 1."""
        logs = np.log10(self.rates)
        found = np.interp(stress, self.stress, logs)
        for beyond, (a, b) in ((stress < self.stress[0], (0, 1)), (stress > self.stress[-1], (-1, -2))):
            slope = (logs[b] - logs[a]) / (self.stress[b] - self.stress[a])
            found = np.where(beyond, logs[a] + slope * (stress - self.stress[a]), found)
        # 10^log10(r) can miss r by a rounding; at the points the rate is the published one.
        rates = np.minimum(10.0**found, 1.0)
        for at, rate in zip(self.stress, self.rates, strict=True):
            rates = np.where(stress == at, rate, rates)
        return rates

    def stress_for(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of ``rate``, the lines beyond the points included."""
        wanted, logs = np.log10(rates), np.log10(self.rates)
        found = np.interp(wanted, logs, self.stress)
        for beyond, (a, b) in ((wanted < logs[0], (0, 1)), (wanted > logs[-1], (-1, -2))):
            slope = (self.stress[b] - self.stress[a]) / (logs[b] - logs[a])
            found = np.where(beyond, self.stress[a] + slope * (wanted - logs[a]), found)
        return np.asarray(found)


def check_rates(name: str, rates: Any) -> NDArray[np.float64]:
    """Rates as an array.

    Raises:
        InputError: one that is not a number above 0 and at most 1.
    """
    array = np.asarray(rates, np.float64)
    if not ((array > 0) & (array <= 1)).all():
        raise InputError(f"{name}: expected a rate above 0 and at most 1, got {rates!r}")
    return array


def positive(name: str, values: Any) -> NDArray[np.float64]:
    """Values as an array.

    Raises:
        InputError: one that is not a finite number above 0.
    """
    array = np.asarray(values, np.float64)
    if array.size and not (np.isfinite(array).all() and (array > 0).all()):
        raise InputError(f"{name}: expected numbers above 0, got {values!r}")
    return array


@cache
def published(memory: str) -> Mapping[str, Mapping[str, Any]]:
    """The entries of ``data/bit_error_rates.yaml`` for ``sram`` or ``dram``."""
    import yaml

    text = resources.files("hwsim").joinpath("data/bit_error_rates.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)[memory]
    return found


def point_rate(point: Mapping[str, Any], entry: Mapping[str, Any]) -> float:
    """The rate of a point of an entry."""
    return float(point["ber"] if "ber" in point else point["faulty_bits"] / entry["memory_bits"])
