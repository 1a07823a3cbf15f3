"""What a fabricated mesh does other than it should: each imperfection an object of its own, ``Ideal`` its absence.

Each draws from its own random stream, so that one turned on or off leaves the draws of the others as they were. From a programmed
phase to the one that light meets, the order is: quantisation of what is driven, shifters that are stuck, heat of the neighbours,
error of fabrication, drift.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwsim.views.display import displayed, displaying
from numerics._fields import check_flag, check_integer
from numerics.errors import InputError
from photonic._numbers import finite, is_one_of, number, one_of, real_numbers, shown
from photonic.layouts import MeshLayout

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

TURN = 2 * np.pi
MOST_TURNS = 64
"""Of a converter's range; no phase shifter goes as far."""


@displayed
@dataclass(frozen=True)
class Ideal:
    """The absence of an imperfection."""


# --- phases ---------------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class PhaseError:
    """Every phase, also those at the outputs, is off by a normal deviate that the chip keeps.

    Attributes:
        sigma_rad: its standard deviation.

    Raises:
        InputError: a negative one.
    """

    sigma_rad: float

    def __post_init__(self) -> None:
        number("sigma_rad", self.sigma_rad)

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """(count,) radians."""
        return self.sigma_rad * rng.standard_normal(count)


@displaying("step_rad")
@dataclass(frozen=True)
class PhaseQuantisation:
    """Phases are driven in steps of full scale / 2^bits: the nearest one to each, modulo 2π.

    Attributes:
        bits: of the converter that drives a phase shifter.
        full_scale_rad: its range, a turn at least and 64 at most: it drives phases from 0 to below it. Of two as near, it is the
            one in the earlier turn.
        arms: what a converter drives inside an MZI: ``one``: θ on the upper arm; ``both``: ±θ/2 on the two arms, θ/2 in the steps
            of the converter. The mean phase of the two arms stays as programmed.
        outputs: whether those behind the last column are driven in steps too; if not, they are as programmed.

    Raises:
        InputError: no bits, or more than 32; a full scale below 2π or above 128π; another ``arms``.
    """

    bits: int
    full_scale_rad: float = TURN
    arms: Literal["one", "both"] = "one"
    outputs: bool = True

    def __post_init__(self) -> None:
        if check_integer("bits", self.bits, 1) > 32:
            raise InputError(f"bits: expected at most 32, got {self.bits}")
        number("full_scale_rad", self.full_scale_rad, TURN)
        if self.full_scale_rad > MOST_TURNS * TURN:
            raise InputError(f"full_scale_rad: expected at most {MOST_TURNS} turns, 128π, got {self.full_scale_rad!r}")
        one_of("arms", self.arms, ("one", "both"))
        check_flag("outputs", self.outputs)

    @property
    def step_rad(self) -> float:
        """Distance of neighbouring phases."""
        return float(self.full_scale_rad / 2**self.bits)

    def driven(self, phases: Floats) -> Floats:
        """What a converter drives for each phase, from 0 to below full scale.

        Raises:
            InputError: phases that are no finite real numbers.
        """
        phases = real_numbers("phases", phases)
        finite("phases", phases)
        if self.full_scale_rad == TURN:
            return np.mod(np.rint(phases / self.step_rad), 2**self.bits) * self.step_rad
        # Steps need not divide a turn: those of each later turn lie elsewhere modulo 2π.
        wanted, found, off = np.mod(phases, TURN), np.zeros(phases.shape), np.full(phases.shape, np.inf)
        for turn in range(-1, int(np.ceil(self.full_scale_rad / TURN)) + 1):
            target = wanted + turn * TURN
            near = (np.clip(np.rint(target / self.step_rad), 0, 2**self.bits - 1) + 0.0) * self.step_rad  # 0 without a sign
            apart = np.abs(near - target)
            nearer = apart < off - 1e-14 * self.full_scale_rad  # what rounding makes nearer is as near
            found, off = np.where(nearer, near, found), np.where(nearer, apart, off)
        return found

    def driven_in(self, layout: MeshLayout, phases: Floats) -> Floats:
        """What is driven for phases (…, shifters): θ of all MZIs (of both arms, their difference), φ of all, outputs.

        Raises:
            InputError: an object that is no layout; phases that are no finite real numbers, or of another number of shifters.
        """
        is_one_of("layout", layout, MeshLayout)
        n, found = layout.mzis, real_numbers("phases", phases)
        finite("phases", found)
        if not found.ndim or found.shape[-1] != 2 * n + layout.ports:
            raise InputError(f"phases: expected shape (…, {2 * n + layout.ports}), got {found.shape}")
        phases = found.copy()
        found[..., :n] = self.driven(phases[..., :n]) if self.arms == "one" else 2 * self.driven(phases[..., :n] / 2)
        found[..., n : 2 * n] = self.driven(phases[..., n : 2 * n])
        if self.outputs:
            found[..., 2 * n :] = self.driven(phases[..., 2 * n :])
        return found

    def kept_mean(self, layout: MeshLayout, programmed: Floats, driven: Floats) -> Floats:
        """(…, shifters) what light meets besides ``driven``; 0 where one arm is driven.

        The mean phase of both arms is that of θ as programmed, so that an MZI is e^{−i·δ/2} times what θ on one arm would make of
        it, δ = driven − programmed. A phase that both outputs of an MZI share goes on to the φ of later MZIs and to the outputs.
        """
        found = np.zeros(programmed.shape)
        if self.arms == "one":
            return found
        n, upper, lower = layout.mzis, layout.upper, layout.lower
        lag, carried = (driven[..., :n] - programmed[..., :n]) / 2, found[..., 2 * n :]
        bounds = np.searchsorted(layout.column, np.arange(layout.depth + 1))
        for column in range(layout.depth):
            mine = slice(bounds[column], bounds[column + 1])
            above, below = carried[..., upper[mine]], carried[..., lower[mine]]
            found[..., n : 2 * n][..., mine] = above - below
            carried[..., upper[mine]] = carried[..., lower[mine]] = below - lag[..., mine]
        return found


@displayed
@dataclass(frozen=True)
class StuckShifters:
    """Some phase shifters are always driven alike, whatever they are told.

    Attributes:
        share: probability of each to be one of them, from 0 to 1.
        phase_rad: at which they are stuck; None: each at a phase of its own, uniform in [0, 2π).

    Raises:
        InputError: a share out of range, a phase outside [0, 2π).
    """

    share: float
    phase_rad: float | None = None

    def __post_init__(self) -> None:
        number("share", self.share)
        if self.share > 1:
            raise InputError(f"share: expected 0 to 1, got {self.share!r}")
        if self.phase_rad is not None:
            number("phase_rad", self.phase_rad)
            if self.phase_rad >= TURN:
                raise InputError(f"phase_rad: expected 0 to below 2π, got {self.phase_rad!r}")

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """(count,) radians where one is stuck, nan where it is not."""
        chance, phases = rng.random(count), TURN * rng.random(count)
        stuck = phases if self.phase_rad is None else np.full(count, float(self.phase_rad))
        return np.where(chance < self.share, stuck, np.nan)


@displayed
@dataclass(frozen=True)
class Drift:
    """Every phase walks at random: after t seconds it is off by a normal deviate of variance rate² · t.

    Attributes:
        rate_rad_per_root_s: standard deviation after a second.

    Raises:
        InputError: a negative one.
    """

    rate_rad_per_root_s: float

    def __post_init__(self) -> None:
        number("rate_rad_per_root_s", self.rate_rad_per_root_s)

    def walk(self, count: int, seconds: float, rng: np.random.Generator) -> Floats:
        """(count,) radians gone in so many seconds."""
        return self.rate_rad_per_root_s * np.sqrt(seconds) * rng.standard_normal(count)


# --- heat -----------------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class ExponentialKernel:
    """A heater turns a phase shifter at a distance d by ``strength``·exp(−d/length) of what it turns its own.

    Attributes:
        strength: from 0 to 1.
        length_um: distance over which it falls by e.

    Raises:
        InputError: a number out of range.
    """

    strength: float
    length_um: float

    def __post_init__(self) -> None:
        number("strength", self.strength)
        number("length_um", self.length_um, above=True)
        if self.strength > 1:
            raise InputError(f"strength: expected 0 to 1, got {self.strength!r}")

    def share(self, distance_um: Floats) -> Floats:
        """Of each distance > 0."""
        return self.strength * np.exp(-distance_um / self.length_um)


@displayed
@dataclass(frozen=True)
class MeasuredKernel:
    """Shares at some distances, straight lines between, nothing beyond the last; nearer than the first, the first.

    Attributes:
        distances_um: increasing, > 0.
        shares: from −1 to 1, as many.

    Raises:
        InputError: numbers that do not fit.
    """

    distances_um: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("distances_um", "shares"):
            given = getattr(self, name)
            if not isinstance(given, tuple | list):
                raise InputError(f"{name}: expected a tuple of numbers, got {shown(given)}")
            object.__setattr__(self, name, tuple(given))
        if not self.distances_um or len(self.distances_um) != len(self.shares):
            raise InputError(f"shares: expected one for each of {len(self.distances_um)} distances, got {len(self.shares)}")
        for distance, before in zip(self.distances_um, (0.0, *self.distances_um[:-1]), strict=True):
            number("distances_um", distance, before, above=True)
        for share in self.shares:
            number("shares", share, -1)
            if share > 1:
                raise InputError(f"shares: expected −1 to 1, got {share!r}")

    def share(self, distance_um: Floats) -> Floats:
        """Of each distance > 0."""
        return np.interp(distance_um, self.distances_um, self.shares, right=0.0)


@displayed
@dataclass(frozen=True)
class ThermalCrosstalk:
    """Phase shifters are heaters: the phase at one is Σ share(distance) · phase driven at each, its own with share 1.

    Shifters stand in a lattice. Along the light, at steps of ``shifter_um``::

        step 2c      φ of column c          across the light, at steps of ``port_um``:
        step 2c + 1  θ of column c          the number of the (upper) port that it is on
        step 2·depth output phases

    A heater cannot cool: what is driven is the phase in [0, 2π).

    Attributes:
        kernel: share as a function of distance.
        shifter_um, port_um: steps of the lattice.

    Raises:
        InputError: a step that is not > 0, an object that is no kernel.
    """

    kernel: ExponentialKernel | MeasuredKernel
    shifter_um: float
    port_um: float

    def __post_init__(self) -> None:
        is_one_of("kernel", self.kernel, ExponentialKernel, MeasuredKernel)
        number("shifter_um", self.shifter_um, above=True)
        number("port_um", self.port_um, above=True)

    def warmed(self, layout: MeshLayout, theta: Floats, phi: Floats, output_phase: Floats) -> tuple[Floats, Floats, Floats]:
        """Phases where heaters drive these, each in [0, 2π)."""
        step, port = shifter_places(layout)
        rows, columns = 2 * layout.depth + 1, layout.ports
        lattice = np.zeros((rows, columns))
        lattice[step, port] = np.concatenate([theta, phi, output_phase])
        # A sum over all pairs, as a product of spectra; twice the size, so that nothing comes round the edge.
        along = np.fft.fftfreq(2 * rows, 1 / (2 * rows)) * self.shifter_um
        across = np.fft.fftfreq(2 * columns, 1 / (2 * columns)) * self.port_um
        shares = self.kernel.share(np.hypot(along[:, None], across[None, :]))
        shares[0, 0] = 0.0
        size = shares.shape
        heat = np.fft.irfft2(np.fft.rfft2(lattice, size) * np.fft.rfft2(shares), size)[:rows, :columns]
        warm = lattice[step, port] + heat[step, port]
        return warm[: layout.mzis], warm[layout.mzis : 2 * layout.mzis], warm[2 * layout.mzis :]


def shifter_places(layout: MeshLayout) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Step along the light and port of each phase shifter (θ of all MZIs, φ of all, outputs); see ``ThermalCrosstalk``."""
    column, upper = layout.column.astype(np.int64), layout.upper.astype(np.int64)
    ends = np.arange(layout.ports)
    step = np.concatenate([2 * column + 1, 2 * column, np.full(layout.ports, 2 * layout.depth)])
    return step, np.concatenate([upper, upper, ends])


# --- splitters and losses -------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class SplitterError:
    """Each splitter [[r, i·t], [i·t, r]] misses r = t = 1/√2 on its own; t = √(1 − r²) in any case.

    Attributes:
        sigma: standard deviation of a normal deviate.
        of: ``angle``: r = cos(π/4 + deviate), radians; ``amplitude``: r = 1/√2 + deviate (M. Y.-S. Fang et al., Opt. Express
            27(10), 14009, 2019), which is an angle of about √2 times as much.

    Raises:
        InputError: a negative sigma, another ``of``.
    """

    sigma: float
    of: Literal["angle", "amplitude"] = "angle"

    def __post_init__(self) -> None:
        number("sigma", self.sigma)
        one_of("of", self.of, ("angle", "amplitude"))

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """(count,) angles a, r = cos a.

        Raises:
            InputError: an amplitude below 0 or above 1 was drawn.
        """
        deviate = self.sigma * rng.standard_normal(count)
        if self.of == "angle":
            return np.pi / 4 + deviate
        r = np.sqrt(0.5) + deviate
        if ((r < 0) | (r > 1)).any():
            worst = r[np.argmax(np.abs(r - 0.5))]
            raise InputError(f"sigma: expected one that leaves amplitudes in 0 to 1, got {self.sigma:g}, which draws {worst:.3g}")
        return np.arccos(r)


@displayed
@dataclass(frozen=True)
class InsertionLoss:
    """Power lost in each component that light passes, in dB.

    An MZI has two splitters, and two phase shifters on its upper arm; each output has one phase shifter. Where an MZI joins ports
    that are not neighbours, waveguides cross in front of it and again behind it.

    Attributes:
        splitter_db: in a splitter, on both ways alike.
        phase_shifter_db: in a phase shifter.
        crossing_db: in a crossing, on both waveguides; see ``crossings``.
        column_db: in the waveguide of each column, on every port, whether there is an MZI or not.
        dummy_shifters: the lower arms have the loss of a phase shifter as well.

    Raises:
        InputError: a negative loss.
    """

    splitter_db: float = 0.0
    phase_shifter_db: float = 0.0
    crossing_db: float = 0.0
    column_db: float = 0.0
    dummy_shifters: bool = False

    def __post_init__(self) -> None:
        for name in ("splitter_db", "phase_shifter_db", "crossing_db", "column_db"):
            number(name, getattr(self, name))
        check_flag("dummy_shifters", self.dummy_shifters)


def crossings(layout: MeshLayout) -> npt.NDArray[np.int64]:
    """(depth, ports) waveguides that each one crosses in front of a column's MZIs, and again behind them.

    There the two ports of an MZI lie side by side, where its upper port is; waveguides without an MZI keep their place between.
    """
    found = np.zeros((layout.depth, layout.ports), np.int64)
    for column in np.unique(layout.column[layout.lower - layout.upper > 1]):
        mine = layout.column == column
        place = 2 * np.arange(layout.ports)
        place[layout.lower[mine]] = 2 * layout.upper[mine] + 1
        for port in range(layout.ports):
            above, below = place[:port], place[port + 1 :]
            found[column, port] = np.count_nonzero(above > place[port]) + np.count_nonzero(below < place[port])
    return found


# --- all together ---------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class Imperfections:
    """All that may be wrong with a mesh; nothing is unless it is named.

    Raises:
        InputError: an object of another class.
    """

    phase_error: PhaseError | Ideal = Ideal()
    phase_quantisation: PhaseQuantisation | Ideal = Ideal()
    splitter_error: SplitterError | Ideal = Ideal()
    insertion_loss: InsertionLoss | Ideal = Ideal()
    crosstalk: ThermalCrosstalk | Ideal = Ideal()
    drift: Drift | Ideal = Ideal()
    stuck: StuckShifters | Ideal = Ideal()

    def __post_init__(self) -> None:
        for part in fields(self):
            is_one_of(part.name, getattr(self, part.name), _KINDS[part.name], Ideal)


_KINDS: dict[str, type] = {
    "phase_error": PhaseError, "phase_quantisation": PhaseQuantisation, "splitter_error": SplitterError,
    "insertion_loss": InsertionLoss, "crosstalk": ThermalCrosstalk, "drift": Drift, "stuck": StuckShifters,
}  # fmt: skip
