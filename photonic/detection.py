"""From numbers to light and back: converters, modulators, detectors and the noise that each adds.

A detector samples a current in a bandwidth B, which is to integrate for 1/(2B). Each noise is an object of its own, ``Ideal`` its
absence, and draws from its own random stream. Variances of a mean current I (G. P. Agrawal, Fiber-Optic Communication Systems,
4th ed., section 4.4): 2qIB shot noise, 4kT/R·B thermal noise, RIN·I²·B laser noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed, displaying
from numerics._fields import check_flag, check_integer
from numerics.errors import InputError
from numerics.faults.maps import stream
from photonic._numbers import array, complex_numbers, finite, is_one_of, number, real_numbers, shown
from photonic.imperfections import Ideal
from photonic.link_budget import BOLTZMANN_J_PER_K, ELECTRON_C, WAVELENGTH_NM, check_responsivity

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.complex128]


# --- converters -----------------------------------------------------------------------------------------------------------------


@displaying("step", "largest_code")
@dataclass(frozen=True)
class Converter:
    """A DAC or ADC: values are rounded to the nearest of equally spaced ones; those beyond the range are clipped and counted.

    Attributes:
        bits: of a code.
        full_scale: the largest value.
        signed: the range is −full_scale to full_scale, 2^bits − 1 values with 0 in the middle; else 0 to full_scale, 2^bits.

    Raises:
        InputError: a full scale that is not > 0; bits below 1 (2 if signed) or above 32.
    """

    bits: int
    full_scale: float
    signed: bool = True

    def __post_init__(self) -> None:
        check_flag("signed", self.signed)
        if check_integer("bits", self.bits, 2 if self.signed else 1) > 32:
            raise InputError(f"bits: expected at most 32, got {self.bits}")
        number("full_scale", self.full_scale, above=True)

    @property
    def largest_code(self) -> int:
        """That of full scale."""
        return int(2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1)

    @property
    def step(self) -> float:
        """Distance of neighbouring values."""
        return self.full_scale / self.largest_code

    def convert(self, values: npt.ArrayLike) -> tuple[Floats, int]:
        """Rounded values, in the shape given, and how many were clipped.

        Raises:
            InputError: values that are no finite real numbers.
        """
        given = real_numbers("values", values)
        finite("values", given)
        codes = np.rint(given / self.step)
        least = -self.largest_code if self.signed else 0
        clipped = int(np.count_nonzero((codes < least) | (codes > self.largest_code)))
        return np.clip(codes, least, self.largest_code) * self.step, clipped


def _converted(converter: Converter | Ideal, values: Floats) -> tuple[Floats, int]:
    return (values, 0) if isinstance(converter, Ideal) else converter.convert(values)


# --- modulators -----------------------------------------------------------------------------------------------------------------


@displaying("leak")
@dataclass(frozen=True)
class ExtinctionRatio:
    """A modulator between two arms that do not get the same light: it cannot be turned off.

    Of fields (1 ± ε)/2 in the arms, turned by ±ψ, x = cos ψ gives x + iε·√(1 − x²): largest over least power is 1/ε².

    Attributes:
        decibel: of that ratio, > 0.

    Raises:
        InputError: another number.
    """

    decibel: float

    def __post_init__(self) -> None:
        number("decibel", self.decibel, above=True)

    @property
    def leak(self) -> float:
        """ε."""
        return float(10 ** (-self.decibel / 20))

    def modulated(self, values: Floats) -> Numbers:
        """Field of values in −1 to 1."""
        return values + 1j * self.leak * np.sqrt(np.maximum(1 - values**2, 0))


@displayed
@dataclass(frozen=True)
class Modulated:
    """Light that carries values.

    Attributes:
        field: √W, complex, in the shape of the values; its squared magnitude is power.
        clipped: numbers that were beyond the range of the modulator or its DAC.
    """

    field: Numbers
    clipped: int


@displayed
@dataclass(frozen=True)
class Modulator:
    """Values onto light: real ones by one interferometer, complex ones by two in quadrature.

    Attributes:
        power_w: light of a value of 1.
        extinction: that of each interferometer.
        dac: what drives it, on real and imaginary parts.

    Raises:
        InputError: a power that is not > 0, an object of another class.
    """

    power_w: float
    extinction: ExtinctionRatio | Ideal = field(default_factory=Ideal)
    dac: Converter | Ideal = field(default_factory=Ideal)

    def __post_init__(self) -> None:
        number("power_w", self.power_w, above=True)
        is_one_of("extinction", self.extinction, ExtinctionRatio, Ideal)
        is_one_of("dac", self.dac, Converter, Ideal)

    def modulate(self, values: npt.ArrayLike) -> Modulated:
        """Field √power · value; real and imaginary parts of values are in −1 to 1, others are clipped and counted.

        Raises:
            InputError: values that are no finite numbers.
        """
        given = array("values", values)
        finite("values", given)
        light, clipped = self._driven(given.real.astype(np.float64))
        if given.dtype.kind == "c":
            quadrature, more = self._driven(given.imag.astype(np.float64))
            light, clipped = light + 1j * quadrature, clipped + more
        return Modulated(np.sqrt(self.power_w) * light, clipped)

    def modulate_power(self, values: npt.ArrayLike) -> Modulated:
        """The same where powers carry values from 0 to 1: power_w · (value + ε²·(1 − value)), before any clipping.

        Raises:
            InputError: as ``modulate``.
        """
        given = real_numbers("values", values)
        finite("values", given)
        driven, clipped = _converted(self.dac, given)
        beyond = int(np.count_nonzero((driven < 0) | (driven > 1)))
        return Modulated(np.sqrt(self.power_w) * self._field(np.sqrt(np.clip(driven, 0, 1))), clipped + beyond)

    def _driven(self, values: Floats) -> tuple[Numbers, int]:
        driven, clipped = _converted(self.dac, values)
        return self._field(np.clip(driven, -1, 1)), clipped + int(np.count_nonzero(np.abs(driven) > 1))

    def _field(self, values: Floats) -> Numbers:
        return values.astype(np.complex128) if isinstance(self.extinction, Ideal) else self.extinction.modulated(values)


# --- noise ----------------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class ShotNoise:
    """Electrons are counted one by one: a Poisson number in each sample; where more than ``poisson_below`` are expected, a normal
    deviate of the same mean and variance.

    Raises:
        InputError: ``poisson_below`` negative or too large for exact counts.
    """

    poisson_below: float = 1e6

    def __post_init__(self) -> None:
        number("poisson_below", self.poisson_below)
        if self.poisson_below > 2**53:
            raise InputError(f"poisson_below: expected at most 2^53, which a double counts exactly, got {self.poisson_below!r}")

    def counted(self, electrons: Floats, rng: np.random.Generator) -> Floats:
        """Electrons counted where so many are expected."""
        few = electrons <= self.poisson_below
        found = electrons + np.sqrt(electrons) * rng.standard_normal(electrons.shape)
        found[few] = rng.poisson(electrons[few])
        return found


@displaying("density_a2_per_hz")
@dataclass(frozen=True)
class ThermalNoise:
    """Johnson noise of the input resistance: a current of variance 4kT/R·B.

    Raises:
        InputError: a number that is not > 0.
    """

    resistance_ohm: float
    temperature_k: float = 300.0

    def __post_init__(self) -> None:
        number("resistance_ohm", self.resistance_ohm, above=True)
        number("temperature_k", self.temperature_k, above=True)

    @property
    def density_a2_per_hz(self) -> float:
        """4kT/R."""
        return 4 * BOLTZMANN_J_PER_K * self.temperature_k / self.resistance_ohm


@displayed
@dataclass(frozen=True)
class LaserNoise:
    """Relative intensity noise: all light of a sample, on every port, is stronger or weaker by one factor of variance RIN·B.

    Raises:
        InputError: a negative number.
    """

    rin_per_hz: float

    def __post_init__(self) -> None:
        number("rin_per_hz", self.rin_per_hz)


@displayed
@dataclass(frozen=True)
class DeadDetectors:
    """Photodiodes at these ports give no current from light; their dark current and thermal noise are there.

    Raises:
        InputError: a port that is no integer ≥ 0.
    """

    ports: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.ports, tuple | list):
            raise InputError(f"ports: expected a tuple of integers, got {shown(self.ports)}")
        object.__setattr__(self, "ports", tuple(check_integer("ports", port, 0) for port in self.ports))


# --- detectors ------------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class Reading:
    """What a converter gave.

    Attributes:
        values: in the unit said where it was read.
        clipped: numbers that were beyond its range.
    """

    values: npt.NDArray[Any]
    clipped: int


@displayed
@dataclass(frozen=True)
class Receiver:
    """A photodiode at each port, its input stage and its ADC.

    Attributes:
        responsivity_a_per_w: current from light.
        bandwidth_hz: of the noise; a sample integrates for 1/(2 · bandwidth).
        dark_a: current without light, with shot noise of its own; it is not taken off.
        shot, thermal, laser: noises.
        adc: what reads the current, its full scale in A.
        dead: photodiodes that see nothing; of a homodyne detector, all four.
        wavelength_nm: of the light.

    Raises:
        InputError: a number out of range, a responsivity of more than an electron a photon; an object of another class; laser
            noise of more than 0.15 of the light, which would turn it negative.
    """

    responsivity_a_per_w: float = 1.0
    bandwidth_hz: float = 1e9
    dark_a: float = 0.0
    shot: ShotNoise | Ideal = field(default_factory=Ideal)
    thermal: ThermalNoise | Ideal = field(default_factory=Ideal)
    laser: LaserNoise | Ideal = field(default_factory=Ideal)
    adc: Converter | Ideal = field(default_factory=Ideal)
    dead: DeadDetectors | Ideal = field(default_factory=Ideal)
    wavelength_nm: float = WAVELENGTH_NM

    def __post_init__(self) -> None:
        number("responsivity_a_per_w", self.responsivity_a_per_w, above=True)
        number("wavelength_nm", self.wavelength_nm, above=True)
        check_responsivity(self.responsivity_a_per_w, self.wavelength_nm)
        number("bandwidth_hz", self.bandwidth_hz, above=True)
        number("dark_a", self.dark_a)
        for part in fields(self):
            if part.name in _KINDS:
                is_one_of(part.name, getattr(self, part.name), _KINDS[part.name], Ideal)
        if not isinstance(self.laser, Ideal) and self.laser.rin_per_hz * self.bandwidth_hz > 0.15**2:
            raise InputError(
                f"laser: expected RIN · bandwidth ≤ {0.15**2:g}, got {self.laser.rin_per_hz:g} · {self.bandwidth_hz:g}"
            )

    def variances_a2(self, power_w: npt.ArrayLike) -> dict[str, Floats]:
        """Noise that is on → variance of the current with so much light.

        Raises:
            InputError: powers that are no finite numbers ≥ 0.
        """
        light = self.responsivity_a_per_w * _not_negative(power_w)
        found: dict[str, Floats] = {}
        if not isinstance(self.shot, Ideal):
            found["shot"] = 2 * ELECTRON_C * (light + self.dark_a) * self.bandwidth_hz
        if not isinstance(self.thermal, Ideal):
            found["thermal"] = np.full_like(light, self.thermal.density_a2_per_hz * self.bandwidth_hz)
        if not isinstance(self.laser, Ideal):
            found["laser"] = self.laser.rin_per_hz * self.bandwidth_hz * light**2
        return found

    def currents(self, power_w: npt.ArrayLike, *, seed: int) -> Floats:
        """Currents (A) before the ADC for light (W) on (ports,) or (ports, batch).

        Raises:
            InputError: another shape; a power that is negative or not finite; a seed that is no integer ≥ 0; a dead port beyond
                all.
        """
        return self._currents(_powers(power_w), check_integer("seed", seed, 0), "")

    def read(self, power_w: npt.ArrayLike, *, seed: int) -> Reading:
        """``currents`` through the ADC, in A."""
        return Reading(*_converted(self.adc, self.currents(power_w, seed=seed)))

    def _currents(self, powers: Floats, seed: int, diode: str) -> Floats:
        """One set of photodiodes; all sets of a seed see one laser."""
        current = self.responsivity_a_per_w * powers
        if not isinstance(self.laser, Ideal):
            deviation = np.sqrt(self.laser.rin_per_hz * self.bandwidth_hz)
            factor = 1 + deviation * stream(seed, "laser noise").standard_normal(powers.shape[1:])
            current = current * np.maximum(factor, 0.0)  # beyond 6.6 standard deviations
        if not isinstance(self.dead, Ideal):
            ports = list(self.dead.ports)
            if any(port >= len(current) for port in ports):
                raise InputError(f"dead: expected ports below {len(current)}, got {max(ports)}")
            current = current.copy()
            current[ports] = 0.0
        current = current + self.dark_a
        if not isinstance(self.shot, Ideal):
            electron_a = 2 * ELECTRON_C * self.bandwidth_hz
            current = electron_a * self.shot.counted(current / electron_a, stream(seed, "shot noise", diode))
        if not isinstance(self.thermal, Ideal):
            deviation = np.sqrt(self.thermal.density_a2_per_hz * self.bandwidth_hz)
            current = current + deviation * stream(seed, "thermal noise", diode).standard_normal(powers.shape)
        return current


_KINDS: dict[str, type] = {
    "shot": ShotNoise,
    "thermal": ThermalNoise,
    "laser": LaserNoise,
    "adc": Converter,
    "dead": DeadDetectors,
}


@displayed
@dataclass(frozen=True)
class Homodyne:
    """Complex amplitudes: a 90° hybrid at each port mixes signal E and local oscillator L of one laser onto four photodiodes.

    They get |E + iᵏL|²/4, k = 0…3. The difference of opposite ones is R·Re(E·conj(L)) and R·Im(E·conj(L)): each is read by an
    ADC and divided by R·|L|.

    Attributes:
        local_w: |L|².
        receiver: of each photodiode; its ADC reads differences.

    Raises:
        InputError: a power that is not > 0, an object of another class.
    """

    local_w: float
    receiver: Receiver = field(default_factory=Receiver)

    def __post_init__(self) -> None:
        number("local_w", self.local_w, above=True)
        is_one_of("receiver", self.receiver, Receiver)

    def amplitudes(self, light: npt.ArrayLike, *, seed: int) -> Numbers:
        """√W before the ADC for fields (√W) on (ports,) or (ports, batch).

        Raises:
            InputError: as ``Receiver.currents``.
        """
        real, imag = self._differences(light, seed)
        return np.asarray(real + 1j * imag, np.complex128) / self._gain

    def read(self, light: npt.ArrayLike, *, seed: int) -> Reading:
        """``amplitudes`` through the ADCs, in √W."""
        (real, clipped), (imag, more) = (_converted(self.receiver.adc, part) for part in self._differences(light, seed))
        return Reading((real + 1j * imag) / self._gain, clipped + more)

    @property
    def _gain(self) -> float:
        return float(self.receiver.responsivity_a_per_w * np.sqrt(self.local_w))

    def _differences(self, light: npt.ArrayLike, seed: int) -> tuple[Floats, Floats]:
        given = complex_numbers("light", light)
        if given.ndim not in (1, 2):
            raise InputError(f"light: expected shape (ports,) or (ports, batch), got {given.shape}")
        finite("light", given)
        check_integer("seed", seed, 0)
        local = np.sqrt(self.local_w)
        plus, turned, minus, back = (
            self.receiver._currents(_powers(np.abs(given + 1j**k * local) ** 2 / 4), seed, f"diode {k}") for k in range(4)
        )
        return plus - minus, turned - back


def _powers(power_w: npt.ArrayLike) -> Floats:
    powers = _not_negative(power_w)
    if powers.ndim not in (1, 2):
        raise InputError(f"power_w: expected shape (ports,) or (ports, batch), got {powers.shape}")
    return powers


def _not_negative(power_w: npt.ArrayLike) -> Floats:
    powers = real_numbers("power_w", power_w)
    sound = np.isfinite(powers) & (powers >= 0)
    if not sound.all():
        raise InputError(f"power_w: expected finite powers ≥ 0, got {powers[~sound].flat[0]:g}")
    return powers
