"""Compiled loops of crossbars (numba): sums of columns, their conversion, and the resistive network of the wires.

No fast-math: each sum has one order, so that the bits do not depend on the machine or on the number of threads.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

LANES = 8
"""Right-hand sides that a network is solved for at once, side by side in memory so that the loops over them vectorise."""


@njit(cache=True, nogil=True)
def _four(out0, out1, a0, a1, a2, a3, b0, b1, b2, b3, m0, m1, m2, m3):
    """Four rows into the sums of two vectors."""
    for j in range(out0.size):
        p, q, r, s = m0[j], m1[j], m2[j], m3[j]
        out0[j] = (((out0[j] + a0 * p) + a1 * q) + a2 * r) + a3 * s
        out1[j] = (((out1[j] + b0 * p) + b1 * q) + b2 * r) + b3 * s


@njit(cache=True, nogil=True)
def _one(out, a, m):
    for j in range(out.size):
        out[j] += a * m[j]


@njit(cache=True, nogil=True)
def column_sums(inputs, matrix, out):
    """``out`` (vectors, columns) = inputs (vectors, rows) · matrix (rows, columns), rows added in ascending order."""
    vectors, rows = inputs.shape
    out[:] = 0.0
    for n in range(0, vectors - 1, 2):
        x, y, left, right = inputs[n], inputs[n + 1], out[n], out[n + 1]
        for i in range(0, rows - 3, 4):
            a0, a1, a2, a3, b0, b1, b2, b3 = x[i], x[i + 1], x[i + 2], x[i + 3], y[i], y[i + 1], y[i + 2], y[i + 3]
            if a0 == 0 and a1 == 0 and a2 == 0 and a3 == 0 and b0 == 0 and b1 == 0 and b2 == 0 and b3 == 0:
                continue
            _four(
                left, right, a0, a1, a2, a3, b0, b1, b2, b3, matrix[i], matrix[i + 1], matrix[i + 2], matrix[i + 3]
            )  # fmt: skip
        for i in range(rows - rows % 4, rows):
            _one(left, x[i], matrix[i])
            _one(right, y[i], matrix[i])
    if vectors % 2:
        x, left = inputs[vectors - 1], out[vectors - 1]
        for i in range(rows):
            if x[i] != 0:
                _one(left, x[i], matrix[i])


@njit(cache=True, nogil=True)
def convert(sums, step, low, high, place, out):
    """Adds ``place`` times the converted ``sums`` to ``out``; returns how many were clipped.

    sums, out: (vectors, columns); step: of the converter, in the unit of the sums; low, high: its codes; place: (columns,).
    """
    clipped = 0
    for n in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            code = np.rint(sums[n, j] / step)
            if code < low or code > high:
                clipped += 1
                code = min(max(code, low), high)
            out[n, j] += place[j] * (code * step)
    return clipped


# --- wires ----------------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _factor(diagonal, between, inverse):
    """Inverse pivots of a symmetric tridiagonal matrix with ``-between`` beside the diagonal; all (length,)."""
    inverse[0] = 1.0 / diagonal[0]
    for k in range(1, diagonal.size):
        inverse[k] = 1.0 / (diagonal[k] - between * between * inverse[k - 1])


@njit(cache=True, nogil=True)
def _solve_rows(inverse, between, x):
    """x ← A⁻¹x along the second axis; inverse: (rows, columns), x: (rows, columns, LANES)."""
    rows, columns = inverse.shape
    for i in range(rows):
        for j in range(1, columns):
            factor = between * inverse[i, j - 1]
            here, before = x[i, j], x[i, j - 1]
            for k in range(LANES):
                here[k] += factor * before[k]
        last = x[i, columns - 1]
        for k in range(LANES):
            last[k] *= inverse[i, columns - 1]
        for j in range(columns - 2, -1, -1):
            pivot = inverse[i, j]
            here, after = x[i, j], x[i, j + 1]
            for k in range(LANES):
                here[k] = (here[k] + between * after[k]) * pivot


@njit(cache=True, nogil=True)
def _solve_columns(inverse, between, x):
    """x ← A⁻¹x along the first axis."""
    rows, columns = inverse.shape
    for i in range(1, rows):
        for j in range(columns):
            factor = between * inverse[i - 1, j]
            here, before = x[i, j], x[i - 1, j]
            for k in range(LANES):
                here[k] += factor * before[k]
    for j in range(columns):
        last = x[rows - 1, j]
        for k in range(LANES):
            last[k] *= inverse[rows - 1, j]
    for i in range(rows - 2, -1, -1):
        for j in range(columns):
            pivot = inverse[i, j]
            here, after = x[i, j], x[i + 1, j]
            for k in range(LANES):
                here[k] = (here[k] + between * after[k]) * pivot


@njit(cache=True, nogil=True)
def _apply(g, diagonal, row, inverse, column, p, held, out):
    """out ← (A_R − G·A_C⁻¹·G)·p: the network as the row nodes see it, its column nodes eliminated."""
    rows, columns = g.shape
    for i in range(rows):
        for j in range(columns):
            here, value = p[i, j], g[i, j]
            kept = held[i, j]
            for k in range(LANES):
                kept[k] = value * here[k]
    _solve_columns(inverse, column, held)
    for i in range(rows):
        for j in range(columns):
            centre, value = diagonal[i, j], g[i, j]
            here, kept, found = p[i, j], held[i, j], out[i, j]
            for k in range(LANES):
                found[k] = centre * here[k] - value * kept[k]
            if j > 0:
                beside = p[i, j - 1]
                for k in range(LANES):
                    found[k] -= row * beside[k]
            if j < columns - 1:
                beside = p[i, j + 1]
                for k in range(LANES):
                    found[k] -= row * beside[k]


@njit(cache=True, nogil=True)
def _dots(x, y, total):
    total[:] = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            a, b = x[i, j], y[i, j]
            for k in range(LANES):
                total[k] += a[k] * b[k]


@njit(cache=True, nogil=True)
def transfer(g, row, column, drive, sense, tolerance, most, out):
    """Effective conductances of an array with wires: ``out[i, j]`` is the current of column j for one volt on row i alone.

    Conjugate gradients on the row nodes, the column nodes eliminated, preconditioned by the rows' own lines.

    g: (rows, columns) siemens; row, column: of a segment of wire; drive, sense: from a driver to the first node of its row, from
    the last node of a column to ground; tolerance: residual over right-hand side, both in the norm of the preconditioner; most:
    iterations. Returns the most iterations that any group took, or −1 where ``most`` were too few.
    """
    rows, columns = g.shape
    on_row, on_column = np.empty((rows, columns)), np.empty((rows, columns))
    row_pivot, column_pivot = np.empty((rows, columns)), np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            on_row[i, j] = g[i, j] + (drive if j == 0 else row) + (row if j < columns - 1 else 0.0)
            on_column[i, j] = g[i, j] + (column if i > 0 else 0.0) + (sense if i == rows - 1 else column)
    for i in range(rows):
        _factor(on_row[i], row, row_pivot[i])
    for j in range(columns):
        _factor(on_column[:, j], column, column_pivot[:, j])
    shape = (rows, columns, LANES)
    x, r, z, p = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape)
    held, image = np.empty(shape), np.empty(shape)
    rz, rz_next, pq, goal = np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES)
    step = np.empty(LANES)
    longest = 0
    for begin in range(0, rows, LANES):
        lanes = min(LANES, rows - begin)
        r[:] = 0.0
        for k in range(lanes):
            r[begin + k, 0, k] = drive
        x[:] = 0.0
        z[:] = r
        _solve_rows(row_pivot, row, z)
        p[:] = z
        _dots(r, z, rz)
        goal[:] = rz * (tolerance * tolerance)
        done = 0
        while True:
            open_lanes = 0
            for k in range(lanes):
                open_lanes += rz[k] > goal[k]
            if open_lanes == 0:
                break
            if done == most:
                return -1
            _apply(g, on_row, row, column_pivot, column, p, held, image)
            _dots(p, image, pq)
            for k in range(LANES):
                step[k] = rz[k] / pq[k] if pq[k] > 0 else 0.0
            for i in range(rows):
                for j in range(columns):
                    a, b, c, d, e = x[i, j], p[i, j], r[i, j], image[i, j], z[i, j]
                    for k in range(LANES):
                        a[k] += step[k] * b[k]
                        c[k] -= step[k] * d[k]
                        e[k] = c[k]
            _solve_rows(row_pivot, row, z)
            _dots(r, z, rz_next)
            for k in range(LANES):
                step[k] = rz_next[k] / rz[k] if rz[k] > 0 else 0.0
                rz[k] = rz_next[k]
            for i in range(rows):
                for j in range(columns):
                    a, b = p[i, j], z[i, j]
                    for k in range(LANES):
                        a[k] = b[k] + step[k] * a[k]
            done += 1
        longest = max(longest, done)
        for i in range(rows):
            for j in range(columns):
                value = g[i, j]
                kept, here = held[i, j], x[i, j]
                for k in range(LANES):
                    kept[k] = value * here[k]
        _solve_columns(column_pivot, column, held)
        for j in range(columns):
            for k in range(lanes):
                out[begin + k, j] = sense * held[rows - 1, j, k]
    return longest
