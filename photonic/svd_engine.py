"""Any matrix on meshes: its singular value decomposition M = gain · U·diag(a)·V†, two meshes around a column of attenuators.

A matrix larger than the engine is cut into tiles, one that does not fill them is padded with zeros. All tiles share one gain, so
that attenuators, which cannot amplify, have amplitudes from 0 to 1 and what tiles give can be added as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np

from hwsim.views.display import displayed, displayed_by
from numerics.errors import InputError
from photonic._numbers import array, finite, one_of, shown
from photonic.decomposition import decompose
from photonic.layouts import MOST_PORTS, MeshKind, MeshLayout
from photonic.propagation import light

if TYPE_CHECKING:
    import numpy.typing as npt


class LinearMesh(Protocol):
    """What an engine asks of a mesh, ideal or fabricated."""

    @property
    def layout(self) -> MeshLayout:
        """Where its MZIs are."""
        ...

    def apply(self, vectors: npt.ArrayLike, /) -> npt.NDArray[Any]:
        """Of (ports, batch)."""
        ...


@displayed
@dataclass(frozen=True, eq=False)
class SvdTile:
    """One N×N block.

    Attributes:
        right: the mesh that light meets first, V†.
        attenuation: (N,) amplitudes in [0, 1].
        left: the last mesh, U.

    Raises:
        InputError: meshes or attenuators of different sizes, an amplitude outside 0 to 1.
    """

    right: LinearMesh
    attenuation: npt.NDArray[np.float64]
    left: LinearMesh

    def __post_init__(self) -> None:
        size = np.shape(self.attenuation)
        if len(size) != 1 or any(mesh.layout.signals != size[0] for mesh in (self.right, self.left)):
            raise InputError(
                f"tile: meshes of {self.right.layout.signals} and {self.left.layout.signals} signals, attenuators of shape {size}"
            )
        if not (0 <= np.min(self.attenuation) <= np.max(self.attenuation) <= 1):
            raise InputError(
                f"attenuation: expected amplitudes 0 to 1, got {np.min(self.attenuation):g} to {np.max(self.attenuation):g}"
            )

    def apply(self, vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Light (N, batch) through both meshes, without the gain."""
        between = _through(self.right, vectors)
        return _through(self.left, (self.attenuation[:, None] * between).astype(between.dtype, copy=False))


@displayed_by("photonic.cards:svd_engine")
@dataclass(frozen=True, eq=False)
class SvdEngine:
    """A matrix programmed on N×N engines.

    Attributes:
        shape: of the matrix, rows and columns.
        size: N.
        gain: largest singular value of any tile; 1 for a matrix of zeros.
        tiles: by block row, then block column.
    """

    shape: tuple[int, int]
    size: int
    gain: float
    tiles: tuple[tuple[SvdTile, ...], ...]

    @classmethod
    def program(cls, matrix: npt.ArrayLike, *, size: int | None = None, mesh: MeshKind = "rectangular") -> SvdEngine:
        """The engine of a real or complex ``matrix`` (rows, columns).

        Args:
            matrix: finite numbers.
            size: N; by default the larger side of the matrix.
            mesh: rectangular, triangular or diamond.

        Raises:
            InputError: not a matrix of finite numbers, a size below 1, a mesh that does not compute every unitary matrix.
        """
        given = array("matrix", matrix)
        if given.ndim != 2 or 0 in given.shape:
            raise InputError(f"matrix: expected numbers of shape (rows, columns), got {given.dtype} of shape {given.shape}")
        finite("matrix", given)
        one_of("mesh", mesh, get_args(MeshKind))
        if mesh in ("butterfly", "binary_tree"):
            raise InputError(f"mesh: expected rectangular, triangular or diamond, because not all is computed by a {mesh}")
        if size is None:
            size = max(given.shape)
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size <= MOST_PORTS:
            raise InputError(f"size: expected an integer from 1 to {MOST_PORTS}, got {shown(size)}")
        kind = np.complex128 if given.dtype.kind == "c" else np.float64
        down, across = (-(-n // size) for n in given.shape)
        padded = np.zeros((down * size, across * size), kind)
        padded[: given.shape[0], : given.shape[1]] = given
        blocks = padded.reshape(down, size, across, size).transpose(0, 2, 1, 3)
        u, values, v = np.linalg.svd(blocks)
        gain = float(values.max()) or 1.0
        tiles = tuple(
            tuple(SvdTile(decompose(v[i, j], mesh), values[i, j] / gain, decompose(u[i, j], mesh)) for j in range(across))
            for i in range(down)
        )
        return cls((given.shape[0], given.shape[1]), int(size), gain, tiles)

    @property
    def mzis(self) -> int:
        """MZIs in all meshes; the attenuators are not among them."""
        return sum(mesh.layout.mzis for row in self.tiles for tile in row for mesh in (tile.right, tile.left))

    @property
    def attenuators(self) -> int:
        """Attenuators of all tiles."""
        return self.size * sum(len(row) for row in self.tiles)

    def with_meshes(self, change: Callable[[LinearMesh, int], LinearMesh]) -> SvdEngine:
        """The engine with ``change(mesh, number)`` in place of each mesh, numbered tile by tile, right before left."""
        number = iter(range(2 * sum(len(row) for row in self.tiles)))
        tiles = tuple(
            tuple(SvdTile(change(tile.right, next(number)), tile.attenuation, change(tile.left, next(number))) for tile in row)
            for row in self.tiles
        )
        return replace(self, tiles=tiles)

    def apply(self, vectors: npt.ArrayLike) -> npt.NDArray[Any]:
        """matrix · vectors, complex, of (columns,) or (columns, batch); in single precision where ``Mesh.apply`` is.

        Raises:
            InputError: another number of columns, numbers that are not finite.
        """
        given = light(vectors, self.shape[1])
        padded = np.zeros((len(self.tiles[0]) * self.size, given.shape[1]), given.dtype)
        padded[: self.shape[1]] = given
        parts = padded.reshape(len(self.tiles[0]), self.size, -1)
        rows = []
        for row in self.tiles:
            total = np.zeros(parts.shape[1:], given.dtype)
            for tile, part in zip(row, parts, strict=True):
                total += tile.apply(part)
            rows.append(total)
        out = given.dtype.type(self.gain) * np.concatenate(rows)[: self.shape[0]]
        return out.reshape(self.shape[0], *np.shape(vectors)[1:])

    def matrix(self) -> npt.NDArray[np.complex128]:
        """What the engine computes, (rows, columns)."""
        return self.apply(np.eye(self.shape[1], dtype=np.complex128))


def _through(mesh: LinearMesh, vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if mesh.layout.ports == len(vectors):
        return mesh.apply(vectors)
    wires = np.zeros((mesh.layout.ports, vectors.shape[1]), vectors.dtype)
    wires[mesh.layout.signal_ports] = vectors
    return mesh.apply(wires)[mesh.layout.signal_ports]
