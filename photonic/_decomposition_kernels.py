"""Compiled loops that take a unitary matrix apart into rotations of two rows or columns (numba).

Every rotation is C = [[s, c], [c, −s]]·diag(z, 1) with s, c ≥ 0 and |z| = 1, on rows u ← C·u, on columns u ← u·C†; the phases
common to both ports of an MZI are put in at the end, so that a rotation costs one phase and four real products a number.
Matrices are kept as two real ones, real and imaginary parts, so that loops along rows are vector loops.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from math import hypot

import numpy as np
from numba import njit

from photonic._lanes import fma

BLOCK = 64
"""Rows, or columns, that are brought up to date at once."""


@njit(cache=True, nogil=True)
def _rotation(gone, gone1, other, other1, sign):
    """s, c and z that turn ``gone`` to zero with the help of ``other``: z = sign · conj(other/|other|) · gone/|gone|."""
    size, beside = hypot(gone, gone1), hypot(other, other1)
    if size == 0.0:
        return 1.0, 0.0, 1.0, 0.0
    if beside == 0.0:
        return 0.0, 1.0, 1.0, 0.0
    h = hypot(size, beside)
    a, b, x, x1 = gone / size, gone1 / size, other / beside, sign * (other1 / beside)
    x = sign * x
    return beside / h, size / h, x * a + x1 * b, x * b - x1 * a


@njit(cache=True, nogil=True)
def _rotate_rows(upper, upper1, lower, lower1, s, c, z, z1):
    """Vectors along two rows times C."""
    for k in range(upper.size):
        a, b, y, y1 = upper[k], upper1[k], lower[k], lower1[k]
        x, x1 = fma(a, z, -b * z1), fma(b, z, a * z1)
        upper[k], upper1[k] = fma(c, y, s * x), fma(c, y1, s * x1)
        lower[k], lower1[k] = fma(-s, y, c * x), fma(-s, y1, c * x1)


@njit(cache=True, nogil=True)
def _pass(row, row1, last, first, s, c, z, z1):
    """A row times the adjoints of the rotations of columns j, j+1, from j = ``last`` to ``first``."""
    y, y1 = row[last + 1], row1[last + 1]
    for j in range(last, first - 1, -1):
        a, b, p, q, e, f = row[j], row1[j], z[j], z1[j], s[j], c[j]
        x, x1 = fma(a, p, b * q), fma(b, p, -a * q)
        row[j + 1], row1[j + 1] = fma(-e, y, f * x), fma(-e, y1, f * x1)
        y, y1 = fma(f, y, e * x), fma(f, y1, e * x1)
    row[first], row1[first] = y, y1


@njit(cache=True, nogil=True)
def _enter_rows(real, imag, first, end, d, index, s, c, z, z1):
    """Rows ``first`` to ``end`` times the adjoints of all rotations of columns from diagonals before ``d``."""
    side, side1 = np.empty((d, end - first)), np.empty((d, end - first))
    for j in range(d):
        for i in range(first, end):
            side[j, i - first], side1[j, i - first] = real[i, j], imag[i, j]
    for before in range(1, d, 2):
        for j in range(before - 1, -1, -1):
            e = index[before - 1 - j, j]
            _rotate_rows(side[j], side1[j], side[j + 1], side1[j + 1], s[e], c[e], z[e], -z1[e])
    for i in range(first, end):
        for j in range(d):
            real[i, j], imag[i, j] = side[j, i - first], side1[j, i - first]


@njit(cache=True, nogil=True)
def _enter_columns(real, imag, first, end, d, index, s, c, z, z1):
    """All rotations of rows from diagonals before ``d`` times columns ``first`` to ``end``."""
    n = real.shape[0]
    for before in range(2, d, 2):
        for j in range(before):
            i = n - before + j
            e = index[n - 1 - j, i - 1]
            _rotate_rows(
                real[i - 1, first:end], imag[i - 1, first:end], real[i, first:end], imag[i, first:end], s[e], c[e], z[e], z1[e]
            )


@njit(cache=True, nogil=True)
def take_apart_rectangle(real, imag, index, s, c, z, z1):
    """W. R. Clements et al., Optica 3(12), 2016: zeros below the diagonal, one diagonal after another from the corner.

    Odd ones by rotations of columns, even ones by rotations of rows, which are then moved through what is left. Rows above and
    columns right of what a diagonal needs wait: they are brought up to date in blocks, all rotations at once.

    real, imag: (N, N) overwritten: zeros below the diagonal, and the phases that stay on it; index: (columns, ports) where an
    MZI's rotation goes; s, c, z, z1: (MZIs,) written.
    """
    n = real.shape[0]
    t, f, p, q = np.ones(n), np.zeros(n), np.ones(n), np.zeros(n)
    top, edge = n, 0
    for d in range(1, n):
        while top > n - d - 1:
            _enter_rows(real, imag, max(top - BLOCK, 0), top, d, index, s, c, z, z1)
            top = max(top - BLOCK, 0)
        while edge < d + 1:
            _enter_columns(real, imag, edge, min(edge + BLOCK, n), d, index, s, c, z, z1)
            edge = min(edge + BLOCK, n)
        if d % 2:
            # Rotations of columns j, j+1 from right to left. A row meets all of them in one pass, and finds its own at its end.
            for i in range(n - 1, top - 1, -1):
                row, row1 = real[i], imag[i]
                own = i - n + d
                if own + 1 <= d - 1:
                    _pass(row, row1, d - 1, max(own + 1, 0), t, f, p, q)
                if own >= 0:
                    t[own], f[own], p[own], q[own] = _rotation(row[own], row1[own], row[own + 1], row1[own + 1], -1.0)
                    _pass(row, row1, own, own, t, f, p, q)
                    e = index[d - 1 - own, own]
                    s[e], c[e], z[e], z1[e] = t[own], f[own], p[own], q[own]
        else:
            for j in range(d):
                i = n - d + j
                upper, upper1, lower, lower1 = real[i - 1, j:edge], imag[i - 1, j:edge], real[i, j:edge], imag[i, j:edge]
                e = index[n - 1 - j, i - 1]
                s[e], c[e], z[e], z1[e] = _rotation(lower[0], lower1[0], upper[0], upper1[0], 1.0)
                _rotate_rows(upper, upper1, lower, lower1, s[e], c[e], z[e], z1[e])
    # u = C₁†·C₂†·…·D·…: C†·diag(a, b) = diag(conj(z)·b, b)·[[s, c], [c, −s]]·diag(a·conj(b), 1), the last rotation first.
    for d in range(n - 1 - (n - 1) % 2, 0, -2):
        for j in range(d - 1, -1, -1):
            i = n - d + j
            e = index[n - 1 - j, i - 1]
            a, a1, b, b1 = real[i - 1, i - 1], imag[i - 1, i - 1], real[i, i], imag[i, i]
            real[i - 1, i - 1], imag[i - 1, i - 1] = z[e] * b + z1[e] * b1, z[e] * b1 - z1[e] * b
            z[e], z1[e] = a * b + a1 * b1, a1 * b - a * b1


@njit(cache=True, nogil=True)
def take_apart_columns(real, imag, upper, lower, row, rows, s, c, z, z1):
    """Rotations of columns alone, in the order of the light: M. Reck et al., Phys. Rev. Lett. 73, 1994, for a triangle.

    real, imag: (N, N) of the transposed matrix, overwritten; upper, lower: (MZIs,) columns; row: (MZIs,) the row that a
    rotation makes zero in column ``upper``; rows: (MZIs,) how many rows may not be zero in both; s, c, z, z1: (MZIs,) written.
    """
    for e in range(upper.size):
        u, v = upper[e], lower[e]
        i, n = row[e], rows[e]
        s[e], c[e], z[e], z1[e] = _rotation(real[u, i], imag[u, i], real[v, i], imag[v, i], -1.0)
        _rotate_rows(real[u, :n], imag[u, :n], real[v, :n], imag[v, :n], s[e], c[e], z[e], -z1[e])


@njit(cache=True, nogil=True)
def frames(upper, lower, s, c, z, above, below, external, frame):
    """From cells diag(above, below)·[[s, c], [c, −s]]·diag(z, 1) to MZIs with phases on their upper arm alone.

    upper, lower: (MZIs,) in an order of the light; z, above, below: (MZIs,) complex of magnitude 1; external: (MZIs,) complex
    written: e^{iφ}; frame: (ports,) complex: the cells' light = frame · the MZIs' light, given before the first column, written
    behind the last.
    """
    for e in range(upper.size):
        at, under = frame[upper[e]], frame[lower[e]]
        external[e] = z[e] * at * np.conj(under)
        # An MZI turns both of its outputs by i·e^{iθ/2} = i·(c + i·s) more than the rotation does.
        back = under * complex(-s[e], -c[e])
        back *= 1.5 - 0.5 * (back.real * back.real + back.imag * back.imag)
        frame[upper[e]], frame[lower[e]] = above[e] * back, below[e] * back
