"""DRAM that is refreshed less often than the standard says: bit error rate and refresh energy.

A cell that leaks loses its charge. A true cell holds 1 as charge and reads 0 without it; an anti-cell the other way round (Liu et
al., "An experimental study of data retention behavior in modern DRAM devices", ISCA 2013, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, overload

import numpy as np

from hwsim.dram.spec import DramSpec
from hwsim.faults.error_rates import Points, check_rates, point_rate, positive, published
from hwsim.views.display import displayed_by
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

HALVING_C = 10.0
"""Degrees by which retention times halve. A rule of thumb: JEDEC has DRAM refreshed twice as often above 85 °C (JESD79-3F, -4C),
and Liu et al., ISCA 2013, fit exp(-0.0625 ΔT), which halves in 11.1 °C (from memory)."""

STANDARD_INTERVAL_S = 0.064
"""Within which every row is refreshed (JESD79-3F, JESD79-4C; up to 85 °C)."""


@displayed_by("hwsim.views.study_cards:error_curve")
@dataclass(frozen=True, kw_only=True)
class RetentionCurve:
    """Bit error rate of a DRAM against the interval at which a row is refreshed.

    The logarithm of the rate is linear in that of the interval between points; beyond them as in ``SramCurve``. At another
    temperature intervals count as if retention times halved with every ``HALVING_C`` degrees.

    Attributes:
        name: of the curve.
        intervals_s: of the points, rising.
        rates: bit error rates there, rising.
        temperature_c: at which they hold; None where the source does not say.
        nominal_interval_s: the standard's.
        error_free_interval_s: up to which no bit failed; None where the source does not say.
        halving_c: degrees by which retention times halve.
        technology, source, origins: as in ``SramCurve``.
    """

    name: str
    intervals_s: tuple[float, ...]
    rates: tuple[float, ...]
    temperature_c: float | None = None
    nominal_interval_s: float = STANDARD_INTERVAL_S
    error_free_interval_s: float | None = None
    halving_c: float = HALVING_C
    technology: str = ""
    source: str = ""
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positive("intervals_s", self.intervals_s)
        positive("nominal_interval_s", self.nominal_interval_s)
        positive("halving_c", self.halving_c)
        _ = self._points
        if self.error_free_interval_s is not None and not 0 < self.error_free_interval_s < self.intervals_s[0]:
            raise InputError(
                f"error_free_interval_s: expected above 0 and below {self.intervals_s[0]:g} s, got {self.error_free_interval_s!r}"
            )

    @cached_property
    def _points(self) -> Points:
        return Points(tuple(float(np.log2(t)) for t in self.intervals_s), self.rates)

    def _stretch(self, temperature_c: float | None) -> float:
        """What an interval counts for more at a temperature than at the curve's."""
        if temperature_c is None:
            return 1.0
        if self.temperature_c is None:
            raise InputError(f"temperature_c: the source of {self.name} states none; leave it out, got {temperature_c!r}")
        return float(2.0 ** ((temperature_c - self.temperature_c) / self.halving_c))

    @overload
    def ber(self, interval_s: float, *, temperature_c: float | None = None, extend: bool = False) -> float: ...
    @overload
    def ber(
        self, interval_s: NDArray[np.float64] | Sequence[float], *, temperature_c: float | None = None, extend: bool = False
    ) -> NDArray[np.float64]: ...
    def ber(
        self,
        interval_s: float | NDArray[np.float64] | Sequence[float],
        *,
        temperature_c: float | None = None,
        extend: bool = False,
    ) -> float | NDArray[np.float64]:
        """Share of the cells that lose their charge within an interval; 0 up to ``error_free_interval_s``.

        Args:
            interval_s: between refreshes of a row.
            temperature_c: of the DRAM (None: the curve's).
            extend: continue the line of the last two points beyond them.

        Raises:
            InputError: no interval; one that counts for more or less than those of the points, without ``extend``.
        """
        given = positive("interval_s", interval_s) * self._stretch(temperature_c)
        low = self.intervals_s[0] if self.error_free_interval_s is None else 0.0
        beyond = (given < low) | (given > self.intervals_s[-1])
        if beyond.any() and not extend:
            at = "" if self.temperature_c is None else f" at {self.temperature_c:g} °C"
            raise InputError(
                f"interval_s: {self.name} has rates from {self.intervals_s[0]:g} to {self.intervals_s[-1]:g} s{at}, "
                f"got {float(given[beyond].flat[0]):g}; extend=True continues its line"
            )
        rates = self._points.rate(np.log2(given))
        if self.error_free_interval_s is not None:
            rates = np.where(given <= self.error_free_interval_s, 0.0, rates)
        return float(rates) if given.ndim == 0 else rates

    def interval_for(self, ber: float, *, temperature_c: float | None = None, extend: bool = False) -> float:
        """The interval of a bit error rate; never below that up to which none fails.

        Raises:
            InputError: no rate; one beyond those of the points, without ``extend``.
        """
        given = check_rates("ber", ber)
        if not extend and not self.rates[0] <= ber <= self.rates[-1]:
            raise InputError(
                f"ber: {self.name} has rates from {self.rates[0]:.3g} to {self.rates[-1]:.3g}, got {ber:g}; "
                "extend=True continues its line"
            )
        interval = max(float(2.0 ** self._points.stress_for(given)), self.error_free_interval_s or 0.0)
        return interval / self._stretch(temperature_c)

    def refresh_energy_ratio(self, interval_s: float) -> float:
        """Energy of refreshing over that at the nominal interval: each refresh costs the same, and there are fewer."""
        return float(self.nominal_interval_s / positive("interval_s", interval_s))


def refresh_power_w(spec: DramSpec, interval_s: float = STANDARD_INTERVAL_S) -> float:
    """Power that all ranks of a DRAM spend on refreshes when each row has one every ``interval_s``.

    At ``STANDARD_INTERVAL_S`` a refresh comes every ``t_refi``; a longer interval spreads them as much.
    """
    stretched = float(positive("interval_s", interval_s)) / STANDARD_INTERVAL_S
    if spec.refresh == "none":
        return 0.0
    each_s = spec.cycles["t_refi"] / spec.clock_hz
    return spec.units * spec.ranks * spec.energy.refresh_pj * 1e-12 / (each_s * stretched)


def retention_names() -> list[str]:
    """The published curves."""
    return list(published("dram"))


@cache
def get_retention(name: str) -> RetentionCurve:
    """A published curve of ``data/bit_error_rates.yaml``.

    Raises:
        InputError: an unknown name.
    """
    entries = published("dram")
    if name not in entries:
        raise unknown_name("curve", name, entries)
    entry = entries[name]
    points = sorted(entry["points"], key=lambda point: point["interval_s"])
    return RetentionCurve(
        name=name,
        intervals_s=tuple(point["interval_s"] for point in points),
        rates=tuple(point_rate(point, entry) for point in points),
        temperature_c=entry.get("temperature_c"),
        nominal_interval_s=entry["nominal_interval_s"],
        error_free_interval_s=entry.get("error_free_interval_s"),
        technology=entry["technology"],
        source=entry["source"],
        origins=tuple(point["origin"] for point in points),
    )
