"""The optical power budget: losses from laser to detector, noise at the detector, and the light that wanted bits need.

A detector with n bits tells 2ⁿ levels of its full scale apart when its noise (one standard deviation) is that of rounding to
them, full scale / (2ⁿ·√12); so n = log₂(full scale / (√12·σ)). In a bandwidth B a mean current I has the variance

    σ² = 2·q·I·B + 4·k·T/R·B + RIN·I²·B                shot, thermal and laser noise

(G. P. Agrawal, Fiber-Optic Communication Systems, 4th ed., section 4.4). A sample that integrates for a time t has B = 1/(2t).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hwsim.views.display import displayed_by, displaying
from numerics.errors import InputError

ELECTRON_C = 1.602176634e-19
BOLTZMANN_J_PER_K = 1.380649e-23
PLANCK_J_S = 6.62607015e-34
LIGHT_M_PER_S = 299_792_458.0
WAVELENGTH_NM = 1550.0
"""Where nothing else is said."""


def electron_a_photon(wavelength_nm: float) -> float:
    """Responsivity (A/W) of a detector in which each photon frees one electron, q·λ/(h·c)."""
    return ELECTRON_C * wavelength_nm * 1e-9 / (PLANCK_J_S * LIGHT_M_PER_S)


def check_responsivity(responsivity_a_per_w: float, wavelength_nm: float) -> None:
    """Refuses more than an electron a photon: what multiplies electrons adds noise that is not modelled.

    Raises:
        InputError: the field, what was expected and what was given.
    """
    most = electron_a_photon(wavelength_nm)
    if responsivity_a_per_w > most:
        raise InputError(
            f"responsivity_a_per_w: expected at most {most:.4g}, an electron a photon at {wavelength_nm:g} nm, got "
            f"{responsivity_a_per_w:g}"
        )


def decibels(ratio: float) -> float:
    """A ratio of powers in dB."""
    return 10 * math.log10(ratio)


def ratio(decibel: float) -> float:
    """dB as a ratio of powers; one beyond any power is infinite."""
    return float("inf") if decibel > 3000 else float(10 ** (decibel / 10))


@displaying("most_bits")
@dataclass(frozen=True)
class Detection:
    """A detector, or a balanced pair, with its input stage.

    Attributes:
        responsivity_a_per_w: current from light.
        noise_bandwidth_hz: half the samples a second.
        swing: full scale of the current over that of all light on it: 1 for one detector, 2 for a balanced pair on which two
            equal fields interfere or between which all light moves; less for unequal fields (``interference_swing``).
        thermal_a2_per_hz: 4kT/R of the input stage; 0 where it has none.
        laser_noise_per_hz: relative intensity noise; 0 where the laser has none.
        sensitivity_w: least light that the detector is specified for; 0 for none.
    """

    responsivity_a_per_w: float
    noise_bandwidth_hz: float
    swing: float = 1.0
    thermal_a2_per_hz: float = 0.0
    laser_noise_per_hz: float = 0.0
    sensitivity_w: float = 0.0

    def variances_a2(self, power_w: float) -> dict[str, float]:
        """Source of noise → variance of the current with so much light."""
        current = self.responsivity_a_per_w * power_w
        return {
            "shot noise": 2 * ELECTRON_C * current * self.noise_bandwidth_hz,
            "thermal noise": self.thermal_a2_per_hz * self.noise_bandwidth_hz,
            "laser noise": self.laser_noise_per_hz * current**2 * self.noise_bandwidth_hz,
        }

    def bits(self, power_w: float) -> float:
        """Bits that so much light at full scale gives; 0 where it does not stand out of the noise."""
        if power_w <= 0 or power_w < self.sensitivity_w * (1 - 1e-9):
            return 0.0
        noise = math.sqrt(12 * sum(self.variances_a2(power_w).values()))
        return max(0.0, math.log2(self.swing * self.responsivity_a_per_w * power_w / noise))

    @property
    def most_bits(self) -> float:
        """Bits that no amount of light exceeds: laser noise grows as the signal does."""
        noise = 12 * self.laser_noise_per_hz * self.noise_bandwidth_hz
        return math.log2(self.swing / math.sqrt(noise)) if noise else math.inf

    def least_power_w(self, bits: float) -> float:
        """Light at full scale that gives so many bits.

        Raises:
            InputError: more bits than laser noise allows.
        """
        if bits >= self.most_bits:
            raise InputError(f"bits: laser noise allows less than {self.most_bits:.2f}, however much light; got {bits:g}")
        responsivity, bandwidth = self.responsivity_a_per_w, self.noise_bandwidth_hz
        # (swing·R·P)² / (12·4ⁿ) = σ²(P), a quadratic in P.
        square = responsivity**2 * (self.swing**2 / (12 * 4.0**bits) - self.laser_noise_per_hz * bandwidth)
        linear = 2 * ELECTRON_C * responsivity * bandwidth
        root = math.sqrt(linear**2 + 4 * square * self.thermal_a2_per_hz * bandwidth)
        return max((linear + root) / (2 * square), self.sensitivity_w)

    def limit(self, power_w: float) -> str:
        """What most limits the bits with so much light."""
        if power_w <= self.sensitivity_w:
            return "sensitivity"
        noise = self.variances_a2(power_w)
        return max(noise, key=lambda source: noise[source])

    @property
    def shot_only(self) -> Detection:
        """The same with no noise but that of light itself."""
        return replace(self, thermal_a2_per_hz=0.0, laser_noise_per_hz=0.0, sensitivity_w=0.0)


def interference_swing(ratio_of_powers: float) -> float:
    """Full scale of a balanced pair over its light, where the two fields that interfere on it have powers in this ratio r:
    the currents differ by up to ±2·R·√(P₁·P₂), so 4·√r/(1 + r)."""
    return 4 * math.sqrt(ratio_of_powers) / (1 + ratio_of_powers)


@displayed_by("photonic.cards:path")
@dataclass(frozen=True)
class Path:
    """What light meets from a laser to a detector.

    Attributes:
        loss_db: part of the way → dB.
        share: of the light on a detector at full scale that comes along one such path.
        sources: paths in the machine, each with a laser line of its own.
        layer_db: loss that each further layer would add if light went on to it as it is; 0 where it cannot, as layers that weigh
            light in intensity or multiply two lights begin with modulators.
    """

    loss_db: Mapping[str, float]
    share: float
    sources: int
    layer_db: float = 0.0

    @property
    def total_db(self) -> float:
        """All losses."""
        return sum(self.loss_db.values())


@displayed_by("photonic.cards:link_budget")
@dataclass(frozen=True)
class LinkBudget:
    """Light of a machine, sized for the bits wanted at its detectors.

    Attributes:
        signal: the path of the signals.
        detection: what receives them.
        wanted_bits: at full scale.
        wall_plug_efficiency: light of a laser over its electrical power.
        samples_per_s: results that all detectors give in a second.
        macs_per_sample: products summed in one.
        reference: the path of light that signals interfere with (a local oscillator); None for none.
        largest_line_w: light that a path carries at most; None where nothing is said.

    Raises:
        InputError: bits that no light gives.
    """

    signal: Path
    detection: Detection
    wanted_bits: float
    wall_plug_efficiency: float
    samples_per_s: float
    macs_per_sample: float
    reference: Path | None = None
    largest_line_w: float | None = None
    least_detector_w: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "least_detector_w", self.detection.least_power_w(self.wanted_bits))

    @property
    def paths(self) -> tuple[Path, ...]:
        """That of the signals and, where there is one, that of the light they interfere with."""
        return (self.signal,) if self.reference is None else (self.signal, self.reference)

    def _wanted_w(self, path: Path) -> float:
        """Light launched into a path for the wanted bits."""
        return self.least_detector_w * path.share * ratio(path.total_db)

    @property
    def _received(self) -> float:
        """Light on a detector over what the wanted bits need; all paths are cut alike."""
        if self.largest_line_w is None:
            return 1.0
        return min(1.0, *(self.largest_line_w / self._wanted_w(path) for path in self.paths))

    def launched_w(self, path: Path) -> float:
        """Light launched into a path: for the wanted bits, or for what the path of most light lets through."""
        wanted = self._wanted_w(path)
        if math.isfinite(wanted):
            return wanted * self._received
        return wanted if self.largest_line_w is None else self.largest_line_w

    @property
    def line_w(self) -> float:
        """The most light in one path."""
        return max(self.launched_w(path) for path in self.paths)

    @property
    def detector_w(self) -> float:
        """Light on a detector at full scale."""
        return self.least_detector_w * self._received

    @property
    def bits(self) -> float:
        """Bits that the launched light gives at full scale."""
        return self.detection.bits(self.detector_w)

    def bits_of(self, fill: float, symbols: float = 1.0) -> float:
        """Bits of a result that uses less than the engine offers.

        Args:
            fill: share of the light that carries something.
            symbols: share of the time for which a full sample integrates.
        """
        shorter = replace(self.detection, noise_bandwidth_hz=self.detection.noise_bandwidth_hz / symbols)
        return shorter.bits(self.detector_w * fill)

    def bits_after(self, layers: int) -> float:
        """Bits behind a stack of so many layers that light passes with nothing to restore it in between."""
        return self.detection.bits(self.detector_w / ratio((layers - 1) * self.signal.layer_db))

    def layers_until_starved(self, bits: float, *, most: int = 10_000) -> int:
        """Layers that light passes, one behind the other, before fewer than ``bits`` are left; ``most`` at most."""
        low, high = 0, most + 1  # bits fall with every layer
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.bits_after(middle) >= bits - 1e-9 else (low, middle)
        return low

    @property
    def optical_w(self) -> float:
        """Light of all lasers."""
        return sum(self.launched_w(path) * path.sources for path in self.paths)

    @property
    def electrical_w(self) -> float:
        """Electrical power of all lasers."""
        return self.optical_w / self.wall_plug_efficiency

    @property
    def optical_j_per_mac(self) -> float:
        """Light launched for a product, with every part of the engine in use."""
        return self.optical_w / (self.samples_per_s * self.macs_per_sample)

    @property
    def shot_limit_j_per_mac(self) -> float:
        """Light on the detectors for a product where it has no noise but its own: 12·4ⁿ·q/(R·swing²) a sample."""
        ideal = self.detection.shot_only
        sample_s = 1 / (2 * ideal.noise_bandwidth_hz)
        return ideal.least_power_w(self.wanted_bits) * sample_s / self.macs_per_sample
