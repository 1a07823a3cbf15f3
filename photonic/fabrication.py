"""A mesh as it was made: the phases, splitters and losses that light really meets.

>>> from photonic.decomposition import decompose
>>> from photonic.imperfections import Imperfections, PhaseError, SplitterError
>>> import numpy as np
>>> made = fabricate(decompose(np.eye(4)), Imperfections(PhaseError(0.01), splitter_error=SplitterError(0.01)), seed=1)
>>> bool(abs(made.matrix() - np.eye(4)).max() < 0.1)
True
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed, displayed_by, displaying
from numerics._fields import check_integer
from numerics.errors import InputError
from numerics.faults.maps import stream
from photonic._numbers import number
from photonic.imperfections import TURN, Ideal, Imperfections, crossings
from photonic.layouts import MeshLayout
from photonic.mesh import Mesh
from photonic.propagation import CellChain, UnitaryChain, light

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.complex128]


@displayed
@dataclass(frozen=True, eq=False)
class CellParts:
    """What of an MZI does not depend on its phases: cell = left · diag(e^{iθ}, 1) · middle · diag(e^{iφ}, 1) · diag(right).

    Attributes:
        left, middle: (MZIs, 2, 2) complex.
        right: (MZIs, 2) amplitudes.
        output: (ports,) amplitude at each output, beside its phase.
    """

    left: Numbers
    middle: Numbers
    right: Floats
    output: Floats

    def cells(self, theta: Floats, phi: Floats) -> Numbers:
        """(MZIs, 2, 2) for phases (MZIs,)."""
        middle = self.middle * self.right[:, None, :]
        middle[:, 0, :] *= np.exp(1j * theta)[:, None]
        # φ stands in front of the upper input.
        middle[:, :, 0] *= np.exp(1j * phi)[:, None]
        return self.left @ middle


@displaying("shifters")
@dataclass(frozen=True, eq=False)
class Chip:
    """What was drawn when a mesh was made, whatever phases it is programmed to.

    Attributes:
        layout: where its MZIs are.
        imperfections: what may be wrong.
        seed: of all draws.
    """

    layout: MeshLayout
    imperfections: Imperfections
    seed: int

    @property
    def shifters(self) -> int:
        """Phase shifters: θ of all MZIs, φ of all, outputs."""
        return 2 * self.layout.mzis + self.layout.ports

    @cached_property
    def phase_errors(self) -> Floats:
        """(shifters,) radians."""
        error = self.imperfections.phase_error
        return np.zeros(self.shifters) if isinstance(error, Ideal) else error.draw(self.shifters, self._stream("phase error"))

    @cached_property
    def stuck(self) -> Floats:
        """(shifters,) radians where a phase shifter is stuck, nan where it is not."""
        stuck = self.imperfections.stuck
        return np.full(self.shifters, np.nan) if isinstance(stuck, Ideal) else stuck.draw(self.shifters, self._stream("stuck"))

    @cached_property
    def splitter_angles(self) -> Floats:
        """(MZIs, 2) a of the first and second splitter [[cos a, i·sin a], [i·sin a, cos a]]; π/4 where it halves."""
        error, count = self.imperfections.splitter_error, 2 * self.layout.mzis
        flat = np.full(count, np.pi / 4) if isinstance(error, Ideal) else error.draw(count, self._stream("splitter error"))
        return flat.reshape(-1, 2)

    @cached_property
    def parts(self) -> CellParts:
        """What does not depend on phases."""
        c, s = np.cos(self.splitter_angles), 1j * np.sin(self.splitter_angles)
        splitters = np.stack([np.stack([c, s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)
        first, second = splitters[:, 0], splitters[:, 1]
        loss = self.imperfections.insertion_loss
        if isinstance(loss, Ideal):
            return CellParts(second, first, np.ones((self.layout.mzis, 2)), np.ones(self.layout.ports))
        splitter, shifter = _amplitude(loss.splitter_db), _amplitude(loss.phase_shifter_db)
        arms = np.array([shifter, shifter if loss.dummy_shifters else 1.0])
        before, after = self._ways(loss.crossing_db, loss.column_db)
        right, output = self._gathered(before, after)
        return CellParts(splitter * second, splitter * arms[:, None] * first * arms[None, :], right, output * shifter)

    def _ways(self, crossing_db: float, column_db: float) -> tuple[Floats, Floats]:
        """(depth, ports) amplitudes in front of and behind each column's MZIs, phase shifters and splitters left out."""
        crossed = _amplitude(crossing_db * crossings(self.layout))
        return crossed * _amplitude(column_db), crossed

    def _gathered(self, before: Floats, after: Floats) -> tuple[Floats, Floats]:
        """Losses of waveguides moved to the next MZI's inputs (MZIs, 2), or to the outputs (ports,)."""
        plan = self.layout
        waiting, right = np.ones(plan.ports), np.empty((plan.mzis, 2))
        bounds = np.searchsorted(plan.column, np.arange(plan.depth + 1))
        for column in range(plan.depth):
            waiting *= before[column]
            mine = slice(bounds[column], bounds[column + 1])
            for side, ports in enumerate((plan.upper[mine], plan.lower[mine])):
                right[mine, side] = waiting[ports]
                waiting[ports] = 1.0
            waiting *= after[column]
        return right, waiting

    def phases(self, mesh: Mesh, drifted: Floats) -> tuple[Floats, Floats, Floats]:
        """θ, φ and output phases that light meets where ``mesh`` is programmed and ``drifted`` (shifters,) was added by time."""
        faults, n = self.imperfections, self.layout.mzis
        programmed = np.concatenate([mesh.theta, mesh.phi, mesh.output_phase])
        driven, kept = programmed, np.zeros(self.shifters)
        steps = None if isinstance(faults.phase_quantisation, Ideal) else faults.phase_quantisation
        if steps is not None:
            driven = steps.driven_in(self.layout, driven)
        if not isinstance(faults.stuck, Ideal):
            driven = np.where(np.isnan(self.stuck), driven, self.stuck)
        if steps is not None:
            kept = steps.kept_mean(self.layout, programmed, driven)
        if not isinstance(faults.crosstalk, Ideal):
            turned = np.mod(driven, TURN)
            driven = np.concatenate(faults.crosstalk.warmed(self.layout, turned[:n], turned[n : 2 * n], turned[2 * n :]))
        real = driven + kept + self.phase_errors + drifted
        return real[:n], real[n : 2 * n], real[2 * n :]

    def _stream(self, *words: object) -> np.random.Generator:
        return stream(self.seed, "mesh", *words)


@displayed_by("photonic.cards:fabricated_mesh")
@dataclass(frozen=True, eq=False)
class FabricatedMesh:
    """A programmed mesh on a chip with imperfections. ``fabricate`` makes one.

    Attributes:
        mesh: the phases it is told to have.
        chip: what was drawn when it was made.
        ageings_s: seconds that went by, one number for each call of ``aged``.
    """

    mesh: Mesh
    chip: Chip
    ageings_s: tuple[float, ...] = ()

    @property
    def layout(self) -> MeshLayout:
        """Where its MZIs are."""
        return self.mesh.layout

    @property
    def ports(self) -> int:
        """Waveguides."""
        return self.mesh.ports

    @property
    def imperfections(self) -> Imperfections:
        """What may be wrong."""
        return self.chip.imperfections

    @property
    def phases(self) -> dict[str, Floats]:
        """Those programmed, by name."""
        return self.mesh.phases

    @cached_property
    def real_phases(self) -> dict[str, Floats]:
        """Those that light meets, by name."""
        return dict(zip(("theta", "phi", "output_phase"), self.chip.phases(self.mesh, self._drifted), strict=True))

    @cached_property
    def _drifted(self) -> Floats:
        drift, total = self.imperfections.drift, np.zeros(self.chip.shifters)
        if not isinstance(drift, Ideal):
            for k, seconds in enumerate(self.ageings_s):
                total += drift.walk(self.chip.shifters, seconds, stream(self.chip.seed, "mesh", "drift", k))
        return total

    def with_phases(self, **phases: npt.ArrayLike) -> FabricatedMesh:
        """The same chip with some of ``phases`` programmed anew.

        Raises:
            InputError: as ``Mesh.with_phases``.
        """
        return replace(self, mesh=self.mesh.with_phases(**phases))

    def aged(self, seconds: float) -> FabricatedMesh:
        """The same chip later. Each call is one step of the walk of its phases.

        Raises:
            InputError: negative seconds.
        """
        number("seconds", seconds)
        return replace(self, ageings_s=(*self.ageings_s, float(seconds)))

    def cells(self) -> Numbers:
        """(MZIs, 2, 2) the matrix of each MZI, with the losses on the way to it."""
        return self.chip.parts.cells(self.real_phases["theta"], self.real_phases["phi"])

    @property
    def output(self) -> Numbers:
        """(ports,) factor at each output."""
        return self.chip.parts.output * np.exp(1j * self.real_phases["output_phase"])

    @property
    def lossless(self) -> bool:
        """No light is lost: its matrix is unitary."""
        return isinstance(self.imperfections.insertion_loss, Ideal)

    def apply(self, vectors: npt.ArrayLike) -> npt.NDArray[Any]:
        """As ``Mesh.apply``."""
        return self._forward(light(vectors, self.ports)).reshape(np.shape(vectors))

    def matrix(self) -> Numbers:
        """(ports, ports), complex128."""
        return self._forward(np.eye(self.ports, dtype=np.complex128))

    @cached_property
    def _chain(self) -> UnitaryChain | CellChain:
        return UnitaryChain.of_cells(self.layout, self.cells()) if self.lossless else CellChain(self.layout, self.cells())

    def _forward(self, vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if isinstance(self._chain, UnitaryChain):
            return self._chain.forward(vectors, self.output)
        return self._chain.forward(vectors, self.output)[0]


def fabricate(mesh: Mesh, imperfections: Imperfections, *, seed: int) -> FabricatedMesh:
    """``mesh`` on a chip with ``imperfections``; the same ``seed`` makes the same chip, whatever the phases.

    Raises:
        InputError: no mesh, no imperfections, a seed that is no integer ≥ 0.
    """
    if not isinstance(mesh, Mesh):
        raise InputError(f"mesh: expected a Mesh, got {type(mesh).__name__}")
    if not isinstance(imperfections, Imperfections):
        raise InputError(f"imperfections: expected Imperfections, got {type(imperfections).__name__}")
    return FabricatedMesh(mesh, Chip(mesh.layout, imperfections, check_integer("seed", seed, 0)))


def _amplitude(loss_db: Any) -> Any:
    """Of a loss of power in dB."""
    return 10.0 ** (-np.asarray(loss_db) / 20)
