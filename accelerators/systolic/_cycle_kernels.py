"""The systolic array cycle by cycle: its control, and every register of every processing element (numba).

A kernel counts the cycles in which the array moves. A stall freezes all of it, so that stalls only stretch the time between
those cycles; ``cycle.py`` does that. Nothing here knows a formula for the time of a job: folds begin when the control's counters
let them, and a job is over when its last result is in its register.

Element (r, c) works on what entered at the edge r + c cycles before (with a MAC latency of L, L·r + c weight-stationary). So the
elements of a row that work on one fold in one cycle lie side by side: the loops run over such stretches, rows from the bottom up
and older folds first, so that every register is read before it is written.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit

from numerics._mac_kernels import SOURCE, from_bits, mac, ones, sum_code, sum_value
from numerics._product_kernels import EXACT

NONE, WEIGHTS, FULL = 0, 1, 2

# Fields of the vector `job` (int64).
ROWS, COLUMNS, BATCH, STREAM, FOLDS_DOWN, FOLDS_ACROSS, OVERLAP, LATENCY, DRAIN_SHIFT = range(9)
JOB_FIELDS = 9

# Registers of an element, as faults name them and as activity counts them.
STREAMED, TRANSPORT, SHADOW, HELD, SUM, DRAIN = range(6)
REGISTERS = 6

# Fields of a fault (int64 rows).
F_KIND, F_REGISTER, F_ROW, F_COLUMN, F_BIT, F_CYCLE = range(6)
FLIP, STUCK_0, STUCK_1 = range(3)

# Rows of the activity (int64): toggled bits by register, then multiplications by zero.
ZEROS = REGISTERS
ACTIVITY_ROWS = REGISTERS + 1

# Columns of the recorded signals (uint8).
BUSY, WEIGHT_READY, READY, VALID = range(4)

FLUSH = 1 << 26
"""Cycles in which no 32-bit count of toggles overflows."""


@njit(cache=True, nogil=True)
def _damaged(code, fault):
    """A code as a faulty register holds it."""
    bit = np.uint64(1) << np.uint64(fault[F_BIT])
    if fault[F_KIND] == FLIP:
        return code ^ bit
    if fault[F_KIND] == STUCK_1:
        return code | bit
    return code & ~bit


@njit(cache=True, nogil=True)
def _damage_operand(values, codes, table, fault):
    """A fault in a register that holds an operand: its code changes, and its value with it."""
    r, c = fault[F_ROW], fault[F_COLUMN]
    code = _damaged(np.uint64(codes[r, c]), fault)
    codes[r, c] = code
    if table.size:
        values[r, c] = table[np.int64(code)]
    else:
        values[r, c] = from_bits(np.uint64(code), np.float32(0))  # fp32's codes are its bits


@njit(cache=True, nogil=True, inline="always")
def _pass(came, register, start, count):
    """What comes to elements from their neighbours on the left. (Unsigned indices need no test for negative ones, and without
    it the loop is done in vectors.)"""
    first = np.uint64(start)
    for i in range(np.uint64(count)):
        came[first + i] = register[first + i - np.uint64(1)]


@njit(cache=True, nogil=True, inline="always")
def _take(came, came_code, register, register_code, toggled, start, count):
    """Registers take what came, and the bits that change are counted."""
    first = np.uint64(start)
    for i in range(np.uint64(count)):
        toggled[first + i] += ones(register_code[first + i] ^ came_code[first + i])
        register_code[first + i] = came_code[first + i]
    for i in range(np.uint64(count)):
        register[first + i] = came[first + i]


@njit(cache=True, nogil=True, inline="always")
def _count_zeros(a, b, zeros, start, count):
    """Multiplications in which an operand is zero."""
    first = np.uint64(start)
    for i in range(np.uint64(count)):
        zeros[first + i] += np.uint32((a[first + i] == 0) | (b[first + i] == 0))


@njit(cache=True, nogil=True)
def _flush(counts, activity):
    """Move 32-bit counts, which loops add to, into the 64-bit ones."""
    for i in range(ACTIVITY_ROWS):
        for r in range(counts.shape[1]):
            for c in range(counts.shape[2]):
                activity[i, r, c] += counts[i, r, c]
                counts[i, r, c] = 0


@cache
def stationary(mode, how, by, layout, step, deep, source=SOURCE):
    """The kernel of an array in which one operand stays (weights, or inputs).

    Args:
        mode, how, by: constants of the multiply-accumulate.
        layout: of the bits of a sum.
        step: cycles that a multiply-accumulate takes an element.
        deep: whether the MAC latency is more than one cycle.
        source: the file that defines rounding; part of the cache's key.
    """
    kind, bits, mantissa_bits, bias, has_inf, has_nan = layout

    @njit(nogil=True, cache=True)
    def run(job, x, xc, w, wc, x_table, w_table, out, p, q, faults, begins, activity, signals, shown):
        """One job; returns its cycles.

        Args:
            job: numbers of ``JOB_FIELDS``; folds down are along k, folds across along the columns of ``out``.
            x, xc: values and codes of what streams, (batch, stream, folds down · rows).
            w, wc: of what stays, (batch, folds down · rows, folds across · columns).
            x_table, w_table: values by code, for faults.
            out: (batch, stream, folds across · columns), the initial sums.
            p, q: parameters of the multiply-accumulate.
            faults: (number, 6).
            begins: (folds, 3), written: cycles in which a fold's load begins, its stream begins, and it has left.
            activity: (ACTIVITY_ROWS, rows, columns), added to.
            signals, shown: (cycles, 4) and (cycles, columns), written as far as they go: what the array shows.
        """
        rows, columns, stream = job[ROWS], job[COLUMNS], job[STREAM]
        overlap, latency = job[OVERLAP], job[LATENCY] + source - source
        down = job[FOLDS_DOWN]
        each = down * job[FOLDS_ACROSS]
        folds = job[BATCH] * each
        act, act_code = np.zeros((rows, columns), x.dtype), np.zeros((rows, columns), np.uint32)
        # What stays goes down no faster than its shadow registers are emptied, and no slower than it is needed.
        pace = max(1, latency - 1)
        # Where something takes several cycles from register to register, the last place holds what the first register does.
        first_moving = pace if pace > 1 else 0
        moving = np.zeros((first_moving + 1, rows, columns), x.dtype)
        moving_code = np.zeros((first_moving + 1, rows, columns), np.uint32)
        shadow, shadow_code = np.zeros((rows, columns), x.dtype), np.zeros((rows, columns), np.uint32)
        held, held_code = np.zeros((rows, columns), x.dtype), np.zeros((rows, columns), np.uint32)
        # A sum shows `latency` cycles after its operands: as many are on their way.
        first_sum = latency if deep else 0
        sums = np.zeros((first_sum + 1, rows, columns), out.dtype)
        top = np.zeros(columns, out.dtype)
        counts = np.zeros((ACTIVITY_ROWS, rows, columns), np.uint32)
        came, came_code = np.zeros(columns, x.dtype), np.zeros(columns, np.uint32)
        one = out.dtype.type(1)
        loads = streams = left = 0  # folds that have begun to load, begun to stream, left
        loading = streaming = False
        first_load = 0  # the first load whose weights still move
        t = 0
        while left < folds:
            # --- control: what begins in this cycle
            if streaming and t >= begins[streams - 1, 1] + step * stream:
                streaming = False
            if loading and t >= begins[loads - 1, 0] + rows:
                loading = False
            loaded = streams < loads and not (loading and streams == loads - 1)
            if loaded and not streaming and (overlap == FULL or left == streams):
                begins[streams, 1] = t
                streams += 1
                streaming = True
            # The shadow registers are free once the fold in them has begun to stream.
            free = left == loads if overlap == NONE else streams == loads
            if loads < folds and not loading and free:
                begins[loads, 0] = t
                loads += 1
                loading = True
            if t < signals.shape[0]:
                signals[t, BUSY] = 1
                signals[t, WEIGHT_READY] = loading
                signals[t, READY] = streaming and (t - begins[streams - 1, 1]) % step == 0
            # --- streams
            now = t % latency
            for f in range(left, streams):
                b, k0, n0 = f // each, (f % each % down) * rows, (f % each // down) * columns
                for r in range(rows - 1, -1, -1):
                    base = t - begins[f, 1] - latency * r
                    low, high = max(0, base - step * (stream - 1)), min(columns - 1, base)
                    if low > high:
                        continue
                    if base < columns:
                        # The fold's first operand brings the shadow's content into use.
                        activity[HELD, r, base] += ones(held_code[r, base] ^ shadow_code[r, base])
                        held[r, base], held_code[r, base] = shadow[r, base], shadow_code[r, base]
                    if step > 1:
                        low += (base - low) % step
                        if low > high:
                            continue
                    start = max(low, 1)
                    _pass(came, act[r], start, high + 1 - start)
                    _pass(came_code, act_code[r], start, high + 1 - start)
                    if low == 0:
                        came[0], came_code[0] = x[b, base // step, k0 + r], xc[b, base // step, k0 + r]
                    total, weight = sums[now, r], held[r]
                    above = top if r == 0 else sums[now, r - 1]
                    toggled = counts[SUM, r]
                    if step == 1 and not deep:
                        first = np.uint64(low)
                        for i in range(np.uint64(high + 1 - low)):
                            j = first + i
                            result = mac(above[j], came[j], weight[j], p, q, mode, how, by)
                            toggled[j] += np.uint32(
                                ones(
                                    sum_code(total[j], kind, bits, mantissa_bits, bias)
                                    ^ sum_code(result, kind, bits, mantissa_bits, bias)
                                )
                            )
                            total[j] = result
                        _take(came, came_code, act[r], act_code[r], counts[STREAMED, r], low, high + 1 - low)
                        _count_zeros(came, weight, counts[ZEROS, r], low, high + 1 - low)
                    else:
                        last = sums[first_sum, r]
                        for c in range(low, high + 1, step):
                            result = mac(above[c], came[c], weight[c], p, q, mode, how, by)
                            toggled[c] += np.uint32(
                                ones(
                                    sum_code(last[c], kind, bits, mantissa_bits, bias)
                                    ^ sum_code(result, kind, bits, mantissa_bits, bias)
                                )
                            )
                            total[c] = last[c] = result
                            _take(came, came_code, act[r], act_code[r], counts[STREAMED, r], c, 1)
                            _count_zeros(came, weight, counts[ZEROS, r], c, 1)
            # --- what stays, on its way down: the first row of a load stays in row 0, the next passes and stays in row 1, …
            slot = t % pace
            for g in range(first_load, loads):
                b, k0, n0 = g // each, (g % each % down) * rows, (g % each // down) * columns
                since = t - begins[g, 0]
                if since > (pace + 1) * (rows - 1) + columns - 1:
                    first_load = max(first_load, g + 1)
                    continue
                for r in range(rows - 1, -1, -1):
                    # Column c is passed by the load's row k = since − pace · r − c, for r ≤ k < rows.
                    for c in range(max(0, since - pace * r - rows + 1), min(columns - 1, since - (pace + 1) * r) + 1):
                        k = since - pace * r - c
                        if r == 0:
                            value, code = w[b, k0 + k, n0 + c], wc[b, k0 + k, n0 + c]
                        else:
                            value, code = moving[slot, r - 1, c], moving_code[slot, r - 1, c]
                        if k == r:
                            activity[SHADOW, r, c] += ones(shadow_code[r, c] ^ code)
                            shadow[r, c], shadow_code[r, c] = value, code
                        else:
                            activity[TRANSPORT, r, c] += ones(moving_code[first_moving, r, c] ^ code)
                            moving[slot, r, c], moving_code[slot, r, c] = value, code
                            moving[first_moving, r, c], moving_code[first_moving, r, c] = value, code
            # --- faults change what the registers now hold
            for i in range(faults.shape[0]):
                fault = faults[i]
                if fault[F_KIND] == FLIP and fault[F_CYCLE] != t:
                    continue
                r, c = fault[F_ROW], fault[F_COLUMN]
                if fault[F_REGISTER] == STREAMED:
                    _damage_operand(act, act_code, x_table, fault)
                elif fault[F_REGISTER] == TRANSPORT:
                    _damage_operand(moving[first_moving], moving_code[first_moving], w_table, fault)
                    moving[slot, r, c] = moving[first_moving, r, c]
                    moving_code[slot, r, c] = moving_code[first_moving, r, c]
                elif fault[F_REGISTER] == SHADOW:
                    _damage_operand(shadow, shadow_code, w_table, fault)
                elif fault[F_REGISTER] == HELD:
                    _damage_operand(held, held_code, w_table, fault)
                else:
                    code = _damaged(np.uint64(sum_code(sums[first_sum, r, c], kind, bits, mantissa_bits, bias)), fault)
                    sums[first_sum, r, c] = sum_value(code, one, kind, bits, mantissa_bits, bias, has_inf, has_nan)
                    sums[now, r, c] = sums[first_sum, r, c]
            # --- sums that leave at the bottom
            for f in range(left, streams):
                b, n0 = f // each, (f % each // down) * columns
                base = t - begins[f, 1] - latency * (rows - 1)
                low, high = max(0, base - step * (stream - 1)), min(columns - 1, base)
                for c in range(low + (base - low) % step, high + 1, step):
                    m = (base - c) // step
                    total = sums[now, rows - 1]
                    out[b, m, n0 + c] = mac(out[b, m, n0 + c], total[c], one, p, q, mode, how, EXACT)
                    at = t + latency + columns - 1 - c  # columns are aligned to the last one
                    if at < shown.shape[0]:
                        shown[at, c] = sum_code(total[c], kind, bits, mantissa_bits, bias)
                    if c == columns - 1:
                        if t + latency < signals.shape[0]:
                            signals[t + latency, VALID] = 1
                        if m == stream - 1:
                            begins[f, 2] = max(t + latency, begins[f, 1] + step * stream)
            t += 1
            if t % FLUSH == 0:
                _flush(counts, activity)
            while left < streams and 0 < begins[left, 2] <= t:
                left += 1
        _flush(counts, activity)
        return t

    return run


@cache
def output_stationary(mode, how, by, layout, step, deep, source=SOURCE):
    """The kernel of an array in which the sums stay; arguments as for ``stationary``."""
    kind, bits, mantissa_bits, bias, has_inf, has_nan = layout

    @njit(nogil=True, cache=True)
    def run(job, x, xc, w, wc, x_table, w_table, out, p, q, faults, begins, activity, signals, shown):
        """One job; returns its cycles. Arguments as for ``stationary``, but

        Args:
            job: folds down are along the rows of ``out``.
            x, xc: (batch, stream, folds down · rows): a column of A a step.
            w, wc: (batch, stream, folds across · columns): a row of B a step.
            out: (batch, folds down · rows, folds across · columns).
        """
        rows, columns, stream = job[ROWS], job[COLUMNS], job[STREAM]
        overlap, latency, shift = job[OVERLAP], job[LATENCY] + source - source, job[DRAIN_SHIFT]
        down = job[FOLDS_DOWN]
        each = down * job[FOLDS_ACROSS]
        folds = job[BATCH] * each
        act, act_code = np.zeros((rows, columns), x.dtype), np.zeros((rows, columns), np.uint32)
        held, held_code = np.zeros((rows, columns), x.dtype), np.zeros((rows, columns), np.uint32)
        sums, drain = np.zeros((rows, columns), out.dtype), np.zeros((rows, columns), out.dtype)
        # Results on their way through a deep multiply-accumulate, by fold.
        finished = np.zeros((latency + 1 if deep else 1, rows, columns), out.dtype)
        zero, one = out.dtype.type(0), out.dtype.type(1)
        came, came_code = np.zeros(columns, x.dtype), np.zeros(columns, np.uint32)
        top, top_code = np.zeros(columns, x.dtype), np.zeros(columns, np.uint32)
        counts = np.zeros((ACTIVITY_ROWS, rows, columns), np.uint32)
        streams = left = 0  # folds that have begun to stream, left
        t = 0
        while left < folds:
            # --- control: what begins in this cycle
            streaming = streams > 0 and t < begins[streams - 1, 1] + step * stream
            if streams < folds and not streaming:
                may = left == streams
                if overlap == FULL:
                    # The results of the fold before need a cycle a row to leave a column.
                    may = streams == 0 or shift == 0 or t >= begins[streams - 1, 1] + rows
                if may:
                    begins[streams, 0] = begins[streams, 1] = t
                    streams += 1
                    streaming = True
            if t < signals.shape[0]:
                signals[t, BUSY] = 1
                signals[t, READY] = streaming and (t - begins[streams - 1, 1]) % step == 0
            # --- drains move before the sums do
            if shift != 0:
                for f in range(left, streams):
                    for c in range(columns):
                        since = t - (begins[f, 1] + step * (stream - 1) + c + latency)
                        if since < 0 or since > 2 * rows - 2:
                            continue
                        if since < rows:
                            result = finished[f % (latency + 1), since, c] if deep else sums[since, c]
                            activity[DRAIN, since, c] += ones(
                                sum_code(drain[since, c], kind, bits, mantissa_bits, bias)
                                ^ sum_code(result, kind, bits, mantissa_bits, bias)
                            )
                            drain[since, c] = result
                        else:
                            for r in range(rows - 1, since - rows, -1):
                                activity[DRAIN, r, c] += ones(
                                    sum_code(drain[r, c], kind, bits, mantissa_bits, bias)
                                    ^ sum_code(drain[r - 1, c], kind, bits, mantissa_bits, bias)
                                )
                                drain[r, c] = drain[r - 1, c]
            # --- streams
            for f in range(left, streams):
                b, m0, n0 = f // each, (f % each % down) * rows, (f % each // down) * columns
                for r in range(rows - 1, -1, -1):
                    base = t - begins[f, 1] - r
                    low, high = max(0, base - step * (stream - 1)), min(columns - 1, base)
                    low += (base - low) % step
                    if low > high:
                        continue
                    start = max(low, 1)
                    _pass(came, act[r], start, high + 1 - start)
                    _pass(came_code, act_code[r], start, high + 1 - start)
                    if low == 0:
                        came[0], came_code[0] = x[b, base // step, m0 + r], xc[b, base // step, m0 + r]
                    if r == 0:
                        for c in range(low, high + 1, step):
                            k = (base - c) // step
                            top[c], top_code[c] = w[b, k, n0 + c], wc[b, k, n0 + c]
                    below, below_code = (top, top_code) if r == 0 else (held[r - 1], held_code[r - 1])
                    total, toggled = sums[r], counts[SUM, r]
                    starting = np.uint64(base)  # the element whose sum begins at zero
                    if step == 1:
                        first = np.uint64(low)
                        for i in range(np.uint64(high + 1 - low)):
                            j = first + i
                            old = total[j]
                            result = mac(zero if j == starting else old, came[j], below[j], p, q, mode, how, by)
                            toggled[j] += np.uint32(
                                ones(
                                    sum_code(old, kind, bits, mantissa_bits, bias)
                                    ^ sum_code(result, kind, bits, mantissa_bits, bias)
                                )
                            )
                            total[j] = result
                        _count_zeros(came, below, counts[ZEROS, r], low, high + 1 - low)
                        _take(came, came_code, act[r], act_code[r], counts[STREAMED, r], low, high + 1 - low)
                        _take(below, below_code, held[r], held_code[r], counts[HELD, r], low, high + 1 - low)
                    else:
                        for c in range(low, high + 1, step):
                            old = total[c]
                            result = mac(zero if c == base else old, came[c], below[c], p, q, mode, how, by)
                            toggled[c] += np.uint32(
                                ones(
                                    sum_code(old, kind, bits, mantissa_bits, bias)
                                    ^ sum_code(result, kind, bits, mantissa_bits, bias)
                                )
                            )
                            total[c] = result
                            _count_zeros(came, below, counts[ZEROS, r], c, 1)
                            _take(came, came_code, act[r], act_code[r], counts[STREAMED, r], c, 1)
                            _take(below, below_code, held[r], held_code[r], counts[HELD, r], c, 1)
            # --- faults change what the registers now hold
            for i in range(faults.shape[0]):
                fault = faults[i]
                if fault[F_KIND] == FLIP and fault[F_CYCLE] != t:
                    continue
                r, c = fault[F_ROW], fault[F_COLUMN]
                if fault[F_REGISTER] == STREAMED:
                    _damage_operand(act, act_code, x_table, fault)
                elif fault[F_REGISTER] == HELD:
                    _damage_operand(held, held_code, w_table, fault)
                elif fault[F_REGISTER] == SUM:
                    code = _damaged(np.uint64(sum_code(sums[r, c], kind, bits, mantissa_bits, bias)), fault)
                    sums[r, c] = sum_value(code, one, kind, bits, mantissa_bits, bias, has_inf, has_nan)
                else:
                    code = _damaged(np.uint64(sum_code(drain[r, c], kind, bits, mantissa_bits, bias)), fault)
                    drain[r, c] = sum_value(code, one, kind, bits, mantissa_bits, bias, has_inf, has_nan)
            # --- results that leave
            for f in range(left, streams):
                b, m0, n0 = f // each, (f % each % down) * rows, (f % each // down) * columns
                end = begins[f, 1] + step * (stream - 1)
                if deep:
                    for r in range(max(0, t - end - columns + 1), min(rows - 1, t - end) + 1):
                        finished[f % (latency + 1), r, t - end - r] = sums[r, t - end - r]
                for c in range(columns):
                    if shift == 0:
                        r = t - end - c  # its last product is in the sum
                        if 0 <= r < rows:
                            out[b, m0 + r, n0 + c] = sums[r, c]
                            if r == rows - 1 and c == columns - 1:
                                begins[f, 2] = max(t + latency, begins[f, 1] + step * stream)
                        continue
                    r = rows - 1 - (t - (end + c + latency + rows - 1))
                    if r < 0 or r >= rows:
                        continue
                    out[b, m0 + r, n0 + c] = drain[rows - 1, c]
                    at = t + columns - c  # columns are aligned to the last one
                    if at < shown.shape[0]:
                        shown[at, c] = sum_code(drain[rows - 1, c], kind, bits, mantissa_bits, bias)
                    if c == columns - 1:
                        if t + 1 < signals.shape[0]:
                            signals[t + 1, VALID] = 1
                        if r == 0:
                            begins[f, 2] = max(t + 1, begins[f, 1] + step * stream)
            t += 1
            if t % FLUSH == 0:
                _flush(counts, activity)
            while left < streams and 0 < begins[left, 2] <= t:
                left += 1
        _flush(counts, activity)
        return t

    return run
