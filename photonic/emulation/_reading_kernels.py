"""Compiled loops from light to numbers (numba): through tiles or at the nodes of crossbars, onto detectors, through the ADC.

Rows are computed alone, each in one order; what is counted is kept by row, so that bits do not depend on threads. Loops run along
all outputs of a row of tiles.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _added(x, weights, y):
    for c in range(y.size):
        y[c] += x[c] * weights[c]


@njit(cache=True, nogil=True)
def _taken_off(x, weights, y):
    for c in range(y.size):
        y[c] -= x[c] * weights[c]


@njit(cache=True, nogil=True)
def _spread(x, ports, each):
    """One number for each output: its tile's, or that of all tiles."""
    if x.size == 1:
        each[:] = x[0]
        return
    for tile in range(x.size):
        for j in range(ports):
            each[tile * ports + j] = x[tile]


@njit(cache=True, nogil=True)
def _read(y, light, alive, read, added, scale, noise, adc, deviate, full, seen, out, counts):
    """Currents of outputs: noise (``added``, that of the laser), ADC, what is counted. y, light and added are used up."""
    shot, thermal, step, largest, least = noise[0], noise[1], adc[0], adc[1], adc[2]
    for c in range(y.size):
        alone = alive[c]
        light[c] = max(light[c] * alone, 0.0)
        y[c] *= scale * alone
        added[c] *= scale * alone
    if deviate.size:
        for c in range(y.size):
            added[c] += np.sqrt(shot * light[c] + thermal) * deviate[c]
    for c in range(y.size):
        seen[c] = y[c] + added[c]
    beyond = 0.0
    if step > 0:
        inverse = 1 / step
        for c in range(y.size):
            seen[c] = np.rint(seen[c] * inverse)
        for c in range(y.size):
            if read[c] and (seen[c] > largest or seen[c] < least):
                beyond += 1.0
        for c in range(y.size):
            seen[c] = min(max(seen[c], least), largest) * step
    back = 1 / scale
    for c in range(y.size):
        out[c] = seen[c] * back * read[c]
    squares, bright, samples, over = 0.0, 0.0, 0.0, 1 / full
    for c in range(y.size):
        off = added[c] * over * read[c]
        squares += off * off
        bright += light[c] * read[c]
        samples += read[c]
    counts[0] += squares
    counts[1] += bright
    counts[2] += beyond
    counts[3] += samples


@njit(cache=True, nogil=True)
def through_tiles(
    begin, end, real, imag, straight, turned, read, alive, base, linear, square, scale, noise, adc, full, laser, normal, out,
    counts,
):  # fmt: skip
    """Vectors through a row of tiles and onto detectors.

    real, imag: (rows, N, 1 or tiles) field (or power) of inputs, imag empty where there is none; straight, turned: (N, outputs)
    real and imaginary parts of the tiles by input, turned empty where there is none; read, alive: (outputs,) 1 where an output is
    read, and where its detector sees light, else 0; base: (rows,), linear, square: light on a detector is base + linear · y +
    square · |y|², full scale 1; scale: current over y; noise: (2,) variances of shot noise of the light of full scale, and of
    thermal noise; adc: (3,) step (0 for an ideal one), largest and least code; full: the largest current of these tiles; laser:
    (rows, tiles)
    or empty, normal: (rows, outputs) or empty, deviates; out: (rows, outputs) written; counts: (rows, 4) added to: squares of
    noise over full, light, clipped, samples.
    """
    ports, outputs = straight.shape
    y, q, each, light, added, seen = np.empty((6, outputs))
    for row in range(begin, end):
        y[:] = 0.0
        q[:] = 0.0
        for i in range(ports):
            _spread(real[row, i], ports, each)
            _added(each, straight[i], y)
            if turned.size:
                _added(each, turned[i], q)
            if imag.size:
                _spread(imag[row, i], ports, each)
                _added(each, straight[i], q)
                if turned.size:
                    _taken_off(each, turned[i], y)
        for c in range(outputs):
            light[c] = base[row] + linear * y[c] + square * (y[c] * y[c] + q[c] * q[c])
        if laser.size:
            _spread(laser[row], ports, added)
            for c in range(outputs):
                added[c] *= y[c]
        else:
            added[:] = 0.0
        deviates = normal[row] if normal.size else normal[:0].ravel()
        _read(y, light, alive, read, added, scale, noise, adc, deviates, full, seen, out[row], counts[row])


@njit(cache=True, nogil=True)
def light_of_columns(b, b_leak, at_once, wavelengths, steps, out):
    """Light of columns (windows, crossbars, columns), written: Σ |field|² over a window's products in each crossbar."""
    inner = b.shape[0]
    out[:] = 0.0
    for k in range(inner):
        symbol, crossbar = k // at_once, k % at_once // wavelengths
        place = out[symbol // steps, crossbar]
        for j in range(place.size):
            place[j] += b[k, j] * b[k, j] + b_leak[k, j] * b_leak[k, j]


@njit(cache=True, nogil=True)
def at_nodes(
    begin, end, a, a_leak, b, b_leak, below, ports, at_once, wavelengths, steps, cosine, sine, unequal, place, alive, noise, adc,
    laser, normal, out, counts,
):  # fmt: skip
    """Rows of one operand and columns of the other meet at nodes; charge of ``steps`` symbols adds up before it is read.

    a, a_leak: (rows, K) values and what modulators leak beside them, b, b_leak: (K, columns); below: of ``light_of_columns``;
    ports: N; at_once: products of a result in a symbol, ``wavelengths`` of them in each crossbar; cosine, sine, unequal:
    (clusters, shared, summed, N, N) or empty: what a node's phase and combiner make of the product, of its quadrature and of the
    difference of both lights; place: (row tiles, column tiles, 2) cluster, and number among those that share its rows; alive:
    (clusters, shared, N, N) 1 or 0; noise: (2,) variance of shot noise of a product's light, and of thermal noise of a symbol, in
    products; adc: (3,) as of ``through_tiles``; laser: (row tiles, column tiles, symbols) or empty; normal: (windows, rows,
    columns) or empty; out: (rows, columns) added to; counts: (rows, 4) added to.
    """
    inner, columns = a.shape[1], b.shape[1]
    crossbars = at_once // wavelengths
    y, q, drawn, total, noisy, light, seeing, seen = np.empty((8, columns))
    one, found, varied = np.ones(columns), np.empty(columns), np.empty(2)
    for row in range(begin, end):
        here, line = row // ports, row % ports
        for j in range(columns):
            at = place[here, j // ports]
            seeing[j] = alive[at[0], at[1], line, j % ports]
        for window in range(below.shape[0]):
            first, last = window * steps, min((window + 1) * steps, -(-inner // at_once))
            # Full scale of the power budget: all symbols alike full.
            products = (last - first) * min(at_once, inner)
            total[:] = 0.0
            noisy[:] = 0.0
            light[:] = 0.0
            for crossbar in range(crossbars):
                y[:] = 0.0
                q[:] = 0.0
                drawn[:] = 0.0
                above = 0.0
                for symbol in range(first, last):
                    for wave in range(wavelengths):
                        k = symbol * at_once + crossbar * wavelengths + wave
                        if k >= inner:
                            continue
                        x, x1 = a[row, k], a_leak[row, k]
                        above += x * x + x1 * x1
                        for j in range(columns):
                            y[j] += x * b[k, j] + x1 * b_leak[k, j]
                        if sine.size:
                            for j in range(columns):
                                q[j] += x1 * b[k, j] - x * b_leak[k, j]
                        if laser.size:
                            for tile in range(laser.shape[1]):
                                stop = min((tile + 1) * ports, columns)
                                stronger = laser[here, tile, symbol]
                                for j in range(tile * ports, stop):
                                    drawn[j] += stronger * (x * b[k, j] + x1 * b_leak[k, j])
                under = below[window, crossbar]
                for j in range(columns):
                    light[j] += (above + under[j]) / 2
                if cosine.size:
                    for j in range(columns):
                        at = place[here, j // ports]
                        straight = cosine[at[0], at[1], crossbar, line, j % ports]
                        noisy[j] += straight * drawn[j]
                        total[j] += straight * y[j] - sine[at[0], at[1], crossbar, line, j % ports] * q[j]
                        total[j] += unequal[at[0], at[1], crossbar, line, j % ports] * (above - under[j])
                else:
                    for j in range(columns):
                        noisy[j] += drawn[j]
                        total[j] += y[j]
            varied[0], varied[1] = noise[0], noise[1] * (last - first)
            deviates = normal[window, row] if normal.size else normal[:0].ravel()
            before = counts[row, 1]
            _read(total, light, seeing, one, noisy, 1.0, varied, adc, deviates, float(products), seen, found, counts[row])
            counts[row, 1] = before + (counts[row, 1] - before) / products
            out[row] += found
