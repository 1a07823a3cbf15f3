"""Compiled loops of chains of any 2×2 matrices (numba), unitary or not, and their adjoint from checkpoints."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from numba import njit

from photonic._lanes import PART_BYTES, cell, cell_back, cell_kept, overlap
from photonic._mesh_kernels import U, _aligned, _load, _scale, _store


@njit(cache=True, nogil=True)
def forward_cells(begin, end, vectors, upper, lower, cells, factor, bounds, saved, out):
    """Tiles ``begin`` to ``end`` of vectors (ports, 2 · batch) through a chain of matrices.

    cells: (MZIs, 8) by rows, each number real and imaginary; factor: (ports, 2), at the end; bounds: (segments + 1,) MZIs at
    which a segment begins; saved: (tiles, segments, 2 · lanes · ports) written: the state there; none is kept if it is empty.
    """
    lanes = PART_BYTES // vectors.itemsize
    row = U(2 * lanes)
    state = _aligned(2 * lanes * vectors.shape[0], vectors)
    for tile in range(begin, end):
        _load(vectors, tile * lanes, state, 2 * lanes, 0)
        for j in range(bounds.size - 1):
            if saved.size:
                saved[tile, j] = state
            for e in range(bounds[j], bounds[j + 1]):
                cell(
                    state, U(upper[e]) * row, U(lower[e]) * row,
                    cells[e, 0], cells[e, 1], cells[e, 2], cells[e, 3], cells[e, 4], cells[e, 5], cells[e, 6], cells[e, 7],
                )  # fmt: skip
        _scale(state, 2 * lanes, 0, factor)
        _store(state, 2 * lanes, 0, tile * lanes, out)


@njit(cache=True, nogil=True)
def backward_cells(begin, end, groups, gradient, upper, lower, cells, back, bounds, saved, change, ends, out):
    """The adjoint of ``forward_cells``: each segment is computed again from the state at its beginning.

    gradient: (ports, 2 · batch) of the loss with respect to what came out; back: (ports, 2) conj(factor); change: (groups, MZIs,
    8) zeros, added to: Σ g·conj(x) over the batch for each number of a cell, g the gradient at its row's output, x the light at
    its column's input; ends: (groups, ports, 2) zeros, added to: the same for ``factor``; out: (ports, 2 · batch) gradient with
    respect to the inputs.
    """
    ports = gradient.shape[0]
    lanes = PART_BYTES // gradient.itemsize
    row = U(2 * lanes)
    longest = 0
    for j in range(bounds.size - 1):
        longest = max(longest, bounds[j + 1] - bounds[j])
    # The gradient at each port, the light at each port, and the light that came into each MZI of a segment.
    room = _aligned(2 * lanes * (2 * ports + 2 * longest), gradient)
    total, total_ends = change.reshape(-1), ends.reshape(-1)
    light, kept = U(ports) * row, U(2 * ports) * row
    tiles = (gradient.shape[1] // 2 + lanes - 1) // lanes
    for group in range(begin, end):
        for tile in range(tiles * group // groups, tiles * (group + 1) // groups):
            _load(gradient, tile * lanes, room, 2 * lanes, 0)
            for j in range(bounds.size - 2, -1, -1):
                room[2 * lanes * ports : 4 * lanes * ports] = saved[tile, j]
                for e in range(bounds[j], bounds[j + 1]):
                    a, b, c = light + U(upper[e]) * row, light + U(lower[e]) * row, kept + U(2 * (e - bounds[j])) * row
                    cell_kept(
                        room, a, b, c, c + row,
                        cells[e, 0], cells[e, 1], cells[e, 2], cells[e, 3], cells[e, 4], cells[e, 5], cells[e, 6], cells[e, 7],
                    )  # fmt: skip
                if j == bounds.size - 2:
                    for p in range(ports):
                        overlap(room, total_ends, U(2) * (U(group) * U(ports) + U(p)), light + U(p) * row, U(p) * row)
                    _scale(room, 2 * lanes, 0, back)
                for e in range(bounds[j + 1] - 1, bounds[j] - 1, -1):
                    c = kept + U(2 * (e - bounds[j])) * row
                    at = U(8) * (U(group) * U(upper.size) + U(e))
                    cell_back(
                        room, total, at, U(upper[e]) * row, U(lower[e]) * row, c, c + row,
                        cells[e, 0], cells[e, 1], cells[e, 2], cells[e, 3], cells[e, 4], cells[e, 5], cells[e, 6], cells[e, 7],
                    )  # fmt: skip
            _store(room, 2 * lanes, 0, tile * lanes, out)
