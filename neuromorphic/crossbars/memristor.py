"""Memristive devices: what a cell that was told to hold a conductance holds, and what a read of it gives.

Each imperfection is an object of its own; the ``Ideal…`` one is its absence. Each draws from its own random stream, so that one
turned on or off leaves the draws of the others as they were.

>>> import numpy as np
>>> device = Memristor(1e-6, 100e-6, levels=Levels(4), programming=GaussianProgramming(2e-6))
>>> cells = device.program(np.full(3, 33e-6), seed=1)
>>> (cells.conductance_siemens * 1e6).round(2).tolist()
[33.32, 35.56, 35.78]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hwsim.views.display import displayed, displaying
from neuromorphic._checks import number, whole
from numerics.errors import InputError
from numerics.faults.maps import stream

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


# --- levels ---------------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class IdealLevels:
    """Any conductance of the range can be aimed at."""


@displayed
@dataclass(frozen=True)
class Levels:
    """``count`` conductances at equal distances, from the lowest to the highest, can be aimed at.

    Raises:
        InputError: fewer than two.
    """

    count: int

    def __post_init__(self) -> None:
        whole("levels", self.count, 2)


# --- programming ----------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class IdealProgramming:
    """A cell holds what it was told to hold."""

    def pulse(self, target: Floats, g_max: float, rng: np.random.Generator) -> Floats:
        """What one pulse leaves, in the shape of ``target``."""
        return target.copy()


@displayed
@dataclass(frozen=True)
class GaussianProgramming:
    """A pulse leaves a normal deviate around the target; a negative conductance becomes 0.

    Attributes:
        sigma_siemens: its standard deviation; or coefficients (c₀, c₁, …) of Σ c_k (g/g_max)^k, which is it at a target g (0
            where that is negative), the form in which it is published for phase-change memory (V. Joshi et al., Nature
            Communications 11, 2473, 2020).

    Raises:
        InputError: a single one that is negative, or one that is not finite.
    """

    sigma_siemens: float | tuple[float, ...]

    def __post_init__(self) -> None:
        if isinstance(self.sigma_siemens, tuple):
            for k, coefficient in enumerate(self.sigma_siemens):
                number(f"sigma_siemens[{k}]", coefficient, -np.inf)
            if not self.sigma_siemens:
                raise InputError("sigma_siemens: expected a number or at least one coefficient, got ()")
        else:
            number("sigma_siemens", self.sigma_siemens)

    def deviation(self, target: Floats, g_max: float) -> Floats:
        """Standard deviation at each target."""
        coefficients = self.sigma_siemens if isinstance(self.sigma_siemens, tuple) else (self.sigma_siemens,)
        return np.maximum(np.polynomial.polynomial.polyval(target / g_max, coefficients), 0.0)

    def pulse(self, target: Floats, g_max: float, rng: np.random.Generator) -> Floats:
        """What one pulse leaves, in the shape of ``target``."""
        return np.maximum(target + self.deviation(target, g_max) * rng.standard_normal(target.shape), 0.0)


@displayed
@dataclass(frozen=True)
class LognormalProgramming:
    """A pulse leaves the target times exp(σz), z standard normal: its median is the target, its mean target · exp(σ²/2).

    Attributes:
        sigma: of the logarithm.

    Raises:
        InputError: a negative one.
    """

    sigma: float

    def __post_init__(self) -> None:
        number("sigma", self.sigma)

    def pulse(self, target: Floats, g_max: float, rng: np.random.Generator) -> Floats:
        """What one pulse leaves, in the shape of ``target``."""
        found: Floats = target * np.exp(self.sigma * rng.standard_normal(target.shape))
        return found


@displayed
@dataclass(frozen=True)
class WriteVerify:
    """A cell is pulsed until a read of it is within ``tolerance_siemens`` of the target, or ``attempts`` are used up; it then
    keeps what the last pulse left.

    Attributes:
        programming: of one pulse.
        tolerance_siemens: largest accepted distance, > 0.
        attempts: pulses at most.
        reading: of the verifying reads.

    Raises:
        InputError: a tolerance or number of attempts out of range.
    """

    programming: GaussianProgramming | LognormalProgramming
    tolerance_siemens: float
    attempts: int
    reading: Reading = field(default_factory=lambda: IdealReading())

    def __post_init__(self) -> None:
        number("tolerance_siemens", self.tolerance_siemens, above=True)
        whole("attempts", self.attempts, 1)

    def write(self, target: Floats, g_max: float, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.int64]]:
        """What the last pulse leaves and how many a cell took, both in the shape of ``target``."""
        aim = target.ravel()
        found = self.programming.pulse(aim, g_max, rng)
        pulses = np.ones(aim.shape, np.int64)
        waiting = np.arange(aim.size)
        for _ in range(self.attempts - 1):
            now = found[waiting]
            seen = now + self.reading.deviation(now, g_max, 0.0) * rng.standard_normal(now.shape)
            waiting = waiting[np.abs(seen - aim[waiting]) > self.tolerance_siemens]
            if not waiting.size:
                break
            found[waiting] = self.programming.pulse(aim[waiting], g_max, rng)
            pulses[waiting] += 1
        return found.reshape(target.shape), pulses.reshape(target.shape)


# --- reading --------------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class IdealReading:
    """A read gives the conductance of the cell."""

    def deviation(self, conductance: Floats, g_max: float, time_s: float) -> Floats:
        """Standard deviation of a read of each cell."""
        return np.zeros(conductance.shape)


@displayed
@dataclass(frozen=True)
class GaussianReading:
    """Each read strays by a normal deviate of its own; its variance is sigma² + (share · g)².

    Attributes:
        sigma_siemens: the part that is the same for all cells.
        share: the part proportional to the conductance.

    Raises:
        InputError: a negative one.
    """

    sigma_siemens: float = 0.0
    share: float = 0.0

    def __post_init__(self) -> None:
        number("sigma_siemens", self.sigma_siemens)
        number("share", self.share)

    def deviation(self, conductance: Floats, g_max: float, time_s: float) -> Floats:
        """Standard deviation of a read of each cell."""
        found: Floats = np.hypot(self.sigma_siemens, self.share * conductance)
        return found


@displayed
@dataclass(frozen=True)
class FlickerReading:
    """1/f noise: σ = g · Q · √(ln((t + t_read)/(2 t_read))), Q = min(q · (g/g_max)^−exponent, q_max), t since programming (S. R.
    Nandakumar et al., "Phase-change memory models for deep learning training and inference", ICECS 2019; the defaults are its
    figures).

    Raises:
        InputError: a number out of range.
    """

    q: float = 0.0088
    exponent: float = 0.65
    q_max: float = 0.2
    read_time_s: float = 250e-9

    def __post_init__(self) -> None:
        for name in ("q", "exponent", "q_max"):
            number(name, getattr(self, name))
        number("read_time_s", self.read_time_s, above=True)

    def deviation(self, conductance: Floats, g_max: float, time_s: float) -> Floats:
        """Standard deviation of a read of each cell, ``time_s`` after programming (0 until one read time has passed)."""
        with np.errstate(divide="ignore"):
            q = np.minimum(self.q * (conductance / g_max) ** -self.exponent, self.q_max)
        grown = np.log(max(time_s + self.read_time_s, 2 * self.read_time_s) / (2 * self.read_time_s))
        found: Floats = conductance * q * np.sqrt(grown)
        return found


# --- drift ----------------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class IdealRetention:
    """A cell keeps what it holds."""

    reference_s: float = 1.0

    def exponents(self, conductance: Floats, g_max: float, rng: np.random.Generator) -> Floats:
        """Of each cell."""
        return np.zeros(conductance.shape)


@displayed
@dataclass(frozen=True)
class PowerLawDrift:
    """g(t) = g · (t / reference_s)^−ν, with ν of each cell drawn once from a normal law.

    Attributes:
        nu: its mean.
        nu_spread: its standard deviation.
        reference_s: when, after programming, the conductance is what programming left; seconds.

    Raises:
        InputError: a number out of range.
    """

    nu: float
    nu_spread: float = 0.0
    reference_s: float = 1.0

    def __post_init__(self) -> None:
        number("nu", self.nu)
        number("nu_spread", self.nu_spread)
        number("reference_s", self.reference_s, above=True)

    def exponents(self, conductance: Floats, g_max: float, rng: np.random.Generator) -> Floats:
        """ν of each cell."""
        return self.nu + self.nu_spread * rng.standard_normal(conductance.shape)


@displayed
@dataclass(frozen=True)
class StateDependentDrift:
    """As :class:`PowerLawDrift`, but mean and standard deviation of ν are a·ln(g/g_max) + b, clipped to [low, high] (V. Joshi et
    al., Nature Communications 11, 2473, 2020, as their authors' group states it for their model of phase-change memory; the
    defaults are its figures).

    Attributes:
        mean, spread: (a, b, low, high).
        reference_s: as there.

    Raises:
        InputError: a low above its high, a spread below 0.
    """

    mean: tuple[float, float, float, float] = (-0.0155, 0.0244, 0.049, 0.1)
    spread: tuple[float, float, float, float] = (-0.0125, -0.0059, 0.008, 0.045)
    reference_s: float = 20.0

    def __post_init__(self) -> None:
        for name in ("mean", "spread"):
            low, high = getattr(self, name)[2:]
            if low > high or (name == "spread" and low < 0):
                raise InputError(f"{name}: expected (a, b, low, high) with low ≤ high, got {getattr(self, name)!r}")
        number("reference_s", self.reference_s, above=True)

    def exponents(self, conductance: Floats, g_max: float, rng: np.random.Generator) -> Floats:
        """ν of each cell."""
        with np.errstate(divide="ignore"):
            state = np.log(conductance / g_max)
        mean, spread = (np.clip(a * state + b, low, high) for a, b, low, high in (self.mean, self.spread))
        return mean + spread * rng.standard_normal(conductance.shape)


# --- faults ---------------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class IdealYield:
    """Every cell can be programmed."""


@displayed
@dataclass(frozen=True)
class StuckCells:
    """Each cell is, on its own, stuck at the lowest or at the highest conductance with these probabilities; a stuck cell neither
    obeys programming nor drifts.

    Raises:
        InputError: shares outside 0 to 1, or that add up to more.
    """

    off_share: float = 0.0
    on_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("off_share", "on_share"):
            number(name, getattr(self, name))
        if self.off_share + self.on_share > 1:
            raise InputError(f"off_share + on_share: expected at most 1, got {self.off_share + self.on_share:g}")


Programming = IdealProgramming | GaussianProgramming | LognormalProgramming | WriteVerify
Reading = IdealReading | GaussianReading | FlickerReading
Retention = IdealRetention | PowerLawDrift | StateDependentDrift


@displayed
@dataclass(frozen=True)
class Cells:
    """Programmed cells, arrays of one shape.

    Attributes:
        conductance_siemens: right after programming (at the reference time of their drift).
        exponent: ν of their drift.
        stuck: −1 stuck off, 1 stuck on, 0 neither.
        pulses: that programming took; a stuck cell takes as many as one that is not.
    """

    conductance_siemens: Floats
    exponent: Floats
    stuck: npt.NDArray[np.int8]
    pulses: npt.NDArray[np.int64]


@displaying("step_siemens")
@dataclass(frozen=True)
class Memristor:
    """A two-terminal cell that keeps a conductance.

    Attributes:
        g_min_siemens, g_max_siemens: range that can be aimed at, 0 ≤ lowest < highest.
        levels: what in it can be aimed at.
        programming: what a cell holds then.
        reading: how a read strays, from read to read.
        retention: what becomes of it with time.
        cells: which cells are stuck.

    Raises:
        InputError: an empty range.
    """

    g_min_siemens: float
    g_max_siemens: float
    levels: IdealLevels | Levels = IdealLevels()
    programming: Programming = IdealProgramming()
    reading: Reading = IdealReading()
    retention: Retention = IdealRetention()
    cells: IdealYield | StuckCells = IdealYield()

    def __post_init__(self) -> None:
        number("g_min_siemens", self.g_min_siemens)
        number("g_max_siemens", self.g_max_siemens)
        if self.g_max_siemens <= self.g_min_siemens:
            raise InputError(
                f"g_max_siemens: expected more than g_min_siemens {self.g_min_siemens:g}, got {self.g_max_siemens:g}"
            )

    @property
    def step_siemens(self) -> float:
        """Distance of two levels; the whole range where any conductance can be aimed at."""
        steps = self.levels.count - 1 if isinstance(self.levels, Levels) else 1
        return (self.g_max_siemens - self.g_min_siemens) / steps

    def program(self, target_siemens: npt.ArrayLike, *, seed: int, words: tuple[object, ...] = ()) -> Cells:
        """Cells of any shape, told to hold ``target_siemens`` (each taken to the nearest level).

        Args:
            target_siemens: within the range.
            seed, words: name the random streams; other words, other cells.

        Raises:
            InputError: a target outside the range.
        """
        target = np.asarray(target_siemens, np.float64)
        low, high = self.g_min_siemens, self.g_max_siemens
        slack = 1e-9 * (high - low)
        if target.size and not (low - slack <= target.min() and target.max() <= high + slack):
            raise InputError(f"target_siemens: expected {low:g} to {high:g}, got {target.min():g} to {target.max():g}")
        if isinstance(self.levels, Levels):
            target = low + np.rint((target - low) / self.step_siemens) * self.step_siemens
        rng = stream(seed, "programming", *words)
        if isinstance(self.programming, WriteVerify):
            found, pulses = self.programming.write(target, high, rng)
        else:
            found, pulses = self.programming.pulse(target, high, rng), np.ones(target.shape, np.int64)
        stuck = np.zeros(target.shape, np.int8)
        if isinstance(self.cells, StuckCells):
            u = stream(seed, "stuck", *words).random(target.shape)
            stuck[u < self.cells.off_share] = -1
            stuck[u >= 1 - self.cells.on_share] = 1
            found = np.where(stuck < 0, low, np.where(stuck > 0, high, found))
        exponent = self.retention.exponents(found, high, stream(seed, "drift", *words))
        return Cells(found, np.where(stuck == 0, exponent, 0.0), stuck, pulses)

    def drifted(self, cells: Cells, time_s: float) -> Floats:
        """Conductances ``time_s`` after programming, siemens.

        Raises:
            InputError: a time before the reference time of the drift.
        """
        reference = self.retention.reference_s
        number("time_s", time_s, reference if not isinstance(self.retention, IdealRetention) else 0.0)
        if isinstance(self.retention, IdealRetention):
            return cells.conductance_siemens
        found: Floats = cells.conductance_siemens * np.exp(-cells.exponent * np.log(time_s / reference))
        return found


def phase_change_memory() -> Memristor:
    """Phase-change memory as measured by V. Joshi et al., Nature Communications 11, 2473, 2020, and S. R. Nandakumar et al.,
    ICECS 2019: 0 to 25 µS, programming noise of up to 1.1 µS, drift and 1/f noise that depend on the state."""
    return Memristor(
        0.0,
        25e-6,
        programming=GaussianProgramming((0.2635e-6, 1.9650e-6, -1.1731e-6)),
        reading=FlickerReading(),
        retention=StateDependentDrift(),
    )
