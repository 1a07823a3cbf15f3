"""The control of the systolic array, stepped through every cycle (numba).

As in the RTL, counters say when the next fold loads and streams; no value moves. Nothing here knows a formula for the time of a
job.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from accelerators.systolic._cycle_kernels import COLUMNS, DRAIN_SHIFT, FULL, LATENCY, NONE, OVERLAP, ROWS

# Columns of the tiles that the control is given (float64).
T_FOLDS, T_STREAM, T_LOAD_READY, T_STREAM_READY, T_LOAD_CYCLES, T_INTERVAL = range(6)
TILE_FIELDS = 6

SLACK = 1e-6
"""Cycles by which the times of tiles may be too late: what 64-bit floats lose must not cost a cycle."""


@njit(cache=True, nogil=True)
def control(job, output_stationary, tiles):
    """The array's control alone, stepped through every cycle of a list of tiles, folds one behind the other across them.

    Args:
        job: numbers of ``JOB_FIELDS``; its folds and stream are not read.
        output_stationary: whether the sums stay.
        tiles: (number, TILE_FIELDS): folds; operands a fold streams; times before which what stays and what streams is not at
            hand; cycles a fold's load takes; cycles between two operands.

    Returns:
        The cycle after the last result.
    """
    rows, columns, overlap = job[ROWS], job[COLUMNS], job[OVERLAP]
    shift = rows if job[DRAIN_SHIFT] != 0 else 0
    if output_stationary:
        way, gap = rows + columns - 3 + job[LATENCY] + shift, shift
    else:
        way, gap = job[LATENCY] * rows + columns - 2, 0
    loading, loaded, streaming, begun = 0, 0, False, False  # cycles left to load, folds in the shadow registers, …
    load_tile = load_fold = stream_tile = stream_fold = 0
    entered, leaving, since = 0, 0, 0  # operands of the present fold, cycles until its last result, cycles since it began
    length, interval = 0.0, 1.0
    number = tiles.shape[0]
    t = 0
    while True:
        if streaming and since + SLACK >= interval * length:
            streaming = False
        may = stream_tile < number and not streaming and (loaded > 0 or output_stationary)
        if may and t + SLACK >= tiles[stream_tile, T_STREAM_READY]:
            if not output_stationary:
                may = overlap == FULL or leaving == 0
            else:
                may = t + SLACK >= tiles[stream_tile, T_LOAD_READY]
                may = may and ((not begun or since >= gap) if overlap == FULL else leaving == 0)
            if may:
                streaming = begun = True
                length, interval = tiles[stream_tile, T_STREAM], tiles[stream_tile, T_INTERVAL]
                entered = since = 0
                loaded = 0
                stream_fold += 1
                if stream_fold == tiles[stream_tile, T_FOLDS]:
                    stream_tile, stream_fold = stream_tile + 1, 0
        free = loading == 0 and loaded == 0 and (overlap != NONE or (not streaming and leaving == 0))
        if free and not output_stationary and load_tile < number and t + SLACK >= tiles[load_tile, T_LOAD_READY]:
            loading = int(np.ceil(tiles[load_tile, T_LOAD_CYCLES] - SLACK))
            load_fold += 1
            if load_fold == tiles[load_tile, T_FOLDS]:
                load_tile, load_fold = load_tile + 1, 0
        if stream_tile == number and not streaming and leaving == 0:
            return t
        # The clock.
        if loading > 0:
            loading -= 1
            if loading == 0:
                loaded = 1
        if leaving > 0:
            leaving -= 1
        while streaming and entered < length and since + SLACK >= interval * entered:
            entered += 1
            if entered == length:
                leaving = way
        since += 1
        t += 1
