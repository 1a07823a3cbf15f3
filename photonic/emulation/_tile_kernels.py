"""Compiled loops over many small tiles (numba): singular values, phases of meshes, and the matrices that light meets.

Each tile is computed alone and in one order, so that bits do not depend on threads.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from photonic._decomposition_kernels import frames, take_apart_columns, take_apart_rectangle

SWEEPS = 60
"""Jacobi's method needs about ten; it ends when a sweep changes nothing."""
TURN = 2 * np.pi


@njit(cache=True, nogil=True)
def _jacobi(w, vt):
    """Rows of ``w`` made orthogonal by rotations of pairs, which ``vt`` (rows as well) takes part in."""
    n = w.shape[0]
    for _ in range(SWEEPS):
        changed = False
        for p in range(n - 1):
            for q in range(p + 1, n):
                alpha, beta, gamma = 0.0, 0.0, 0.0
                for k in range(n):
                    alpha += w[p, k] * w[p, k]
                    beta += w[q, k] * w[q, k]
                    gamma += w[p, k] * w[q, k]
                if gamma == 0.0 or abs(gamma) <= 1e-15 * np.sqrt(alpha * beta):
                    continue
                changed = True
                zeta = (beta - alpha) / (2 * gamma)
                t = 1 / (abs(zeta) + np.sqrt(1 + zeta * zeta))
                t = t if zeta >= 0 else -t
                c = 1 / np.sqrt(1 + t * t)
                s = c * t
                for k in range(n):
                    a, b = w[p, k], w[q, k]
                    w[p, k], w[q, k] = c * a - s * b, s * a + c * b
                    a, b = vt[p, k], vt[q, k]
                    vt[p, k], vt[q, k] = c * a - s * b, s * a + c * b
        if not changed:
            return


@njit(cache=True, nogil=True)
def _completed(u, have):
    """Orthonormal columns from ``have`` on: what is left longest of a unit vector, projected twice."""
    n = u.shape[0]
    rest = np.empty(n)
    for j in range(have, n):
        best, place = -1.0, 0
        for e in range(n):
            left = 1.0
            for k in range(j):
                left -= u[e, k] * u[e, k]
            if left > best:
                best, place = left, e
        rest[:] = 0.0
        rest[place] = 1.0
        for _ in range(2):
            for k in range(j):
                dot = 0.0
                for i in range(n):
                    dot += u[i, k] * rest[i]
                for i in range(n):
                    rest[i] -= dot * u[i, k]
        size = 0.0
        for i in range(n):
            size += rest[i] * rest[i]
        size = np.sqrt(size)
        for i in range(n):
            u[i, j] = rest[i] / size


@njit(cache=True, nogil=True)
def singular(begin, end, tiles, u, values, vt):
    """tiles = u · diag(values) · vt, largest first, by one-sided Jacobi rotations (Hestenes, J. SIAM 6, 1958).

    tiles: (T, N, N) real; u, vt: (T, N, N), values: (T, N) written.
    """
    n = tiles.shape[1]
    w, right, norms = np.empty((n, n)), np.empty((n, n)), np.empty(n)
    for tile in range(begin, end):
        for i in range(n):
            for j in range(n):
                w[j, i] = tiles[tile, i, j]
                right[i, j] = 1.0 if i == j else 0.0
        _jacobi(w, right)
        for j in range(n):
            total = 0.0
            for k in range(n):
                total += w[j, k] * w[j, k]
            norms[j] = np.sqrt(total)
        order = np.argsort(-norms, kind="mergesort")
        least = 1e-13 * norms[order[0]]
        have = 0
        for j in range(n):
            row = order[j]
            size = norms[row] if norms[row] > least else 0.0
            values[tile, j] = size
            for k in range(n):
                vt[tile, j, k] = right[row, k]
            if size > 0.0:
                for k in range(n):
                    u[tile, k, j] = w[row, k] / size
                have += 1
        if have < n:
            _completed(u[tile], have)


@njit(cache=True, nogil=True)
def _angle(number):
    angle = np.arctan2(number.imag, number.real)
    if angle < 0:
        angle += TURN
    return angle if angle < TURN else 0.0


@njit(cache=True, nogil=True)
def programmed(begin, end, matrices, triangle, index, upper, lower, order, row, rows, phases):
    """Phases of meshes that compute real orthogonal matrices; as ``photonic.decompose``, many at once.

    matrices: (T, N, N); triangle: whether the mesh is one, else a rectangle; index: (columns, ports) of its layout;
    upper, lower: (MZIs,); order, row, rows: (MZIs,) of a triangle, see ``take_apart_columns``; phases: (T, shifters) written: θ
    of all MZIs, φ of all, outputs.
    """
    n, mzis = matrices.shape[1], upper.size
    real, imag = np.empty((n, n)), np.empty((n, n))
    s, c, z, z1 = np.empty(mzis), np.empty(mzis), np.empty(mzis), np.empty(mzis)
    found = np.empty((4, mzis))
    one, external, frame = np.ones(mzis, np.complex128), np.empty(mzis, np.complex128), np.empty(n, np.complex128)
    phase = np.empty(mzis, np.complex128)
    for tile in range(begin, end):
        imag[:] = 0.0
        if triangle:
            for i in range(n):
                for j in range(n):
                    real[j, i] = matrices[tile, i, j]
            take_apart_columns(
                real, imag, upper[order], lower[order], row, rows, found[0], found[1], found[2], found[3]
            )  # fmt: skip
            for e in range(mzis):
                at = order[e]
                s[at], c[at], z[at], z1[at] = found[0, e], found[1, e], found[2, e], found[3, e]
        else:
            for i in range(n):
                for j in range(n):
                    real[i, j] = matrices[tile, i, j]
            take_apart_rectangle(real, imag, index, s, c, z, z1)
        for e in range(mzis):
            phase[e] = complex(z[e], z1[e])
        frame[:] = 1.0
        frames(upper, lower, s, c, phase, one, one, external, frame)
        for e in range(mzis):
            phases[tile, e] = 2 * np.arctan2(s[e], c[e])
            phases[tile, mzis + e] = _angle(external[e])
        for port in range(n):
            phases[tile, 2 * mzis + port] = _angle(complex(real[port, port], imag[port, port]) * frame[port])


@njit(cache=True, nogil=True)
def warmed(begin, end, phases, heat, out):
    """Phases (T, shifters) and what all of them heat each: phases + phases · heatᵀ, in one order."""
    count = phases.shape[1]
    for tile in range(begin, end):
        for i in range(count):
            total = phases[tile, i]
            for j in range(count):
                total += heat[i, j] * phases[tile, j]
            out[tile, i] = total


@njit(cache=True, nogil=True)
def met(begin, end, phases, chip, left, middle, right, output, upper, lower, out):
    """The matrices that light meets in meshes of these phases.

    phases: (T, shifters); chip: (T,) which one each is set on; left, middle: (chips, MZIs, 2, 2) complex, right: (chips, MZIs,
    2),
    output: (chips, N), as ``photonic.fabrication.CellParts``; upper, lower: (MZIs,); out: (T, N, N) complex written.
    """
    n, mzis = out.shape[1], upper.size
    for tile in range(begin, end):
        which = chip[tile]
        matrix = out[tile]
        for i in range(n):
            for j in range(n):
                matrix[i, j] = 1.0 if i == j else 0.0
        for e in range(mzis):
            theta, phi = phases[tile, e], phases[tile, mzis + e]
            inner, outer = complex(np.cos(theta), np.sin(theta)), complex(np.cos(phi), np.sin(phi))
            a, b = middle[which, e], left[which, e]
            r0, r1 = right[which, e, 0] * outer, right[which, e, 1]
            m00, m01, m10, m11 = inner * a[0, 0] * r0, inner * a[0, 1] * r1, a[1, 0] * r0, a[1, 1] * r1
            c00, c01 = b[0, 0] * m00 + b[0, 1] * m10, b[0, 0] * m01 + b[0, 1] * m11
            c10, c11 = b[1, 0] * m00 + b[1, 1] * m10, b[1, 0] * m01 + b[1, 1] * m11
            u, v = upper[e], lower[e]
            for j in range(n):
                x, y = matrix[u, j], matrix[v, j]
                matrix[u, j], matrix[v, j] = c00 * x + c01 * y, c10 * x + c11 * y
        for port in range(n):
            end_phase = phases[tile, 2 * mzis + port]
            factor = output[which, port] * complex(np.cos(end_phase), np.sin(end_phase))
            for j in range(n):
                matrix[port, j] *= factor


@njit(cache=True, nogil=True)
def joined(begin, end, left, between, right, out):
    """left · diag(between) · right of each tile. left, right, out: (T, N, N) complex; between: (T, N) complex."""
    n = out.shape[1]
    for tile in range(begin, end):
        for i in range(n):
            for j in range(n):
                out[tile, i, j] = 0.0
            for k in range(n):
                factor = left[tile, i, k] * between[tile, k]
                for j in range(n):
                    out[tile, i, j] += factor * right[tile, k, j]


@njit(cache=True, nogil=True)
def rings(begin, end, wanted, engine, error, stuck, ratio, out):
    """Dropped shares of light in banks of rings whose Lorentzians overlap: 1 − Π (1 − T) over the rings of a row.

    wanted: (T, N, N) share that each ring (row, input) is to drop of its own wavelength, 0 to 1; engine: (T,); error, stuck:
    (engines, N, N) resonance off by linewidths, and the share at which a ring is stuck, nan where it is not; ratio: channel
    spacing over linewidth; out: (T, N, N) written: what a row drops of each wavelength.
    """
    n = wanted.shape[1]
    away = np.empty(n)
    furthest = ratio / 2
    for tile in range(begin, end):
        at = engine[tile]
        for i in range(n):
            for j in range(n):
                share = wanted[tile, i, j] if np.isnan(stuck[at, i, j]) else stuck[at, i, j]
                # T = 1/(1 + (2δ)²), δ in linewidths.
                far = 0.5 * np.sqrt(1 / share - 1) if share > 0 else furthest
                away[j] = min(far, furthest) + error[at, i, j]
            for k in range(n):
                passed = 1.0
                for j in range(n):
                    delta = 2 * ((k - j) * ratio - away[j])
                    passed *= 1 - 1 / (1 + delta * delta)
                out[tile, i, k] = 1 - passed
