"""Compiled loops of meshes (numba): light through a chain of unitary 2×2 matrices, many vectors at once, and its adjoint."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from photonic._lanes import PART_BYTES, overlap, rotate, rotate_back

U = np.uint64


@njit(cache=True, nogil=True)
def normal_form(order, upper, lower, sine, cosine, phase, above, below, chain, after, frame):
    """A chain of unitary cells diag(above, below) · [[s, c], [c, −s]] · diag(phase, 1) with every phase but one moved rightwards.

    What stays of a cell is a rotation of its upper input's phase by less than a quarter turn, then a rotation between the ports
    by less than a quarter turn, each three shears (fewer products than a complex 2×2 matrix; no shear above 1).

    order: (MZIs,) of execution; upper, lower: (MZIs,) in that order; sine, cosine: (MZIs,) s and c; phase, above, below: (MZIs,)
    complex, of magnitude 1.
    chain: (MZIs, 4) written: shears of the phase, then of the ports. after: (MZIs,) complex written: conj(frame of the upper
    output) · frame of the lower. frame: (ports,) complex written: true light = frame · what the chain gives.
    """
    frame[:] = 1.0
    for e in range(upper.size):
        at, under = frame[upper[e]], frame[lower[e]]
        i = order[e]
        z = phase[i] * at * np.conj(under)
        s, c = sine[i], cosine[i]
        up, down = 1.0, -1.0
        if z.real < 0:
            z, c, up = -z, -c, -up
        if s < 0:
            s, c, up, down = -s, -c, -up, -down
        # Frames are products of many factors: one step of Newton's method keeps their magnitude at 1.
        under *= 1.5 - 0.5 * (under.real * under.real + under.imag * under.imag)
        at, under = up * above[i] * under, down * below[i] * under
        frame[upper[e]], frame[lower[e]] = at, under
        after[e] = np.conj(at) * under
        chain[e, 0], chain[e, 1] = -z.imag / (1.0 + z.real), z.imag
        chain[e, 2], chain[e, 3] = c / (1.0 + s), -c


@njit(cache=True, nogil=True)
def _load(vectors, first, state, stride, offset):
    """Vectors (ports, 2 · batch) from ``first`` on into a tile; lanes without a vector are zero."""
    lanes = PART_BYTES // vectors.itemsize
    count = min(lanes, vectors.shape[1] // 2 - first)
    for p in range(vectors.shape[0]):
        row = vectors[p, 2 * first : 2 * (first + count)]
        at = p * stride + offset
        for k in range(count):
            state[at + k] = row[2 * k]
            state[at + lanes + k] = row[2 * k + 1]
        for k in range(count, lanes):
            state[at + k] = 0
            state[at + lanes + k] = 0


@njit(cache=True, nogil=True)
def _store(state, stride, offset, first, out):
    lanes = PART_BYTES // out.itemsize
    count = min(lanes, out.shape[1] // 2 - first)
    for p in range(out.shape[0]):
        row = out[p, 2 * first : 2 * (first + count)]
        at = p * stride + offset
        for k in range(count):
            row[2 * k] = state[at + k]
            row[2 * k + 1] = state[at + lanes + k]


@njit(cache=True, nogil=True)
def _scale(state, stride, offset, factor):
    """Every port times a complex number; factor: (ports, 2)."""
    lanes = PART_BYTES // state.itemsize
    for p in range(factor.shape[0]):
        real, imag = factor[p, 0], factor[p, 1]
        at = p * stride + offset
        for k in range(at, at + lanes):
            x, y = state[k], state[k + lanes]
            state[k] = real * x - imag * y
            state[k + lanes] = real * y + imag * x


@njit(cache=True, nogil=True)
def _aligned(size, like):
    """An empty array of ``like``'s type that begins with a line of the cache, as vectors in it then do."""
    room = np.empty(size + 64 // like.itemsize, like.dtype)
    return room[(-room.ctypes.data % 64) // like.itemsize :][:size]


# --- unitary cells --------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def forward_chain(begin, end, vectors, upper, lower, chain, factor, out):
    """Tiles of vectors (ports, 2 · batch) through ``normal_form``'s chain; factor: (ports, 2), at its end."""
    lanes = PART_BYTES // vectors.itemsize
    row = U(2 * lanes)
    state = _aligned(2 * lanes * vectors.shape[0], vectors)
    for tile in range(begin, end):
        _load(vectors, tile * lanes, state, 2 * lanes, 0)
        for e in range(upper.size):
            a, b = U(upper[e]) * row, U(lower[e]) * row
            rotate(state, a, b, chain[e, 0], chain[e, 1], chain[e, 2], chain[e, 3])
        _scale(state, 2 * lanes, 0, factor)
        _store(state, 2 * lanes, 0, tile * lanes, out)


@njit(cache=True, nogil=True)
def backward_chain(begin, end, groups, outputs, gradient, upper, lower, chain, undo, back, cross, phases, out):
    """The adjoint of ``forward_chain``, which runs light and gradient backwards, so that nothing but the outputs was kept.

    Groups ``begin`` to ``end`` of ``groups``, each some of the tiles: a thread takes whole groups, so that sums have one order.

    outputs, gradient: (ports, 2 · batch) what came out, and the loss's gradient with respect to it; undo, back: (ports, 2)
    1/factor and conj(factor); cross: (groups, MZIs, 2) zeros, added to: after each cell's rotation Σ conj(g₁)·o₂ − g₂·conj(o₁)
    over the batch, o the light and g the gradient at its upper (1) and lower (2) output; phases: (groups, ports, 2) zeros, added
    to: Σ g·conj(o) at the outputs; out: (ports, 2 · batch) gradient with respect to the inputs.
    """
    ports = outputs.shape[0]
    lanes = PART_BYTES // outputs.itemsize
    row = U(2 * lanes)
    state = _aligned(4 * lanes * ports, outputs)
    total, ends = cross.reshape(-1), phases.reshape(-1)
    tiles = (outputs.shape[1] // 2 + lanes - 1) // lanes
    for group in range(begin, end):
        for tile in range(tiles * group // groups, tiles * (group + 1) // groups):
            first = tile * lanes
            _load(outputs, first, state, 4 * lanes, 0)
            _load(gradient, first, state, 4 * lanes, 2 * lanes)
            _scale(state, 4 * lanes, 0, undo)
            _scale(state, 4 * lanes, 2 * lanes, back)
            for p in range(ports):
                at = U(p) * U(2) * row
                overlap(state, ends, U(2) * (U(group) * U(ports) + U(p)), at, at + row)
            for e in range(upper.size - 1, -1, -1):
                a, b = U(upper[e]) * U(2) * row, U(lower[e]) * U(2) * row
                at = U(2) * (U(group) * U(upper.size) + U(e))
                rotate_back(state, total, at, a, b, chain[e, 0], chain[e, 1], chain[e, 2], chain[e, 3])
            _store(state, 4 * lanes, 2 * lanes, first, out)


@njit(cache=True, nogil=True)
def moments(upper, lower, chain, after, cross, phases, out):
    """What a small change of a unitary cell does to the loss, from ``backward_chain``'s sums over all groups.

    A rotation keeps the sum of its ports' Σ Im(g·conj(o)); with ``cross`` this gives them before the cell from those behind it.

    cross: (MZIs, 2); phases: (ports,) at the outputs, those at the inputs when done; out: (MZIs, 5) written: Σ Im(g·conj(o)) at
    the upper and lower output; Σ conj(g₁)·o₂ − g₂·conj(o₁), real and imaginary; Σ Im(g·conj(o)) at the upper input.
    """
    for e in range(upper.size - 1, -1, -1):
        first, second = phases[upper[e]], phases[lower[e]]
        s = -chain[e, 3]
        c = 1.0 - chain[e, 2] * s
        before = c * c * first + s * s * second + c * s * cross[e, 1]
        w = after[e]
        out[e, 0], out[e, 1] = first, second
        out[e, 2] = w.real * cross[e, 0] - w.imag * cross[e, 1]
        out[e, 3] = w.real * cross[e, 1] + w.imag * cross[e, 0]
        out[e, 4] = before
        phases[upper[e]], phases[lower[e]] = before, first + second - before
