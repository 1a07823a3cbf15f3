"""SRAM below its nominal voltage: bit error rate and energy of an access.

>>> from hwsim.faults.voltage import get_curve
>>> curve = get_curve("sram_65nm")
>>> round(curve.ber(0.525), 4), round(curve.access_energy_ratio(0.525), 3)
(0.006, 0.276)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, overload

import numpy as np

from hwsim.faults.error_rates import Points, check_rates, point_rate, positive, published
from hwsim.views.display import displayed_by
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray


@displayed_by("hwsim.views.study_cards:error_curve")
@dataclass(frozen=True, kw_only=True)
class SramCurve:
    """Bit error rate of an SRAM against its supply voltage.

    The logarithm of the rate is linear in the voltage between points. A rate beyond them is an error unless it is asked for with
    ``extend``; between the highest point and ``error_free_v`` the line of the highest two goes on.

    Attributes:
        name: of the curve.
        volts: of the points, falling.
        rates: bit error rates there, rising.
        nominal_v: the voltage the memory is made for.
        error_free_v: where and above which no bit failed; None where the source does not say.
        zero_share: share of the failing cells that read 0 whatever was written; the others read 1.
        technology, source: what was measured, and who published it.
        origins: how each point came here: ``data``, ``abstract``, ``secondary``, ``memory``, or as the user says.
    """

    name: str
    volts: tuple[float, ...]
    rates: tuple[float, ...]
    nominal_v: float
    error_free_v: float | None = None
    zero_share: float = 0.5
    technology: str = ""
    source: str = ""
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positive("volts", self.volts)
        positive("nominal_v", self.nominal_v)
        if not 0 <= self.zero_share <= 1:
            raise InputError(f"zero_share: expected a share from 0 to 1, got {self.zero_share!r}")
        _ = self._points
        top = self.volts[0]
        if self.error_free_v is not None and not top < self.error_free_v <= self.nominal_v:
            raise InputError(
                f"error_free_v: expected above {top:g} V and at most {self.nominal_v:g} V, got {self.error_free_v!r}"
            )
        if self.error_free_v is None and top > self.nominal_v:
            raise InputError(f"nominal_v: expected at least the highest point, {top:g} V, got {self.nominal_v!r}")

    @cached_property
    def _points(self) -> Points:
        return Points(tuple(-v for v in self.volts), self.rates)

    @overload
    def ber(self, volts: float, *, extend: bool = False) -> float: ...
    @overload
    def ber(self, volts: NDArray[np.float64] | Sequence[float], *, extend: bool = False) -> NDArray[np.float64]: ...
    def ber(self, volts: float | NDArray[np.float64] | Sequence[float], *, extend: bool = False) -> float | NDArray[np.float64]:
        """Bit error rate at one voltage or more; 0 at ``error_free_v`` and above.

        Args:
            volts: of the supply.
            extend: continue the line of the last two points beyond them.

        Raises:
            InputError: no voltage; one beyond the points, without ``extend``.
        """
        given = positive("volts", volts)
        top = self.volts[0] if self.error_free_v is None else np.inf
        beyond = (given < self.volts[-1]) | (given > top)
        if beyond.any() and not extend:
            free = "" if self.error_free_v is None else f" (none fail from {self.error_free_v:g} V on)"
            raise InputError(
                f"volts: {self.name} has rates from {self.volts[-1]:g} to {self.volts[0]:g} V{free}, "
                f"got {float(given[beyond].flat[0]):g}; extend=True continues its line"
            )
        rates = self._points.rate(-given)
        if self.error_free_v is not None:
            rates = np.where(given >= self.error_free_v, 0.0, rates)
        return float(rates) if given.ndim == 0 else rates

    @overload
    def voltage_for(self, ber: float, *, extend: bool = False) -> float: ...
    @overload
    def voltage_for(self, ber: NDArray[np.float64] | Sequence[float], *, extend: bool = False) -> NDArray[np.float64]: ...
    def voltage_for(
        self, ber: float | NDArray[np.float64] | Sequence[float], *, extend: bool = False
    ) -> float | NDArray[np.float64]:
        """The voltage of one bit error rate or more; never above ``error_free_v``, where none is left.

        Raises:
            InputError: no rate; one beyond those of the points, without ``extend``.
        """
        given = check_rates("ber", ber)
        beyond = (given < self.rates[0]) | (given > self.rates[-1])
        if beyond.any() and not extend:
            raise InputError(
                f"ber: {self.name} has rates from {self.rates[0]:.3g} to {self.rates[-1]:.3g}, "
                f"got {float(given[beyond].flat[0]):g}; extend=True continues its line"
            )
        volts = -self._points.stress_for(given)
        if (volts <= 0).any():
            raise InputError(f"ber: the line of {self.name} reaches {given.max():g} at no voltage above 0")
        volts = np.minimum(volts, np.inf if self.error_free_v is None else self.error_free_v)
        return float(volts) if given.ndim == 0 else volts

    def access_energy_ratio(self, volts: float, *, reference_v: float | None = None) -> float:
        """Energy of an access over that at ``reference_v`` (None: ``nominal_v``): V² of the charge C V that is moved through V.

        Leakage is not in it; see ``leakage_power_ratio``. Clocked slower at the lower voltage, an access leaks for longer.
        """
        reference = self.nominal_v if reference_v is None else reference_v
        return float(positive("volts", volts) / positive("reference_v", reference)) ** 2

    def leakage_power_ratio(self, volts: float, *, reference_v: float | None = None) -> float:
        """The most that leakage power can be over that at ``reference_v``: V, as if the leaking current stayed the same.

        It falls with V as well (drain-induced barrier lowering), by how much no source here says.
        """
        reference = self.nominal_v if reference_v is None else reference_v
        return float(positive("volts", volts) / positive("reference_v", reference))


def curve_names() -> list[str]:
    """The published curves."""
    return list(published("sram"))


@cache
def get_curve(name: str) -> SramCurve:
    """A published curve of ``data/bit_error_rates.yaml``.

    Raises:
        InputError: an unknown name.
    """
    entries = published("sram")
    if name not in entries:
        raise unknown_name("curve", name, entries)
    entry = entries[name]
    points = sorted(entry["points"], key=lambda point: -point["volts"])
    return SramCurve(
        name=name,
        volts=tuple(point["volts"] for point in points),
        rates=tuple(point_rate(point, entry) for point in points),
        nominal_v=entry["nominal_v"],
        error_free_v=entry.get("error_free_v"),
        zero_share=entry["zero_share"],
        technology=entry["technology"],
        source=entry["source"],
        origins=tuple(point["origin"] for point in points),
    )
