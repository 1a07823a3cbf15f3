"""Programming a chip by what its detectors say, without knowing what is wrong with it.

``Bench`` is a chip between lasers and detectors: phases can be set and outputs read, nothing else is seen. The amplitude at an
output is a + e^{ix}·b in any one phase x, so powers, and sums of powers, are sinusoids in it: readings at three settings of a
phase, or nine of the two of an MZI, tell where they are highest, and two half a turn apart tell the slope.

- ``self_configure``: light goes in as the conjugate of a row of the wanted matrix, so that all of it has to come out at that
  row's port; MZI after MZI, from the first column to the last, is put where most of it does, which nulls all other ports. In a
  triangle a row is the matter of one diagonal of MZIs, set one by one with the light that should meet in each, and left alone by
  later rows (D. A. B. Miller, Photonics Research 1(1), 1, 2013). In other meshes all rows are sent at once, again and again; that
  corrects errors of fabrication, but does not find its way from phases that have nothing to do with those wanted.
- ``descend``: all phases at once along the slope, the in-situ gradient from outputs alone.
- ``refine``: all phases at once by Newton's method on the matrix itself, for detectors that see fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from hwsim.views.display import displayed, displayed_by
from numerics._fields import check_flag, check_integer
from numerics.errors import InputError
from photonic._numbers import complex_numbers, finite, is_one_of, number, one_of
from photonic.decomposition import decompose
from photonic.detection import Homodyne, Receiver
from photonic.fabrication import FabricatedMesh
from photonic.layouts import MeshLayout

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.complex128]

Goal = Literal["power", "field"]

MOST_SETTINGS = 1024
"""Of a phase; an MZI is read at the square of it."""


def fidelity(matrix: npt.ArrayLike, target: npt.ArrayLike, *, common_loss: bool = False) -> float:
    """|tr(target† · matrix)|²/N² (M. Y.-S. Fang et al., Opt. Express 27(10), 14009, 2019): 1 where they agree but for one phase.

    Args:
        matrix: (N, N), what there is.
        target: (N, N) unitary, what is wanted.
        common_loss: light lost by all alike is no error: N · tr(matrix† · matrix) in place of N² (W. R. Clements et al., Optica
            3(12), 1460, 2016).

    Raises:
        InputError: matrices of different shapes, not square, not finite, or too large for a float64; with ``common_loss``, a
            matrix of zeros.
    """
    found, wanted = complex_numbers("matrix", matrix), complex_numbers("target", target)
    check_flag("common_loss", common_loss)
    if found.shape != wanted.shape or found.ndim != 2 or found.shape[0] != found.shape[1] or not found.size:
        raise InputError(f"matrix: expected two square matrices of one shape, got {found.shape} and {wanted.shape}")
    finite("matrix", found)
    finite("target", wanted)
    with np.errstate(over="ignore"):
        size = len(found) ** 2 if not common_loss else len(found) * np.linalg.norm(found) ** 2
    if size == 0:
        raise InputError("matrix: expected one that lets light pass, got zeros")
    with np.errstate(over="ignore", invalid="ignore"):
        result = float(abs(np.vdot(wanted, found)) ** 2 / size)
    if not np.isfinite(result):
        largest = max(np.abs(part).max() for each in (found, wanted) for part in (each.real, each.imag))
        raise InputError(f"matrix: expected matrices whose fidelity a float64 can hold, got numbers of up to {largest:.3g}")
    return result


@displayed
class Bench:
    """A chip between lasers and detectors.

    Args:
        mesh: the chip, and the phases it starts with.
        detection: photodiodes (powers), or homodyne detectors (complex amplitudes).
        power_w: light of a vector of norm 1.
        seed: of the noise of all readings.

    Attributes:
        mesh: with the phases it has now.
        readings: vectors sent so far.
        clipped: numbers that were beyond the range of the ADCs.

    Raises:
        InputError: an object of another class, a power that is not > 0.
    """

    def __init__(self, mesh: FabricatedMesh, detection: Receiver | Homodyne, *, power_w: float = 1e-3, seed: int = 0) -> None:
        is_one_of("mesh", mesh, FabricatedMesh)
        is_one_of("detection", detection, Receiver, Homodyne)
        number("power_w", power_w, above=True)
        self.mesh = mesh
        self.detection = detection
        self.power_w = float(power_w)
        self.seed = check_integer("seed", seed, 0)
        self.readings = 0
        self.clipped = 0
        self._shots = 0

    @property
    def layout(self) -> MeshLayout:
        """Of the chip."""
        return self.mesh.layout

    def set(self, **phases: npt.ArrayLike) -> None:
        """Program some of the phases; see ``FabricatedMesh.with_phases``."""
        self.mesh = self.mesh.with_phases(**phases)

    def powers(self, vectors: Numbers) -> Floats:
        """(signals, batch) squared magnitudes at the outputs, as read, for inputs (signals, batch).

        Raises:
            InputError: another shape, numbers that are not finite.
        """
        vectors = self._checked(vectors)
        if isinstance(self.detection, Homodyne):
            return np.abs(self.amplitudes(vectors)) ** 2
        reading = self.detection.read(np.abs(self._light(vectors)) ** 2, seed=self._next(vectors))
        self.clipped += reading.clipped
        return (reading.values - self.detection.dark_a) / (self.detection.responsivity_a_per_w * self.power_w)

    def amplitudes(self, vectors: Numbers) -> Numbers:
        """The same, complex amplitudes.

        Raises:
            InputError: the detectors see only powers; another shape, numbers that are not finite.
        """
        vectors = self._checked(vectors)
        if not isinstance(self.detection, Homodyne):
            raise InputError("detection: expected Homodyne, because photodiodes do not see phases")
        reading = self.detection.read(self._light(vectors), seed=self._next(vectors))
        self.clipped += reading.clipped
        return reading.values / np.sqrt(self.power_w)

    def _checked(self, vectors: npt.ArrayLike) -> Numbers:
        given = complex_numbers("vectors", vectors)
        if given.ndim != 2 or given.shape[0] != self.layout.signals:
            raise InputError(f"vectors: expected shape ({self.layout.signals}, batch), got {given.shape}")
        return given

    def _light(self, vectors: Numbers) -> Numbers:
        wires = np.zeros((self.layout.ports, vectors.shape[1]), np.complex128)
        wires[self.layout.signal_ports] = np.sqrt(self.power_w) * vectors
        return self.mesh.apply(wires)[self.layout.signal_ports]

    def _next(self, vectors: Numbers) -> int:
        self.readings += vectors.shape[1]
        self._shots += 1
        # One seed for each time that light is sent, none of them another bench's.
        return (self.seed << 40) + self._shots


@displayed_by("photonic.cards:calibration")
@dataclass(frozen=True, eq=False)
class Calibration:
    """What came of it.

    Attributes:
        mesh: the chip, programmed anew.
        score: of the goal as it was read, before and after each sweep or step.
        readings: vectors sent.
    """

    mesh: FabricatedMesh
    score: tuple[float, ...]
    readings: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of the target whose light is sent: row n as conj(target[n]), or another vector, which has to come out at port n."""

    bench: Bench
    vectors: Numbers
    rows: npt.NDArray[np.int64]
    goal: Goal

    def score(self) -> float:
        """Mean power at the wanted ports; or the power of the mean field there, which is the fidelity for all rows."""
        at = self.rows, np.arange(self.rows.size)
        if self.goal == "power":
            return float(self.bench.powers(self.vectors)[at].mean())
        return float(abs(self.bench.amplitudes(self.vectors)[at].mean()) ** 2)


def self_configure(
    bench: Bench, target: npt.ArrayLike, *, goal: Goal = "power", sweeps: int = 4, settings: int = 3
) -> Calibration:
    """Put MZI after MZI where the wanted outputs get most light.

    Args:
        bench: the chip; its phases are where the search begins.
        target: (N, N) unitary.
        goal: ``power``: output phases do not matter, and are set only if the detectors see them, at the end; ``field``: the
            fidelity itself, with them, for which all rows are sent at once in any mesh.
        sweeps: times that each MZI is set.
        settings: of each of its phases, at equal distances over a turn; more of them average noise.

    Raises:
        InputError: a target of another shape or not unitary, a goal that the detectors do not see, fewer than 3 settings.
    """
    wanted = _checked(bench, target, goal)
    check_integer("sweeps", sweeps, 1)
    if check_integer("settings", settings, 3) > MOST_SETTINGS:
        raise InputError(f"settings: expected at most {MOST_SETTINGS}, got {settings}")
    start = bench.readings
    everything = _all_rows(bench, wanted, goal)
    scores = [everything.score()]
    if goal == "power" and bench.layout.kind == "triangular":
        _by_diagonals(bench, wanted, sweeps, settings)
        scores.append(everything.score())
    else:
        for _ in range(sweeps):
            for mzi in range(bench.layout.mzis):
                _settle(bench, mzi, everything.score, settings)
            if goal == "field":
                align(bench, wanted)
            scores.append(everything.score())
    if goal == "power" and isinstance(bench.detection, Homodyne):
        align(bench, wanted)
    return Calibration(bench.mesh, tuple(scores), bench.readings - start)


def _by_diagonals(bench: Bench, wanted: Numbers, sweeps: int, settings: int) -> None:
    """Rows from the last to the second, each with its diagonal of a triangle.

    Set so far, the chip does what the wanted mesh does up to there, but for phases at its waveguides. So the light that reaches
    the next diagonal on the first few waveguides only, which its first MZIs have to bring together, is known.
    """
    plan = bench.layout
    ideal = decompose(wanted, "triangular")
    cells, diagonal = ideal.cells(), (plan.column - plan.upper) // 2
    so_far = np.eye(plan.ports, dtype=np.complex128)
    for d in range(plan.ports - 1):
        row, mzis = plan.ports - 1 - d, np.flatnonzero(diagonal == d)
        there = so_far @ wanted[row].conj()
        for sweep in range(sweeps):
            for mzi in mzis:
                light = there.copy()
                if sweep == 0:
                    light[plan.lower[mzi] + 1 :] = 0
                vector = (so_far.conj().T @ light)[:, None]
                _settle(bench, int(mzi), _Rows(bench, vector, np.array([row]), "power").score, settings)
        for mzi in mzis:
            pair = [plan.upper[mzi], plan.lower[mzi]]
            so_far[pair] = cells[mzi] @ so_far[pair]


def align(bench: Bench, target: npt.ArrayLike) -> None:
    """Set the output phases so that the light of every row comes out with the same phase, from one homodyne reading of each.

    Raises:
        InputError: a target of another shape or not unitary, detectors that see only powers.
    """
    wanted = _checked(bench, target, "field")
    seen = np.diagonal(bench.amplitudes(wanted.conj().T))
    phases = bench.mesh.phases["output_phase"].copy()
    phases[bench.layout.signal_ports] -= np.angle(seen)
    bench.set(output_phase=np.mod(phases, 2 * np.pi))


def descend(bench: Bench, target: npt.ArrayLike, *, goal: Goal = "power", steps: int = 100, rate: float = 0.05) -> Calibration:
    """All phases along the in-situ gradient: dscore/dx = (score at x + π/2 − score at x − π/2)/2, exact for a sinusoid.

    Steps are Adam's (D. Kingma and J. Ba, arXiv 1412.6980): noise in a reading moves no phase by more than about ``rate``.

    Args:
        bench: the chip; its phases are where the search begins.
        target: (N, N) unitary.
        goal: as for ``self_configure``; with ``power``, output phases stay.
        steps: each reads all rows twice for each phase.
        rate: radians of a step, falling to 0 as a cosine.

    Raises:
        InputError: as ``self_configure``; a rate that is not > 0.
    """
    wanted = _checked(bench, target, goal)
    check_integer("steps", steps, 1)
    number("rate", rate, above=True)
    start = bench.readings
    everything = _all_rows(bench, wanted, goal)
    names = ("theta", "phi") if goal == "power" else ("theta", "phi", "output_phase")
    mean = {name: np.zeros(bench.mesh.phases[name].size) for name in names}
    square = {name: np.zeros_like(mean[name]) for name in names}
    scores = [everything.score()]
    for step in range(1, steps + 1):
        slopes = {name: _slopes(bench, name, everything.score) for name in names}
        now = rate * (1 + np.cos(np.pi * (step - 1) / steps)) / 2
        moved = {}
        for name, slope in slopes.items():
            mean[name] = 0.9 * mean[name] + 0.1 * slope
            square[name] = 0.99 * square[name] + 0.01 * slope**2
            size = np.sqrt(square[name] / (1 - 0.99**step)) + 1e-12
            moved[name] = np.mod(bench.mesh.phases[name] + now * mean[name] / (1 - 0.9**step) / size, 2 * np.pi)
        bench.set(**moved)
        scores.append(everything.score())
    return Calibration(bench.mesh, tuple(scores), bench.readings - start)


def refine(bench: Bench, target: npt.ArrayLike, *, steps: int = 8) -> Calibration:
    """All phases at once to where the measured matrix is nearest to the target, but for one phase and one loss of all light.

    Least squares of the errors of all N² fields, linear in the phases (K. Levenberg, Quart. Appl. Math. 2, 164, 1944; D. W.
    Marquardt, J. SIAM 11, 431, 1963). The change of the matrix with a phase is half the difference of readings half a turn apart.

    Args:
        bench: the chip, with homodyne detectors; its phases are where the search begins.
        target: (N, N) unitary.
        steps: each reads all N vectors twice for each phase, and once more for each step that is tried.

    Raises:
        InputError: as ``self_configure``; detectors that see only powers.
    """
    wanted = _checked(bench, target, "field")
    check_integer("steps", steps, 1)
    start, names = bench.readings, ("theta", "phi", "output_phase")
    everything = np.eye(len(wanted), dtype=np.complex128)
    found = bench.amplitudes(everything)
    scores, damping = [_match(found, wanted)], 1e-3
    for _ in range(steps):
        columns = [_changes(bench, name, everything) for name in names]
        jacobian = np.concatenate(columns).reshape(-1, wanted.size).T
        trace = np.vdot(wanted, found) / len(wanted)
        missing = (trace * wanted - found).ravel()
        system = np.concatenate([jacobian.real, jacobian.imag])
        normal, right = system.T @ system, system.T @ np.concatenate([missing.real, missing.imag])
        scale = float(np.diagonal(normal).mean())
        before = bench.mesh.phases
        for _ in range(4):
            step = np.linalg.solve(normal + damping * scale * np.eye(len(normal)), right)
            parts = np.split(step, np.cumsum([before[name].size for name in names])[:-1])
            bench.set(**{name: np.mod(before[name] + part, 2 * np.pi) for name, part in zip(names, parts, strict=True)})
            tried = bench.amplitudes(everything)
            if _match(tried, wanted) > scores[-1]:
                found, damping = tried, max(damping / 10, 1e-10)
                break
            damping *= 10
            bench.set(**before)
        scores.append(_match(found, wanted))
    return Calibration(bench.mesh, tuple(scores), bench.readings - start)


def _match(found: Numbers, wanted: Numbers) -> float:
    return fidelity(found, wanted, common_loss=True)


def _changes(bench: Bench, name: str, vectors: Numbers) -> Numbers:
    """(phases, signals, batch) derivative of the fields with respect to each phase of that name."""
    before = bench.mesh.phases[name]
    places = range(bench.layout.ports)[bench.layout.signal_ports] if name == "output_phase" else range(before.size)
    found = np.zeros((before.size, len(vectors), vectors.shape[1]), np.complex128)
    for index in places:
        sides = []
        for turn in (np.pi / 2, -np.pi / 2):
            bench.set(**{name: _moved(before, index, turn)})
            sides.append(bench.amplitudes(vectors))
        found[index] = (sides[0] - sides[1]) / 2
    bench.set(**{name: before})
    return found


def _checked(bench: Bench, target: npt.ArrayLike, goal: str) -> Numbers:
    is_one_of("bench", bench, Bench)
    one_of("goal", goal, get_args(Goal))
    if goal == "field" and not isinstance(bench.detection, Homodyne):
        raise InputError("goal: expected 'power', because photodiodes do not see phases; got 'field'")
    wanted, signals = complex_numbers("target", target), bench.layout.signals
    if wanted.shape != (signals, signals):
        raise InputError(f"target: expected shape ({signals}, {signals}), got {wanted.shape}")
    off = np.abs(wanted.conj().T @ wanted - np.eye(len(wanted))).max()
    if not off <= 1e-8:
        raise InputError(f"target: expected a unitary matrix, got one with |U†U − 1| = {off:.3g}")
    return wanted


def _all_rows(bench: Bench, wanted: Numbers, goal: Goal) -> _Rows:
    return _Rows(bench, wanted.conj().T, np.arange(len(wanted)), goal)


def _settle(bench: Bench, mzi: int, score: Callable[[], float], settings: int) -> None:
    """Both phases of an MZI where the score is highest, by readings on a lattice of them, if a reading there agrees."""
    theta, phi = (bench.mesh.phases[name] for name in ("theta", "phi"))
    turns = 2 * np.pi * np.arange(settings) / settings
    seen = np.empty((settings, settings))
    for i, turn in enumerate(turns):
        for j, other in enumerate(turns):
            bench.set(theta=_moved(theta, mzi, turn), phi=_moved(phi, mzi, other))
            seen[i, j] = score()
    waves = np.fft.fft2(seen)[np.ix_([-1, 0, 1], [-1, 0, 1])] / settings**2
    first, second = highest(waves)
    bench.set(theta=_moved(theta, mzi, first), phi=_moved(phi, mzi, second))
    if score() < seen[0, 0]:
        bench.set(theta=theta, phi=phi)


def highest(waves: Numbers) -> tuple[float, float]:
    """(x, y) where Σ waves[j + 1, k + 1]·e^{i(jx + ky)} over j, k = −1, 0, 1 is highest; waves (3, 3) of a real function."""
    order = np.arange(-1, 2)
    raster = np.exp(1j * order[:, None] * 2 * np.pi * np.arange(16) / 16)
    x, y = np.unravel_index(np.argmax((raster.T @ waves @ raster).real), (16, 16))
    at = np.array([x, y]) * 2 * np.pi / 16
    for _ in range(30):
        # Newton's method where the function is a hill, else to the top along each of the two in turn.
        e, f = np.exp(1j * order * at[0]), np.exp(1j * order * at[1])
        slope = np.array([(1j * order * e) @ waves @ f, e @ waves @ (1j * order * f)]).real
        xx, yy = (-(order**2) * e) @ waves @ f, e @ waves @ (-(order**2) * f)
        xy = (1j * order * e) @ waves @ (1j * order * f)
        bend = np.array([[xx, xy], [xy, yy]]).real
        if bend[0, 0] < 0 and np.linalg.det(bend) > 1e-3 * bend[0, 0] ** 2:
            step = np.linalg.solve(bend, slope)
            at = at - step
            if np.abs(step).max() < 1e-12:
                break
        else:
            at[0] = -np.angle(waves[2] @ f)
            at[1] = -np.angle(np.exp(1j * order * at[0]) @ waves[:, 2])
    return float(at[0]), float(at[1])


def _slopes(bench: Bench, name: str, score: Callable[[], float]) -> Floats:
    before = bench.mesh.phases[name]
    found = np.empty(before.size)
    for index in range(before.size):
        sides = []
        for turn in (np.pi / 2, -np.pi / 2):
            bench.set(**{name: _moved(before, index, turn)})
            sides.append(score())
        found[index] = (sides[0] - sides[1]) / 2
    bench.set(**{name: before})
    return found


def _moved(phases: Floats, index: int, turn: float) -> Floats:
    """The phases with one of them moved on, modulo a turn."""
    found = phases.copy()
    found[index] = np.mod(found[index] + turn, 2 * np.pi)
    return found
