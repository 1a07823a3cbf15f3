"""Search over the tiles of matrix products, and the clock under a limit of power (numba).

The tests hold both against plain Python that loops over every tile. Times are in seconds, work of the units in cycles.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Fields of the machine vector `hw` (float64).
UNITS, CLOCK, RATE, EFFICIENCY, K_STEP, STAGES, TILE_LATENCY = 0, 1, 2, 3, 4, 5, 6
REG_CAP, REG_BPC, SHARED_CAP, SHARED_BPC = 7, 8, 9, 10
L2_CAP, L2_BPC, L2_UNIT_BPC, OFF_BPS, UNIT_OFF_BPS, OFF_LATENCY = 11, 12, 13, 14, 15, 16
INSTR_M, INSTR_N, INSTR_K, FROM_SHARED, SUM_BYTES = 17, 18, 19, 20, 21
E_REG, E_SHARED, E_L2, E_OFF = 22, 23, 24, 25
STATIC_W, LIMIT_W, MIN_CLOCK, E_EXPONENT = 26, 27, 28, 29
EXPOSED, PACK_BPC, CUT_EVENLY = 30, 31, 32
HW_FIELDS = 33

# Columns of a job (float64). Bytes of an element as stored (`A_BYTES`) and as multiplied (`A_USED`); off-chip bytes of each
# operand read once; cycles of one lane to widen an element, over the lanes of a unit; bytes of all operands and results.
BATCH, M, N, K, A_BYTES, B_BYTES, A_USED, B_USED = 0, 1, 2, 3, 4, 5, 6, 7
A_OFF, B_OFF, OTHER_OFF, OUT_BYTES, A_WIDEN, B_WIDEN, RATE_FACTOR = 8, 9, 10, 11, 12, 13, 14
CORE_J, VECTOR_CYCLES, DIRECT_CYCLES, TOUCHED, A_WIDEN_PJ, B_WIDEN_PJ = 15, 16, 17, 18, 19, 20
JOB_FIELDS = 21

# Columns of a tile (float64).
TILE_M, TILE_N, WARP_M, WARP_N, TILE_RATE = 0, 1, 2, 3, 4
TILE_FIELDS = 5

# Columns of a result (float64). TILE is an index, −1 for the direct kernel on the vector lanes.
WORK_S, RUN_CLOCK, TILE, SPLIT, WAVES, UNIT_CYCLES = 0, 1, 2, 3, 4, 5
OFF_BYTES, L2_BYTES, SHARED_BYTES, REG_BYTES, CORE_ENERGY, WIDEN_J = 6, 7, 8, 9, 10, 11
RESULT_FIELDS = 12


@njit(cache=True, nogil=True)
def work_time(clock, unit_cycles, fill_s, l2_cycles, off_s, latency_s, serial_cycles, exposed=0.0):
    """Seconds of a kernel at a clock: the slowest of units, L2 and off-chip memory, each with what must pass before it.

    ``exposed`` is the share of the shorter of units' work and off-chip transfers that the longer one does not hide.
    """
    longest = max(unit_cycles / clock + fill_s, l2_cycles / clock + latency_s, off_s + latency_s)
    return longest + exposed * min(unit_cycles / clock, off_s) + serial_cycles / clock


@njit(cache=True, nogil=True)
def clock_under_limit(hw, core_j, off_j, unit_cycles, fill_s, l2_cycles, off_s, latency_s, serial_cycles):
    """The highest clock at which static power + energy / time stays within the limit: bisection, power rising with the clock."""
    top = hw[CLOCK]
    work = work_time(top, unit_cycles, fill_s, l2_cycles, off_s, latency_s, serial_cycles, hw[EXPOSED])
    if work <= 0.0 or core_j + off_j <= (hw[LIMIT_W] - hw[STATIC_W]) * work:
        return top
    low, high = hw[MIN_CLOCK], top
    for _ in range(40):
        middle = 0.5 * (low + high)
        work = work_time(middle, unit_cycles, fill_s, l2_cycles, off_s, latency_s, serial_cycles, hw[EXPOSED])
        energy = core_j * (middle / top) ** hw[E_EXPONENT] + off_j
        if energy <= (hw[LIMIT_W] - hw[STATIC_W]) * work:
            low = middle
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def operand_loads(rows, columns, tile_m, tile_n, k, a, b, cap, concurrent, a_off, b_off):
    """Least off-chip bytes of both operands over the shapes and orders in which waves of tiles pass over the results.

    A wave holds ``height`` × ``width`` tiles that run along k together, so that each of its row and column panels is read once.
    Where the next wave needs a panel again, as much of it comes from L2 as L2 holds of what was read in between.
    """
    best = np.inf
    height = 1
    while True:
        high = min(height, rows)
        wide = max(1, min(columns, concurrent // high))
        again_a = -(-columns // wide) - 1
        again_b = -(-rows // high) - 1
        strip_a, strip_b = high * tile_m * k * a, wide * tile_n * k * b
        # Along a row of waves: the row's panel stays, all of B passes by. Or down a column of waves.
        kept = min(1.0, cap / (strip_a + strip_b))
        kept_a, kept_b = min(1.0, cap / (rows * tile_m * k * a)), min(1.0, cap / (columns * tile_n * k * b))
        along = a_off * (1.0 + again_a * (1.0 - kept)) + b_off * (1.0 + again_b * (1.0 - kept_b))
        down = b_off * (1.0 + again_b * (1.0 - kept)) + a_off * (1.0 + again_a * (1.0 - kept_a))
        best = min(best, along, down)
        if height >= rows or height >= concurrent:
            return best
        height *= 2


@njit(cache=True, nogil=True)
def best_tiles(jobs, hw, tiles, splits, out):
    """For each job the tile and split that take least time, each at the clock that the limit of power leaves it."""
    for i in range(jobs.shape[0]):
        job = jobs[i]
        batch, m, n, k = int(job[BATCH]), int(job[M]), int(job[N]), int(job[K])
        a, b = job[A_BYTES], job[B_BYTES]
        clock = hw[CLOCK]
        best, b_run, b_core, b_unit = np.inf, clock, 0.0, 0.0
        b_off = b_l2_bytes = b_shared = b_reg = b_widened = 0.0
        b_tile, b_split, b_waves = -1, 1, 0
        if job[DIRECT_CYCLES] > 0.0:
            # The vector lanes, without tiles: every operand passes L2 once.
            b_unit = job[DIRECT_CYCLES] + job[VECTOR_CYCLES]
            b_off, b_l2_bytes = job[A_OFF] + job[B_OFF] + job[OTHER_OFF], job[TOUCHED]
            l2, off_s, fill = b_l2_bytes / hw[L2_BPC], b_off / hw[OFF_BPS], hw[TILE_LATENCY]
            b_core = job[CORE_J] + 1e-12 * b_l2_bytes * hw[E_L2]
            b_run = clock_under_limit(hw, b_core, 1e-12 * b_off * hw[E_OFF], b_unit, fill, l2, off_s, fill, 0.0)
            best = work_time(b_run, b_unit, fill, l2, off_s, fill, 0.0, hw[EXPOSED])
        # Operands are copied into the order in which the main loop reads them, but for products with a vector.
        packed = 0.0
        if hw[PACK_BPC] > 0.0 and m > 1 and n > 1:
            packed = float(batch) * k * (float(m) * a + float(n) * b)
        for t in range(tiles.shape[0]):
            tm, tn = int(tiles[t, TILE_M]), int(tiles[t, TILE_N])
            sums = tm * tn * hw[SUM_BYTES]
            if 2.0 * sums > hw[REG_CAP]:
                continue
            staged = hw[STAGES] * hw[K_STEP] * (tm * a + tn * b)
            if staged > hw[SHARED_CAP]:
                continue
            together = max(1, int(min(hw[REG_CAP] / (2.0 * sums), hw[SHARED_CAP] / staged)))
            rows, columns = -(-m // tm), -(-n // tn)
            if hw[CUT_EVENLY]:
                wm, wn = int(tiles[t, WARP_M]), int(tiles[t, WARP_N])
                high, wide = -(-m // rows), -(-n // columns)
                tm, tn = -(-high // wm) * wm, -(-wide // wn) * wn
            for s in range(splits.shape[0]):
                split = int(splits[s])
                if split > 1 and k < split * int(hw[K_STEP]):
                    continue
                part = -(-k // split)
                deep = -(-part // int(hw[K_STEP])) * hw[K_STEP]
                count = batch * rows * columns * split
                if split > 1 and count > int(hw[UNITS]) * together:
                    break  # k is cut to give idle units work, never into further waves
                waves = -(-count // int(hw[UNITS]))
                macs = float(waves) * tm * tn * deep
                operands = 0.0 if hw[FROM_SHARED] else job[A_USED] / hw[INSTR_N] + job[B_USED] / hw[INSTR_M]
                per_mac = operands + 2.0 * hw[SUM_BYTES] / hw[INSTR_K]
                read = job[A_BYTES] / tiles[t, WARP_N] + job[B_BYTES] / tiles[t, WARP_M]
                unit = macs / (hw[RATE] * job[RATE_FACTOR] * tiles[t, TILE_RATE] * hw[EFFICIENCY])
                unit = max(unit, macs * per_mac / hw[REG_BPC])
                unit = max(unit, (macs * read + waves * deep * (tm * a + tn * b)) / hw[SHARED_BPC])
                unit = max(unit, waves * deep * (tm * job[A_WIDEN] + tn * job[B_WIDEN]), job[VECTOR_CYCLES])
                fill = hw[TILE_LATENCY] * -(-waves // together)
                loaded = float(batch) * k * (float(m) * columns * a + float(n) * rows * b)
                result = float(batch) * m * n
                partial = 2.0 * split * result * hw[SUM_BYTES] if split > 1 else 0.0
                l2_bytes = loaded + result * job[OUT_BYTES] + partial
                l2 = max(l2_bytes / hw[L2_BPC], waves * deep * (tm * a + tn * b) / hw[L2_UNIT_BPC])
                serial, latency = 0.0, hw[TILE_LATENCY]
                if packed:
                    serial = packed / (hw[PACK_BPC] * min(hw[UNITS], float(count)))
                if split > 1:
                    fill += hw[TILE_LATENCY]
                    latency += hw[TILE_LATENCY]
                    serial += 0.5 * partial / hw[L2_BPC]
                concurrent = max(1, min(rows * columns, int(hw[UNITS]) * together // split))
                off = job[OTHER_OFF] + operand_loads(
                    rows, columns, tm, tn, k, a, b, hw[L2_CAP], concurrent, job[A_OFF], job[B_OFF]
                )
                if partial > hw[L2_CAP]:
                    off += partial
                active = min(hw[UNITS], float(count))
                off_s = off / min(hw[OFF_BPS], active * hw[UNIT_OFF_BPS])
                work = work_time(clock, unit, fill, l2, off_s, latency, serial, hw[EXPOSED])
                if work >= best:
                    continue
                exact = float(batch) * m * n * k
                shared = exact * read + loaded + 2.0 * packed
                widened = 1e-12 * k * batch * (float(m) * columns * job[A_WIDEN_PJ] + float(n) * rows * job[B_WIDEN_PJ])
                core = job[CORE_J] + widened + 1e-12 * (exact * per_mac * hw[E_REG] + shared * hw[E_SHARED] + l2_bytes * hw[E_L2])
                run = clock_under_limit(hw, core, 1e-12 * off * hw[E_OFF], unit, fill, l2, off_s, latency, serial)
                work = work_time(run, unit, fill, l2, off_s, latency, serial, hw[EXPOSED])
                if work < best:
                    best, b_run, b_core = work, run, core
                    b_tile, b_split, b_waves, b_unit = t, split, waves, unit
                    b_off, b_l2_bytes, b_shared, b_reg, b_widened = off, l2_bytes, shared, exact * per_mac, widened
        out[i, WORK_S], out[i, RUN_CLOCK] = best, b_run
        out[i, TILE], out[i, SPLIT], out[i, WAVES] = b_tile, b_split, b_waves
        out[i, UNIT_CYCLES] = b_unit
        out[i, OFF_BYTES], out[i, L2_BYTES], out[i, SHARED_BYTES], out[i, REG_BYTES] = b_off, b_l2_bytes, b_shared, b_reg
        out[i, CORE_ENERGY], out[i, WIDEN_J] = b_core, b_widened
