"""From a unitary matrix to the phases of a mesh that computes it, in O(N³)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from numerics.errors import InputError
from photonic._numbers import array, finite, number, one_of
from photonic.layouts import MeshKind, MeshLayout, layout
from photonic.mesh import Mesh

if TYPE_CHECKING:
    import numpy.typing as npt

Cells = tuple[Any, Any, Any, Any, Any]
"""s, c (MZIs,), z, above, below (MZIs,) complex: diag(above, below)·[[s, c], [c, −s]]·diag(z, 1)."""

LARGEST = 1e70
"""Fourth powers of larger numbers, summed, are no float64; no unitary matrix has one above 1."""


def decompose(unitary: npt.ArrayLike, mesh: MeshKind = "rectangular", *, tolerance: float = 1e-8) -> Mesh:
    """A mesh whose matrix is ``unitary``.

    Rectangular, triangular and diamond meshes compute every unitary matrix; of a diamond, it is the matrix of
    ``layout.signal_ports``. Butterflies and binary trees have too few MZIs for that: they compute only some.

    Args:
        unitary: (N, N), real or complex. The mesh is unitary to rounding even where the matrix is so only to ``tolerance``.
        mesh: kind of the mesh.
        tolerance: how far the matrix may be from unitary, and from what the mesh can do: Frobenius norm over √N.

    Raises:
        InputError: not a square matrix of finite numbers, or not unitary, or not one that a butterfly or binary tree computes (it
            says how far off); an unknown kind; a size that the kind does not have.
    """
    one_of("mesh", mesh, get_args(MeshKind))
    given = array("unitary", unitary)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not given.size:
        raise InputError(f"unitary: expected a square matrix of numbers, got {given.dtype} of shape {given.shape}")
    finite("unitary", given)
    number("tolerance", tolerance)
    largest = float(max(np.abs(given.real).max(), np.abs(given.imag).max()))
    if largest > LARGEST:
        raise InputError(f"unitary: expected a unitary matrix, got numbers of up to {largest:.3g}")
    matrix = given.astype(np.complex128)
    found, off = _KINDS[mesh](matrix, layout(mesh, len(matrix)))
    if off > tolerance:
        apart = np.linalg.norm(matrix.conj().T @ matrix - np.eye(len(matrix))) / np.sqrt(len(matrix))
        if apart > tolerance:
            raise InputError(f"unitary: expected a unitary matrix, got ‖U†U − 1‖/√N = {apart:.3g}, above tolerance {tolerance:g}")
        raise InputError(
            f"unitary: expected one that a {mesh} mesh computes, nearest found is {off:.3g} off (Frobenius norm over √N)"
        )
    return found


def _rectangular(matrix: Any, plan: MeshLayout) -> tuple[Mesh, float]:
    from photonic._decomposition_kernels import take_apart_rectangle

    real, imag = matrix.real.copy(), matrix.imag.copy()
    s, c, z, z1 = np.empty((4, plan.mzis))
    take_apart_rectangle(real, imag, plan.index, s, c, z, z1)
    return _programmed(plan, s, c, z + 1j * z1, _diagonal(real, imag)), _left(real, imag)


def _triangular(matrix: Any, plan: MeshLayout) -> tuple[Mesh, float]:
    chain = (plan.column - plan.upper) // 2
    return _by_columns(matrix, plan, np.lexsort((plan.upper, chain)), len(matrix) - chain, triangle=True)


def _binary_tree(matrix: Any, plan: MeshLayout) -> tuple[Mesh, float]:
    return _by_columns(matrix, plan, np.arange(plan.mzis), np.full(plan.mzis, len(matrix)), triangle=False)


def _by_columns(matrix: Any, plan: MeshLayout, order: Any, rows: Any, *, triangle: bool) -> tuple[Mesh, float]:
    """Rotations of columns in the order of the light, each of which leaves one row zero in its upper port's column."""
    from photonic._decomposition_kernels import take_apart_columns

    real, imag = np.ascontiguousarray(matrix.real.T), np.ascontiguousarray(matrix.imag.T)
    found = np.empty((4, plan.mzis))
    row = rows - 1 if triangle else plan.lower
    take_apart_columns(
        real, imag, plan.upper[order], plan.lower[order], row[order].astype(np.int32), rows[order].astype(np.int32), *found
    )
    s, c, z, z1 = np.empty((4, plan.mzis))
    s[order], c[order], z[order], z1[order] = found
    return _programmed(plan, s, c, z + 1j * z1, _diagonal(real, imag)), _left(real, imag)


def _diamond(matrix: Any, plan: MeshLayout) -> tuple[Mesh, float]:
    """The triangle that the signals meet. At θ = π an MZI lets all light pass, on its lower port without any phase."""
    inner, off = _triangular(matrix, layout("triangular", len(matrix)))
    theta, phi = np.full(plan.mzis, np.pi), np.zeros(plan.mzis)
    output = np.zeros(plan.ports)
    first = plan.first_signal
    place = plan.index[inner.layout.column, inner.layout.upper + first]
    theta[place], phi[place] = inner.theta, inner.phi
    output[plan.signal_ports] = inner.output_phase
    return Mesh(plan, theta, phi, output), off


def _butterfly(matrix: Any, plan: MeshLayout) -> tuple[Mesh, float]:
    """From the last column to the first: blocks of a matrix whose halves are rows of one another's multiples."""
    n = len(matrix)
    s, c, above = np.empty(plan.mzis), np.empty(plan.mzis), np.empty(plan.mzis, np.complex128)
    left, off = matrix.copy(), 0.0
    for k in range(plan.depth - 1, -1, -1):
        half = 1 << k
        # (block, upper or lower half of its rows, row, left or right half of its columns, column)
        blocks = np.stack([left[b : b + 2 * half, b : b + 2 * half] for b in range(0, n, 2 * half)])
        blocks = blocks.reshape(-1, 2, half, 2, half)
        upper, lower = blocks[:, 0], blocks[:, 1]
        overlap = (upper * lower.conj()).sum(axis=-1)
        total = overlap[:, :, 0] - overlap[:, :, 1]
        norms = (np.abs(blocks) ** 2).sum(axis=-1)
        straight, crossed = norms[:, 0, :, 0] + norms[:, 1, :, 1], norms[:, 1, :, 0] + norms[:, 0, :, 1]
        size = np.sqrt(straight + crossed)
        size = np.where(size > 0, size, 1.0)
        sine, cosine = np.sqrt(straight) / size, np.sqrt(crossed) / size
        turn = np.where(np.abs(total) > 0, total / np.where(np.abs(total) > 0, np.abs(total), 1.0), 1.0)
        mine = plan.column == k
        s[mine], c[mine], above[mine] = sine.ravel(), cosine.ravel(), turn.ravel()
        sine, cosine, turn = sine[:, :, None, None], cosine[:, :, None, None], turn[:, :, None, None].conj()
        first, second = sine * turn * upper + cosine * lower, cosine * turn * upper - sine * lower
        off += float((np.abs(first[:, :, 1]) ** 2).sum() + (np.abs(second[:, :, 0]) ** 2).sum())
        left = np.zeros_like(left)
        for b, block in enumerate(range(0, n, 2 * half)):
            middle = block + half
            left[block:middle, block:middle] = first[b, :, 0]
            left[middle : middle + half, middle : middle + half] = second[b, :, 1]
    ends = np.diagonal(left)
    off += float((np.abs(np.abs(ends) - 1) ** 2).sum())
    one = np.ones(plan.mzis, np.complex128)
    # Phases of what is left stand before the first column.
    return _program(plan, (s, c, one, above, one), np.ones(n, np.complex128), _direction(ends)), float(np.sqrt(off / n))


def _programmed(plan: MeshLayout, s: Any, c: Any, z: Any, diagonal: Any) -> Mesh:
    one = np.ones(plan.mzis, np.complex128)
    return _program(plan, (s, c, z, one, one), _direction(diagonal), np.ones(plan.ports, np.complex128))


def _program(plan: MeshLayout, cells: Cells, after: Any, before: Any) -> Mesh:
    """The mesh of unitary cells between diagonal phases ``before`` and ``after`` (ports,) complex."""
    from photonic._decomposition_kernels import frames

    s, c, z, above, below = cells
    external, frame = np.empty(plan.mzis, np.complex128), np.array(before, np.complex128)
    frames(plan.upper, plan.lower, s, c, z, above, below, external, frame)
    return Mesh(plan, 2 * np.arctan2(s, c), _angle(external), _angle(after * frame))


def _angle(numbers: Any) -> npt.NDArray[np.float64]:
    """In [0, 2π)."""
    angles = np.arctan2(numbers.imag, numbers.real)
    angles += np.where(angles < 0, 2 * np.pi, 0.0)
    return np.where(angles < 2 * np.pi, angles, 0.0)


def _direction(numbers: Any) -> Any:
    size = np.abs(numbers)
    return np.where(size > 0, numbers / np.where(size > 0, size, 1.0), 1.0)


def _diagonal(real: Any, imag: Any) -> Any:
    return np.diagonal(real) + 1j * np.diagonal(imag)


def _left(real: Any, imag: Any) -> float:
    """How far what rotations left is from a diagonal of phases."""
    rest = real + 1j * imag
    np.fill_diagonal(rest, np.abs(np.diagonal(rest)) - 1)
    return float(np.linalg.norm(rest) / np.sqrt(len(rest)))


_KINDS = {
    "rectangular": _rectangular, "triangular": _triangular, "butterfly": _butterfly, "binary_tree": _binary_tree,
    "diamond": _diamond,
}  # fmt: skip
