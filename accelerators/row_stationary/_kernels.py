"""The closed forms of a mapping and the search for the best one, for numba.

A nest is an array of whole numbers, indexed by the names below; ``accelerators.row_stationary.nest`` says what they mean.
``tests/accelerators/test_row_stationary.py`` holds these forms against a loop nest that is walked word by word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

(IMAGES, GROUPS, FILTERS, CHANNELS, OUT_ROWS, OUT_COLUMNS, KERNEL_ROWS, KERNEL_COLUMNS, ROW_STRIDE, ROW_DILATION,
 COLUMN_STEP, COLUMNS_PLANNED, ROW_PAIRS, ROW_PIECES, COLUMN_PIECES, MAC_CYCLES) = range(16)  # fmt: skip
"""Positions in a nest. COLUMN_STEP is the columns that one more output needs; ROW_PAIRS the pairs of output and kernel row whose
input row is no padding; *_PIECES how many parts a kernel too large for the array or its scratchpads is cut into."""

(PE_ROWS, PE_COLUMNS, IFMAP_WORDS, FILTER_WORDS, PSUM_WORDS, BANKS, BANK_WORDS, FILTER_BUFFER_WORDS) = range(8)
"""Positions in the limits of a machine."""

(IFMAP_RATE, FILTER_RATE, PSUM_RATE, OFF_CHIP_RATE) = range(4)
"""Positions in its rates, words a cycle."""

(OFF_CHIP_IFMAP, OFF_CHIP_FILTER, BUFFER_IFMAP, PSUM_WRITES, PSUM_READS, NETWORK_IFMAP, NETWORK_FILTER, NETWORK_PSUM,
 PASSES) = range(9)  # fmt: skip
"""Positions in the counts of a mapping: words, and passes."""

OFF_CHIP_TRAFFIC, ENERGY, LATENCY = range(3)


@njit(cache=True)
def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@njit(cache=True)
def input_rows(e: int, kernel_rows: int, stride: int, dilation: int) -> int:
    """Distinct input rows below ``e`` neighbouring output rows, padding included.

    Output row i and kernel row k meet input row i·stride + k·dilation; without their common factor, (i, k) and
    (i + dilation, k − stride) meet the same one.
    """
    step, apart = stride, dilation
    while apart:
        step, apart = apart, step % apart
    return e * kernel_rows - max(0, e - dilation // step) * max(0, kernel_rows - stride // step)


@njit(cache=True)
def sets_in_array(e: int, kernel_rows: int, pe_rows: int, pe_columns: int) -> int:
    """PE sets of ``kernel_rows`` × ``e`` that fit in the array; a set too wide is cut into strips below each other."""
    down = pe_rows // kernel_rows
    return down * (pe_columns // e) if e <= pe_columns else down // _ceil(e, pe_columns)


@njit(cache=True)
def mapping_counts(nest: Any, mapping: Any, rows: int, columns: int, counts: Any) -> None:
    """Words moved by a mapping (n, e, p, q, r, t, m), into ``counts``.

    Loops, outermost first: groups, tiles of m filters, of n images, of e output rows, of q·r channels, pieces of kernel rows
    (each with its input rows), pieces of kernel columns, p·t filters. A tile that is still there is not loaded again.

    Args:
        rows: input rows of all tiles and pieces, for one image, channel and filter tile.
        columns: input columns that a row brings.
    """
    n, e, p, q, r, t, m = mapping
    images, groups, filters, channels = nest[IMAGES], nest[GROUPS], nest[FILTERS], nest[CHANNELS]
    pieces = nest[ROW_PIECES] * nest[COLUMN_PIECES]
    image_tiles, row_tiles, channel_tiles = _ceil(images, n), _ceil(nest[OUT_ROWS], e), _ceil(channels, q * r)
    filter_tiles = _ceil(filters, m)
    last = filters - (filter_tiles - 1) * m
    per_tile, in_last = _ceil(m, p * t), _ceil(last, p * t)
    passes = (filter_tiles - 1) * per_tile + in_last
    taps = channels * nest[KERNEL_ROWS] * nest[KERNEL_COLUMNS]
    again = image_tiles * row_tiles

    ifmap = groups * images * channels * rows * columns
    alone = channel_tiles * nest[ROW_PIECES] * again == 1
    counts[OFF_CHIP_IFMAP] = ifmap * (1 if alone else filter_tiles)
    rounds = channel_tiles * pieces
    whole = (filter_tiles - 1) * m * (1 if rounds * per_tile == 1 else again)
    filter_loads = whole + last * (1 if rounds * in_last == 1 else again)
    counts[OFF_CHIP_FILTER] = groups * filter_loads * taps
    counts[BUFFER_IFMAP] = ifmap * nest[COLUMN_PIECES] * passes
    outputs = groups * images * filters * nest[OUT_ROWS] * nest[OUT_COLUMNS]
    counts[PSUM_WRITES] = outputs * rounds
    counts[PSUM_READS] = outputs * (rounds - 1)

    # Each input row goes to the PEs of its diagonal in every set that works on other filters.
    sets = 0
    for part, times in _tiles(filters, m):
        for group, group_times in _tiles(part, p * t):
            sets += times * group_times * _ceil(group, _ceil(group, t))
    counts[NETWORK_IFMAP] = groups * images * channels * nest[ROW_PAIRS] * columns * nest[COLUMN_PIECES] * sets
    # Each filter row goes to the e PEs of its row in a set.
    widest = min(e, nest[OUT_ROWS])
    counts[NETWORK_FILTER] = (
        groups
        * taps
        * (
            (filter_tiles - 1) * m * (widest if rounds * per_tile == 1 else image_tiles * nest[OUT_ROWS])
            + last * (widest if rounds * in_last == 1 else image_tiles * nest[OUT_ROWS])
        )
    )
    # Sums pass up the rows of a set and of the r sets of other channels, one neighbour after the other, then to the buffer.
    stacked = 0
    for part, times in _tiles(channels, q * r):
        stacked += times * _ceil(part, _ceil(part, r))
    hops = stacked * nest[KERNEL_ROWS] * nest[COLUMN_PIECES] - rounds
    counts[NETWORK_PSUM] = outputs * hops + counts[PSUM_WRITES] + counts[PSUM_READS]
    counts[PASSES] = groups * image_tiles * row_tiles * rounds * passes


@njit(cache=True)
def mapping_cycles(nest: Any, mapping: Any, filter_words: float, rates: Any) -> tuple[float, float]:
    """(cycles before the first MAC of each pass, cycles from then to its last partial sum), summed over all passes.

    A pass first loads its filters and the first window of its input rows. Then n·F output positions follow each other through
    two stages: the PEs' MACs (S·q·p each), and the partial sums' way in and out (e·p·t words over the bus, both ways at once);
    further input columns arrive meanwhile. The slowest of the three sets the pace.

    Args:
        filter_words: words of filters that all passes load.
    """
    n, e, p, q, r, t, m = mapping
    kernel_rows, kernel_columns = nest[KERNEL_ROWS], nest[KERNEL_COLUMNS]
    row_piece = _ceil(kernel_rows, nest[ROW_PIECES])
    column_piece = _ceil(kernel_columns, nest[COLUMN_PIECES])
    windows = steady = 0.0
    for filters, filter_times in _tiles(nest[FILTERS], m):
        for part, part_times in _tiles(filters, p * t):
            deep = _ceil(part, t)
            for channels, channel_times in _tiles(nest[CHANNELS], q * r):
                wide = _ceil(channels, r)
                for images, image_times in _tiles(nest[IMAGES], n):
                    for rows, row_times in _tiles(nest[OUT_ROWS], e):
                        for high, high_times in _tiles(kernel_rows, row_piece):
                            for long, long_times in _tiles(kernel_columns, column_piece):
                                times = filter_times * part_times * channel_times * image_times
                                times *= row_times * high_times * long_times
                                lines = input_rows(rows, high, nest[ROW_STRIDE], nest[ROW_DILATION])
                                macs = float(long * wide * deep * nest[MAC_CYCLES])
                                sums = rows * part / rates[PSUM_RATE]
                                arrive = lines * channels * min(nest[COLUMN_STEP], long) / rates[IFMAP_RATE]
                                positions = images * nest[OUT_COLUMNS]
                                windows += times * lines * channels * long / rates[IFMAP_RATE]
                                steady += times * (macs + sums + (positions - 1) * max(macs, sums, arrive))
    groups = nest[GROUPS]
    return filter_words / rates[FILTER_RATE] + groups * windows, groups * steady


@njit(cache=True)
def _tiles(size: int, tile: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """((tile, whole tiles), (what is left, 1 or 0)) of ``size``."""
    rest = size % tile
    return (tile, size // tile), (max(rest, 1), 1 if rest else 0)


@njit(cache=True)
def search(nest: Any, limits: Any, rates: Any, energies: Any, rows: Any, image_tiles: Any, objective: int, best: Any) -> bool:
    """The best mapping (n, e, p, q, r, t, m), into ``best``; False where none fits.

    Args:
        energies: of a word off chip, in the global buffer and on the network.
        rows: e → (e, input rows of all tiles and pieces, padding included); one line each.
        image_tiles: values of n.
    """
    filters, channels = nest[FILTERS], nest[CHANNELS]
    row_piece = _ceil(nest[KERNEL_ROWS], nest[ROW_PIECES])
    column_piece = _ceil(nest[KERNEL_COLUMNS], nest[COLUMN_PIECES])
    outputs = nest[GROUPS] * nest[IMAGES] * filters * nest[OUT_ROWS] * nest[OUT_COLUMNS]
    macs = float(outputs) * channels * nest[KERNEL_ROWS] * nest[KERNEL_COLUMNS] * nest[MAC_CYCLES]
    counts = np.zeros(9, dtype=np.int64)
    mapping = np.zeros(7, dtype=np.int64)
    found = False
    first = second = third = np.inf
    for line in range(rows.shape[0]):
        e = rows[line, 0]
        sets = sets_in_array(e, row_piece, limits[PE_ROWS], limits[PE_COLUMNS])
        lines = input_rows(e, row_piece, nest[ROW_STRIDE], nest[ROW_DILATION])
        ifmap = nest[GROUPS] * nest[IMAGES] * channels * rows[line, 1] * nest[COLUMNS_PLANNED]
        for n in image_tiles:
            for q in range(1, min(limits[IFMAP_WORDS] // column_piece, channels) + 1):
                deep = _ceil(channels, q)
                for r in range(1, min(sets, deep) + 1):
                    if r > 1 and _ceil(deep, r) == _ceil(deep, r - 1):
                        continue
                    words = n * q * r * lines * nest[COLUMNS_PLANNED]
                    left = limits[BANKS] - _ceil(words, limits[BANK_WORDS])
                    most = left * limits[BANK_WORDS] // (n * e * nest[OUT_COLUMNS]) if left > 0 else 0
                    if most < 1:
                        continue
                    most = min(most, filters)
                    if objective == OFF_CHIP_TRAFFIC and found:
                        single = _ceil(channels, q * r) * nest[ROW_PIECES] * _ceil(nest[IMAGES], n) * _ceil(nest[OUT_ROWS], e)
                        least = ifmap * (1 if single == 1 else _ceil(filters, most))
                        if least + outputs > first:
                            continue
                    for p in range(1, min(limits[PSUM_WORDS], limits[FILTER_WORDS] // (q * column_piece), filters) + 1):
                        strips = _ceil(filters, p)
                        for t in range(1, min(sets // r, strips) + 1):
                            if p * q * r * t * row_piece * column_piece > limits[FILTER_BUFFER_WORDS]:
                                break
                            if t > 1 and _ceil(strips, t) == _ceil(strips, t - 1):
                                continue
                            m = filters if most == filters else most // (p * t) * p * t
                            if m < 1:
                                continue
                            mapping[0], mapping[1], mapping[2], mapping[3] = n, e, p, q
                            mapping[4], mapping[5], mapping[6] = r, t, m
                            bound = macs / (row_piece * min(e, nest[OUT_ROWS]) * r * t)
                            if objective == LATENCY and bound > first:
                                continue
                            mapping_counts(nest, mapping, rows[line, 1], nest[COLUMNS_PLANNED], counts)
                            moved = float(counts[OFF_CHIP_IFMAP] + counts[OFF_CHIP_FILTER] + outputs)
                            if objective == OFF_CHIP_TRAFFIC and moved > first:
                                continue
                            held = counts[OFF_CHIP_IFMAP] + counts[BUFFER_IFMAP] + counts[PSUM_WRITES] + counts[PSUM_READS]
                            sent = counts[NETWORK_IFMAP] + counts[NETWORK_FILTER] + counts[NETWORK_PSUM]
                            energy = energies[0] * moved + energies[1] * held + energies[2] * sent
                            if objective == ENERGY and energy > first:
                                continue
                            if objective == OFF_CHIP_TRAFFIC and moved == first and energy > second:
                                continue
                            before, steady = mapping_cycles(nest, mapping, float(counts[OFF_CHIP_FILTER]), rates)
                            ahead = counts[OFF_CHIP_FILTER] / rates[OFF_CHIP_RATE]
                            time = before + max(steady, ahead) + (moved - counts[OFF_CHIP_FILTER]) / rates[OFF_CHIP_RATE]
                            if objective == OFF_CHIP_TRAFFIC:
                                a, b, c = moved, energy, time
                            elif objective == ENERGY:
                                a, b, c = energy, time, moved
                            else:
                                a, b, c = time, energy, moved
                            if a < first or (a == first and (b < second or (b == second and c < third))):
                                first, second, third = a, b, c
                                best[:] = mapping
                                found = True
    return found
