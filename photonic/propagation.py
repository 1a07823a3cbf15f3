"""Light through the cells of a mesh, and back: the arrays around the compiled loops.

A cell is what an MZI does to its two ports, a 2×2 matrix. ``UnitaryChain`` takes unitary ones, keeps three shears for each port
pair and one phase, and goes backwards exactly; ``CellChain`` takes any, and goes backwards from checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed
from numerics._parallel import run_parts
from numerics.errors import InputError
from photonic._numbers import array, complex_numbers, finite, is_one_of, real_numbers
from photonic.layouts import MeshLayout

if TYPE_CHECKING:
    import numpy.typing as npt

GROUPS = 4
"""Sums over a batch are made in so many parts, whatever the number of threads."""
PART = 40_000
"""MZIs times tiles below which another thread costs more than it saves."""


def mzi_cells(theta: npt.ArrayLike, phi: npt.ArrayLike) -> npt.NDArray[np.complex128]:
    """(…, 2, 2) MZIs in the convention of ``mesh``: i·e^{iθ/2}·[[e^{iφ}·sin θ/2, cos θ/2], [e^{iφ}·cos θ/2, −sin θ/2]].

    Raises:
        InputError: phases that are no finite real numbers, or that do not broadcast.
    """
    inner, outer = real_numbers("theta", theta), real_numbers("phi", phi)
    finite("theta", inner)
    finite("phi", outer)
    try:
        inner, outer = np.broadcast_arrays(inner, outer)
    except ValueError:
        raise InputError(f"phi: expected a shape that broadcasts with theta's {inner.shape}, got {outer.shape}") from None
    half = inner / 2
    s, c = np.sin(half), np.cos(half)
    common, phase = 1j * (c + 1j * s), np.exp(1j * outer)
    upper = np.stack([common * phase * s, common * c], axis=-1)
    return np.stack([upper, np.stack([common * phase * c, -common * s], axis=-1)], axis=-2)


def light(vectors: npt.ArrayLike, ports: int) -> npt.NDArray[Any]:
    """``vectors`` (ports,) or (ports, batch) as complex (ports, batch): complex64 for single precision and less.

    Raises:
        InputError: another shape, no numbers, or some that are not finite.
    """
    given = array("vectors", vectors)
    if given.dtype.itemsize > (16 if given.dtype.kind == "c" else 8):
        raise InputError(f"vectors: expected numbers of at most double precision, got {given.dtype}")
    if given.ndim not in (1, 2) or given.shape[0] != ports:
        raise InputError(f"vectors: expected shape ({ports},) or ({ports}, batch), got {given.shape}")
    finite("vectors", given)
    return np.ascontiguousarray(given.reshape(ports, -1), np.result_type(given.dtype, np.complex64))


@displayed
@dataclass(frozen=True, eq=False)
class UnitaryChain:
    """Unitary cells of a mesh, as the compiled loops take them.

    Attributes:
        layout: of the mesh.
        shears: (MZIs, 4), in ``layout.executed``'s order; see ``_mesh_kernels.normal_form``.
        after: (MZIs,) complex, in the same order.
        frame: (ports,) complex.
    """

    layout: MeshLayout
    shears: npt.NDArray[np.float64]
    after: npt.NDArray[np.complex128]
    frame: npt.NDArray[np.complex128]

    @classmethod
    def of_phases(cls, layout: MeshLayout, theta: npt.NDArray[np.float64], phi: npt.NDArray[np.float64]) -> UnitaryChain:
        """Of MZIs as they should be.

        Raises:
            InputError: no layout; phases of another shape.
        """
        is_one_of("layout", layout, MeshLayout)
        for name, phases in (("theta", theta), ("phi", phi)):
            if array(name, phases).shape != (layout.mzis,):
                raise InputError(f"{name}: expected shape ({layout.mzis},), got {np.shape(phases)}")
        theta, phi = np.asarray(theta), np.asarray(phi)
        half = theta / 2
        s, c = np.sin(half), np.cos(half)
        common = _complex(-s, c)
        return cls._of(layout, s, c, _complex(np.cos(phi), np.sin(phi)), common, common)

    @classmethod
    def of_cells(cls, layout: MeshLayout, cells: npt.NDArray[np.complex128]) -> UnitaryChain:
        """Of unitary cells (MZIs, 2, 2).

        Raises:
            InputError: no layout; cells of another shape.
        """
        cells = _cells(layout, cells)
        s, c = np.abs(cells[:, 0, 0]), np.abs(cells[:, 0, 1])
        straight, crossed = _direction(cells[:, 0, 0]), _direction(cells[:, 0, 1])
        # The larger pair of numbers fixes the phase below.
        phase = straight * np.conj(crossed)
        below = np.where(s >= c, -_direction(cells[:, 1, 1]), _direction(cells[:, 1, 0]) * np.conj(phase))
        norm = np.hypot(s, c)
        return cls._of(layout, s / norm, c / norm, phase, crossed, below)

    @classmethod
    def _of(cls, layout: MeshLayout, s: Any, c: Any, phase: Any, above: Any, below: Any) -> UnitaryChain:
        from photonic._mesh_kernels import normal_form

        order, upper, lower = layout.executed
        shears, after = np.empty((layout.mzis, 4)), np.empty(layout.mzis, np.complex128)
        frame = np.empty(layout.ports, np.complex128)
        normal_form(order, upper, lower, s, c, phase, above, below, shears, after, frame)
        return cls(layout, shears, after, frame)

    @cached_property
    def _single(self) -> npt.NDArray[np.float32]:
        return self.shears.astype(np.float32)

    def _shears(self, kind: Any) -> npt.NDArray[Any]:
        return self.shears if kind == np.float64 else self._single

    def forward(self, vectors: npt.NDArray[Any], factor: npt.NDArray[np.complex128]) -> npt.NDArray[Any]:
        """What comes out, (ports, batch), of complex ``vectors`` (ports, batch); ``factor`` (ports,) at the outputs."""
        from photonic._mesh_kernels import forward_chain

        _, upper, lower = self.layout.executed
        out = np.empty_like(vectors)
        given = _parts(vectors)
        shears, end = self._shears(given.dtype), _numbers(factor * self.frame, given.dtype)

        def work(begin: int, stop: int) -> None:
            forward_chain(begin, stop, given, upper, lower, shears, end, _parts(out))

        run_parts(work, _tiles(vectors), smallest=_smallest(self.layout))
        return out

    def backward(
        self, outputs: npt.NDArray[Any], gradient: npt.NDArray[Any], factor: npt.NDArray[np.complex128]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The adjoint of ``forward``, from what came out, in memory of the same size.

        With o the light and g the gradient (dL = Re Σ conj(g)·do) at one place, and sums over the batch:

        Returns:
            the gradient with respect to the inputs (ports, batch); (MZIs, 5) in the layout's order: Σ Im(g·conj(o)) at a cell's
            upper and lower output, real and imaginary part of Σ conj(g₁)·o₂ − g₂·conj(o₁) there, Σ Im(g·conj(o)) at its upper
            input; (ports,) Σ Im(g·conj(o)) at the outputs, which is the gradient with respect to their phases.
        """
        from photonic._mesh_kernels import backward_chain, moments

        order, upper, lower = self.layout.executed
        out = np.empty_like(outputs)
        seen, given = _parts(outputs), _parts(gradient)
        shears, end = self._shears(given.dtype), factor * self.frame
        undo, back = _numbers(1 / end, given.dtype), _numbers(np.conj(end), given.dtype)
        groups = min(GROUPS, _tiles(outputs))
        cross = np.zeros((groups, self.layout.mzis, 2), given.dtype)
        phases = np.zeros((groups, self.layout.ports, 2), given.dtype)

        def work(begin: int, stop: int) -> None:
            backward_chain(begin, stop, groups, seen, given, upper, lower, shears, undo, back, cross, phases, _parts(out))

        run_parts(work, groups, smallest=_smallest(self.layout, _tiles(outputs) // max(groups, 1)))
        total, at_end = cross.sum(axis=0, dtype=np.float64), phases[:, :, 1].sum(axis=0, dtype=np.float64)
        found = np.empty((self.layout.mzis, 5))
        moments(upper, lower, self.shears, self.after, total, at_end.copy(), found)
        sorted_back = np.empty_like(found)
        sorted_back[order] = found
        return out, sorted_back, at_end


@displayed
@dataclass(frozen=True, eq=False)
class CellChain:
    """Any 2×2 cells of a mesh: losses that differ between arms, splitters that are not equal.

    Attributes:
        layout: of the mesh.
        cells: (MZIs, 2, 2) complex, in the layout's order.

    Raises:
        InputError: no layout; cells of another shape.
    """

    layout: MeshLayout
    cells: npt.NDArray[np.complex128]

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", _cells(self.layout, self.cells))

    def _plan(self, kind: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Order of execution, its ports and cells, and where its segments of √depth columns begin."""
        order, upper, lower, bounds = self.layout.segmented
        cells = _numbers(self.cells[order].reshape(-1), kind).reshape(-1, 8)
        return order, upper, lower, cells, bounds

    def forward(
        self, vectors: npt.NDArray[Any], factor: npt.NDArray[np.complex128], *, keep: bool = False
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """What comes out, (ports, batch), of complex ``vectors``, times ``factor`` (ports,).

        Args:
            vectors: (ports, batch).
            factor: complex.
            keep: whether to keep the light every √depth columns, for ``backward``; it is the second result.
        """
        from photonic._cell_kernels import forward_cells

        out = np.empty_like(vectors)
        given = _parts(vectors)
        _, upper, lower, cells, bounds = self._plan(given.dtype)
        tiles = _tiles(vectors)
        shape = (tiles, bounds.size - 1, 2 * _lanes(vectors) * self.layout.ports)
        saved = np.empty(shape if keep else (0, 0, 0), given.dtype)
        end = _numbers(factor, given.dtype)

        def work(begin: int, stop: int) -> None:
            forward_cells(begin, stop, given, upper, lower, cells, end, bounds, saved, _parts(out))

        run_parts(work, tiles, smallest=_smallest(self.layout))
        return out, saved

    def backward(
        self, saved: npt.NDArray[Any], gradient: npt.NDArray[Any], factor: npt.NDArray[np.complex128]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.complex128], npt.NDArray[np.complex128]]:
        """The adjoint of ``forward``: gradients with respect to the inputs, the cells (MZIs, 2, 2) and ``factor`` (ports,).

        Of a complex number z the gradient g is dL = Re Σ conj(g)·dz, as torch has it.
        """
        from photonic._cell_kernels import backward_cells

        given = _parts(gradient)
        order, upper, lower, cells, bounds = self._plan(given.dtype)
        out = np.empty_like(gradient)
        groups = min(GROUPS, _tiles(gradient))
        change = np.zeros((groups, self.layout.mzis, 8), given.dtype)
        ends = np.zeros((groups, self.layout.ports, 2), given.dtype)
        back = _numbers(np.conj(factor), given.dtype)

        def work(begin: int, stop: int) -> None:
            backward_cells(
                begin, stop, groups, given, upper, lower, cells, back, bounds, saved, change, ends, _parts(out)
            )  # fmt: skip

        run_parts(work, groups, smallest=_smallest(self.layout, _tiles(gradient) // max(groups, 1)))
        found = np.empty((self.layout.mzis, 2, 2), np.complex128)
        found[order] = change.sum(axis=0, dtype=np.float64).view(np.complex128).reshape(-1, 2, 2)
        return out, found, ends.sum(axis=0, dtype=np.float64).view(np.complex128).reshape(-1)


def _cells(layout: MeshLayout, cells: npt.ArrayLike) -> npt.NDArray[np.complex128]:
    is_one_of("layout", layout, MeshLayout)
    given = complex_numbers("cells", cells)
    if given.shape != (layout.mzis, 2, 2):
        raise InputError(f"cells: expected shape ({layout.mzis}, 2, 2), got {given.shape}")
    return given


def _complex(real: npt.NDArray[np.float64], imag: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    found = np.empty(real.shape, np.complex128)
    found.real, found.imag = real, imag
    return found


def _direction(numbers: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    """z/|z|; 1 for 0."""
    size = np.abs(numbers)
    there = size > 0
    return np.where(there, numbers / np.where(there, size, 1.0), 1.0)


def _parts(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Complex (…, n) seen as real (…, 2n)."""
    return numbers.view(np.float32 if numbers.dtype == np.complex64 else np.float64)


def _numbers(values: npt.NDArray[np.complex128], kind: Any) -> npt.NDArray[Any]:
    """Complex (n,) as real (n, 2) of that kind."""
    return np.ascontiguousarray(values, np.complex128).view(np.float64).reshape(-1, 2).astype(kind, copy=False)


def _lanes(vectors: npt.NDArray[Any]) -> int:
    """Vectors in a tile."""
    from photonic._lanes import PART_BYTES

    return 2 * PART_BYTES // vectors.itemsize


def _tiles(vectors: npt.NDArray[Any]) -> int:
    return -(-vectors.shape[1] // _lanes(vectors))


def _smallest(layout: MeshLayout, tiles: int = 1) -> int:
    return 1 + PART // (1 + layout.mzis * max(tiles, 1))
