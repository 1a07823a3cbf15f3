"""Tiles of weights as an engine really sets them: what is drawn when it is made, and the matrices that light meets.

Errors are drawn once for each physical engine; all tiles that are set on it share them. Tiles are dealt to engines in turn, in
the order of ``photonic.tiling``: columns of tiles, then the inner dimension, then slices of weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerics._parallel import run_parts
from numerics.faults.maps import stream
from photonic.emulation.faults import PhotonicFaults
from photonic.engines import MeshEngine, WeightBank
from photonic.fabrication import Chip
from photonic.imperfections import TURN, Ideal, Imperfections
from photonic.layouts import MeshLayout

if TYPE_CHECKING:
    import numpy.typing as npt

    from photonic.spec import PhotonicSpec

    Floats = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.complex128]

DENSE_SHIFTERS = 600
"""Up to so many phase shifters, heat is a matrix; beyond, a convolution for each tile."""
CHUNK_NUMBERS = 1 << 21
"""Phases that are computed at once."""


def seed_of(*words: object) -> int:
    """A seed for every list of words."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=7).digest(), "little")


class Stage(NamedTuple):
    """Matrices of one pass: real and imaginary parts (K tiles, N inputs, N tiles · N outputs); no imaginary part where nothing
    turns phases."""

    straight: Floats
    turned: Floats

    @classmethod
    def of(cls, matrices: npt.NDArray[Any], across: int) -> Stage:
        """Of (T, N, N) matrices, by output, then input, ``across`` of them in a row."""
        n = matrices.shape[-1]

        def laid(values: Floats) -> Floats:
            rows = values.reshape(-1, across, n, n).transpose(0, 3, 1, 2)
            return np.ascontiguousarray(rows.reshape(-1, n, across * n))

        return cls(laid(matrices.real), laid(matrices.imag) if np.iscomplexobj(matrices) else np.zeros((0, 0, 0)))

    def row(self, block: int) -> Stage:
        """One row of tiles: (N inputs, N tiles · N outputs)."""
        return Stage(self.straight[block], self.turned[block] if self.turned.size else np.zeros((0, 0)))


@dataclass(frozen=True)
class Tiles:
    """Tiles as light meets them, and one gain for all.

    Attributes:
        stages: one for each pass.
        gain: what full scale of a tile is worth.
        minus: the second of two passes, which is subtracted; None for none.
    """

    stages: tuple[Stage, ...]
    gain: float = 1.0
    minus: Stage | None = None

    @property
    def nbytes(self) -> int:
        """Memory."""
        every = (*self.stages, *(() if self.minus is None else (self.minus,)))
        return sum(part.nbytes for stage in every for part in stage)


def attenuators(ports: int) -> MeshLayout:
    """A column of interferometers, each from its upper input to its upper output; their lower ports lead nowhere."""
    upper = 2 * np.arange(ports, dtype=np.int32)
    return MeshLayout("attenuators", 2 * ports, upper, upper + 1, np.zeros(ports, np.int32))


@dataclass(frozen=True, eq=False)
class Part:
    """A mesh, or a column of attenuators, of every engine.

    Attributes:
        layout: where its interferometers are.
        imperfections: what may be wrong.
        count: engines.
        seed: of what was drawn when they were made.
        name: what it is, in the names of random streams.
        age_s: since it was calibrated.
        faults: what broke; None for nothing.
    """

    layout: MeshLayout
    imperfections: Imperfections
    count: int
    seed: int
    name: str
    age_s: float = 0.0
    faults: PhotonicFaults | None = None

    @cached_property
    def chips(self) -> list[Chip]:
        """One an engine."""
        return [Chip(self.layout, self.imperfections, seed_of(self.seed, self.name, k)) for k in range(self.count)]

    @cached_property
    def ideal(self) -> bool:
        """Whether light meets what is programmed."""
        nothing = all(
            isinstance(getattr(self.imperfections, name), Ideal)
            for name in ("phase_error", "phase_quantisation", "splitter_error", "insertion_loss", "crosstalk")
        )
        return nothing and self.faults is None and (isinstance(self.imperfections.drift, Ideal) or not self.age_s)

    @cached_property
    def parts(self) -> tuple[Any, ...]:
        """``CellParts`` of all engines, one array each."""
        found = [chip.parts for chip in self.chips]
        return tuple(np.stack([getattr(one, name) for one in found]) for name in ("left", "middle", "right", "output"))

    @cached_property
    def added(self) -> Floats:
        """(engines, shifters) errors of fabrication, and what drift added."""
        total = np.stack([chip.phase_errors for chip in self.chips])
        drift = self.imperfections.drift
        if isinstance(drift, Ideal):
            return total
        for k, chip in enumerate(self.chips):
            total[k] += drift.walk(chip.shifters, self.age_s, stream(chip.seed, "age"))
            if self.faults is not None:
                total[k] += drift.walk(chip.shifters, self.faults.drift_s, stream(self.faults.seed, "drift", self.name, k))
        return total

    @cached_property
    def stuck(self) -> Floats | None:
        """(engines, shifters) radians, nan where nothing is stuck; None for nothing."""
        if self.faults is None or not self.faults.stuck_shifters:
            return None
        return self.faults.stuck((self.count, self.chips[0].shifters), self.name)

    @property
    def broken(self) -> int:
        """Interferometers' phase shifters, and those at the outputs of a mesh, that are stuck."""
        there = 2 * self.layout.mzis if self.layout.kind == "attenuators" else None
        return 0 if self.stuck is None else int(np.isfinite(self.stuck[:, :there]).sum())

    @cached_property
    def heat(self) -> Floats | None:
        """(shifters, shifters) share of every shifter's phase that heats each other one; None where there is too much of it."""
        heat, count = self.imperfections.crosstalk, self.chips[0].shifters
        if isinstance(heat, Ideal) or count > DENSE_SHIFTERS:
            return None
        n, found = self.layout.mzis, np.empty((count, count))
        for k in range(count):
            one = np.zeros(count)
            one[k] = 1.0
            found[:, k] = np.concatenate(heat.warmed(self.layout, one[:n], one[n : 2 * n], one[2 * n :]))
        return found - np.eye(count)

    def driven(self, phases: Floats, engine: npt.NDArray[np.int64]) -> Floats:
        """(T, shifters) what is driven where ``phases`` are programmed on engines (T,)."""
        steps = self.imperfections.phase_quantisation
        found = phases if isinstance(steps, Ideal) else steps.driven_in(self.layout, phases)
        if self.stuck is None:
            return found
        stuck = self.stuck[engine]
        return np.where(np.isnan(stuck), found, stuck)

    def real(self, phases: Floats, engine: npt.NDArray[np.int64]) -> Floats:
        """Phases that light meets where ``phases`` (T, shifters) are programmed on engines (T,)."""
        faults, n = self.imperfections, self.layout.mzis
        programmed, steps, added = phases, faults.phase_quantisation, self.added[engine]
        phases = self.driven(programmed, engine)
        if not isinstance(steps, Ideal) and steps.arms == "both":
            added = added + steps.kept_mean(self.layout, programmed, phases)
        if not isinstance(faults.crosstalk, Ideal):
            driven = np.mod(phases, TURN)
            if self.heat is not None:
                from photonic.emulation._tile_kernels import warmed

                phases, heat = np.empty_like(driven), self.heat
                out = phases
                run_parts(lambda i, j: warmed(i, j, driven, heat, out), len(driven), smallest=1 + 100_000 // heat.size)
            else:
                warm = [faults.crosstalk.warmed(self.layout, one[:n], one[n : 2 * n], one[2 * n :]) for one in driven]
                phases = np.stack([np.concatenate(one) for one in warm])
        return phases + added

    def matrices(self, phases: Floats, engine: npt.NDArray[np.int64]) -> Numbers:
        """(T, ports, ports) what light meets where ``phases`` (T, shifters) are programmed."""
        from photonic.emulation._tile_kernels import met

        out = np.empty((len(phases), self.layout.ports, self.layout.ports), np.complex128)
        real, where = np.ascontiguousarray(self.real(phases, engine)), np.ascontiguousarray(engine)
        upper, lower = self.layout.upper, self.layout.lower

        def work(i: int, j: int) -> None:
            met(i, j, real, where, *self.parts, upper, lower, out)

        run_parts(work, len(phases), smallest=_smallest(self.layout.ports))
        return out

    def amplitudes(self, wanted: Floats, engine: npt.NDArray[np.int64]) -> Numbers:
        """(T, N) what attenuators do to light that are set to amplitudes (T, N): θ = 2·asin a; φ makes it real."""
        theta = 2 * np.arcsin(np.clip(wanted, 0, 1))
        phases = np.concatenate([theta, np.mod(-np.pi / 2 - theta / 2, TURN), np.zeros((len(theta), self.layout.ports))], axis=1)
        real, n = self.real(phases, engine), self.layout.mzis
        left, middle, right, _ = (part[engine] for part in self.parts)
        inner, outer = np.exp(1j * real[:, :n]), np.exp(1j * real[:, n : 2 * n])
        steps = self.imperfections.phase_quantisation
        if not isinstance(steps, Ideal) and steps.arms == "both":
            kept = steps.kept_mean(self.layout, phases, self.driven(phases, engine))
            outer = outer * np.exp(1j * kept[:, 2 * n :: 2])  # what the upper outputs share with the lower ones
        upper = left[:, :, 0, 0] * middle[:, :, 0, 0] * inner + left[:, :, 0, 1] * middle[:, :, 1, 0]
        return upper * right[:, :, 0] * outer


class MeshWeights:
    """Tiles of real numbers as U·Σ·V† on meshes and attenuators.

    Args:
        spec: of the machine; its engine is a mesh.
        seed: of what was drawn when it was made.
        faults: what broke.
    """

    def __init__(self, spec: PhotonicSpec, seed: int, faults: PhotonicFaults | None) -> None:
        assert isinstance(spec.engine, MeshEngine)
        self.engine = spec.engine
        section, bits = spec.imperfections, None if spec.tuning is None else spec.tuning.bits
        kinds = section.of_mesh(bits)
        common: dict[str, Any] = {"age_s": section.age_s, "faults": faults}

        def part(layout: MeshLayout, name: str) -> Part:
            return Part(layout, kinds, self.engine.count, seed, name, **common)

        self.first = part(self.engine.layout, "first mesh")
        self.last = part(self.engine.layout, "last mesh") if self.engine.meshes == 2 else self.first
        self.between = part(attenuators(self.engine.ports), "attenuators")
        losses = section.path_losses
        # Of the longest way, and of the phase shifter at each output: more light, or gain, makes up for it.
        lost = 0.0
        if not isinstance(losses, str):
            lost = self.engine.depth * losses.interferometer_db + self.engine.meshes * losses.phase_shifter_db
        self.made_up = 10 ** (lost / 20)

    def tiles(self, tiles: Floats, engines: npt.NDArray[np.int64]) -> Tiles:
        """As light meets ``tiles`` (T, N, N), by output, then input, that are set on engines (K tiles, N tiles)."""
        engine, across = engines.ravel(), engines.shape[1]
        count, n = len(tiles), self.engine.ports
        if self.first.ideal and self.engine.meshes == 2:
            gain = _spectral_gain(tiles)
            return Tiles((Stage.of(tiles / gain, across),), gain)
        u, values, vt = decomposed(tiles)
        gain = float(values.max(initial=0.0)) or 1.0
        wanted = values / gain
        if self.first.ideal:
            return Tiles((Stage.of(wanted[:, :, None] * vt, across), Stage.of(u, across)), gain)
        stages = tuple(np.empty((count, n, n), np.complex128) for _ in range(3 - self.engine.meshes))
        step = max(1, CHUNK_NUMBERS // max(self.first.chips[0].shifters, n * n))
        for start in range(0, count, step):
            mine = slice(start, start + step)
            where = engine[mine]
            right = self.first.matrices(self._phases(vt[mine]), where)
            left = self.last.matrices(self._phases(u[mine]), where)
            amplitude = self.between.amplitudes(wanted[mine], where) * self.made_up
            if len(stages) == 1:
                from photonic.emulation._tile_kernels import joined

                out = stages[0][mine]
                joined(0, len(where), left, amplitude, right, out)
            else:
                open_ = self.between.amplitudes(np.ones_like(wanted[mine]), where) * self.made_up
                stages[0][mine] = amplitude[:, :, None] * right
                stages[1][mine] = open_[:, :, None] * left
        return Tiles(tuple(Stage.of(stage, across) for stage in stages), gain)

    @property
    def broken(self) -> int:
        """Phase shifters that are stuck."""
        parts = (self.first, self.between) if self.last is self.first else (self.first, self.between, self.last)
        return sum(part.broken for part in parts)

    def _phases(self, matrices: Floats) -> Floats:
        from photonic.emulation._tile_kernels import programmed

        plan = self.engine.layout
        triangle = self.engine.mesh == "triangular"
        order, row, rows = _triangle(plan) if triangle else (np.zeros(0, np.int64), *np.zeros((2, 0), np.int32))
        given, phases = np.ascontiguousarray(matrices), np.empty((len(matrices), 2 * plan.mzis + plan.ports))
        # A rectangle finds its rotations by the layout's index, a triangle by its order.
        index = np.zeros((1, 1), np.int64) if triangle else plan.index

        def work(i: int, j: int) -> None:
            programmed(i, j, given, triangle, index, plan.upper, plan.lower, order, row, rows, phases)

        run_parts(work, len(given), smallest=_smallest(plan.ports))
        return phases


class BankWeights:
    """Tiles of numbers in −1 to 1 (or 0 to 1) as shares of light that rings drop.

    Args:
        spec: of the machine; its engine is a weight bank.
        seed: of what was drawn when it was made.
        faults: what broke.
    """

    def __init__(self, spec: PhotonicSpec, seed: int, faults: PhotonicFaults | None) -> None:
        assert isinstance(spec.engine, WeightBank)
        self.engine, section = spec.engine, spec.imperfections.rings
        shape = (self.engine.count, self.engine.ports, self.engine.ports)
        self.ratio: float | None = None
        self.error = np.zeros(shape)
        if not isinstance(section, str):
            self.ratio = section.channel_spacing_ghz / section.linewidth_ghz
            error = section.resonance_error_ghz / section.linewidth_ghz
            self.error = error * stream(seed, "rings").standard_normal(shape)
        self.stuck = np.full(shape, np.nan)
        if faults is not None and faults.stuck_shifters:
            self.stuck = faults.stuck(shape, "rings") / TURN

    def tiles(self, tiles: Floats, engines: npt.NDArray[np.int64]) -> Tiles:
        """As light meets ``tiles`` (T, N, N), by output, then input, that are set on banks (K tiles, N tiles)."""
        engine, across = engines.ravel(), engines.shape[1]
        if self.engine.sign == "differential":
            return Tiles((Stage.of(2 * self._dropped((1 + tiles) / 2, engine) - 1, across),))
        plus, minus = (self._dropped(np.maximum(sign * tiles, 0), engine) for sign in (1.0, -1.0))
        return Tiles((Stage.of(plus, across),), minus=Stage.of(minus, across))

    @property
    def broken(self) -> int:
        """Rings that are stuck."""
        return int(np.isfinite(self.stuck).sum())

    def _dropped(self, wanted: Floats, engine: npt.NDArray[np.int64]) -> Floats:
        if self.ratio is None:
            stuck = self.stuck[engine]
            return np.where(np.isnan(stuck), wanted, stuck)
        from photonic.emulation._tile_kernels import rings

        out, given, ratio = np.empty_like(wanted), np.ascontiguousarray(wanted), self.ratio
        error, stuck, where = self.error, self.stuck, np.ascontiguousarray(engine)

        def work(i: int, j: int) -> None:
            rings(i, j, given, where, error, stuck, ratio, out)

        run_parts(work, len(given), smallest=_smallest(wanted.shape[1]))
        return out


def decomposed(tiles: Floats) -> tuple[Floats, Floats, Floats]:
    """U (T, N, N), singular values (T, N), largest first, and V† (T, N, N) of real tiles; bits do not depend on threads."""
    from photonic.emulation._tile_kernels import singular

    given = np.ascontiguousarray(tiles, np.float64)
    u, values, vt = np.empty_like(given), np.empty(given.shape[:2]), np.empty_like(given)
    run_parts(lambda i, j: singular(i, j, given, u, values, vt), len(given), smallest=_smallest(given.shape[1]))
    return u, values, vt


def _spectral_gain(tiles: Floats) -> float:
    """Where nothing is wrong with meshes, their phases need not be known: the largest singular value is."""
    return float(decomposed(tiles)[1].max(initial=0.0)) or 1.0


def _triangle(plan: MeshLayout) -> tuple[Any, Any, Any]:
    """As ``photonic.decomposition`` takes a triangle apart: order of the light, the row made zero, rows that may not be."""
    chain = (plan.column - plan.upper) // 2
    order = np.lexsort((plan.upper, chain))
    rows = plan.ports - chain[order]
    return order, (rows - 1).astype(np.int32), rows.astype(np.int32)


def _smallest(ports: int) -> int:
    """Tiles below which another thread costs more than it saves."""
    return 1 + 200_000 // ports**3
