"""The tile-level pipeline of a systolic array, event by event, (numba).

The tests hold it against a plain-Python event simulation without the shortcut below, the closed forms, and brute-force counts
of distinct elements. Times are in cycles (floats: a transfer need not end on a cycle). The pipeline is a max-plus system: an
event starts when the last of what it waits for is over, and takes its time. So no time grows when a duration shrinks, and once
one pass of a loop has shifted every clock by the same amount, all further equal passes do the same and need not be replayed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from accelerators.systolic._pipeline_fields import (
    A_BYTES,
    A_HERE,
    ARRAY_BUSY,
    ARRAY_LEFT,
    B_BYTES,
    B_HERE,
    BATCH,
    COLUMNS,
    DATAFLOW,
    DRAIN_SHIFT,
    EXTRA_ARRAYS,
    EXTRA_BESIDE,
    EXTRA_LOAD,
    EXTRA_PACKED,
    EXTRA_SPLIT,
    FOLDS,
    FULL,
    IN_BPC,
    IN_DOUBLE,
    IN_READ,
    IS,
    LATENCY,
    LOAD_A,
    LOAD_B,
    LOAD_EXTRA,
    LOAD_PARTIAL,
    LOAD_SHOWN,
    LOAD_WAIT,
    LOADED,
    MAC_CYCLES,
    NONE,
    OFF_BPC,
    OFF_LATENCY,
    OS,
    OTHER_IN,
    OTHER_OFF,
    OUT_BPC,
    OUT_DOUBLE,
    OUT_READ,
    OUT_WRITE,
    OVERLAP,
    P_BYTES,
    PROGRESS,
    RESULT_FIELDS,
    ROW_CYCLES,
    ROWS,
    STEPS,
    STORE,
    STORE_OUT,
    STORE_PARTIAL,
    TIME,
    VECTOR_CYCLES,
    WEIGHT_BPC,
    WEIGHT_DOUBLE,
    WEIGHT_READ,
    WEIGHTS,
    WS,
)

# Clocks of the pipeline's state.
_DMA, _DONE1, _DONE2, _FREE1, _FREE2, _VECTOR, _PENDING = 0, 1, 2, 3, 4, 5, 6
_READY_A, _READY_B, _READY_P, _READY_X, _LOAD_START, _LOAD_END, _STREAM, _STREAM_END, _LEFT, _WRITTEN = (
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
)
_CLOCKS = 17


@njit(cache=True, nogil=True)
def run_folds(clock, result, hw, count, stream, load_ready, stream_ready, out_ready, load_cycles, stream_interval):
    """Advance the array's clocks over ``count`` equal folds of ``stream`` operands; returns when the last result has left.

    What the array waits for between folds is added to ``result``.
    """
    rows, columns, latency = hw[ROWS], hw[COLUMNS], hw[LATENCY]
    overlap, dataflow = int(hw[OVERLAP]), int(hw[DATAFLOW])
    injected = stream_interval * (stream - 1)
    interval = stream_interval * stream
    shift = rows if hw[DRAIN_SHIFT] > 0 else 0.0
    load_start, load_end, begin, free, left = (
        clock[_LOAD_START],
        clock[_LOAD_END],
        clock[_STREAM],
        clock[_STREAM_END],
        clock[_LEFT],
    )
    fold = 0
    step = -1.0
    while fold < count:
        old_start, old_end, old_begin, old_free, old_left = load_start, load_end, begin, free, left
        if dataflow == OS:
            begin = max(stream_ready, out_ready)
            if overlap == FULL:
                begin = max(begin, free, old_begin + shift if old_left > 0 else 0.0)
            else:
                begin = max(begin, left)
            waited, shown = max(0.0, load_ready - begin), 0.0
            begin = max(begin, load_ready)
            load_start = begin
            load_end = begin
            left = begin + max(injected + (rows - 1) + (columns - 1) + latency + shift, interval)
        else:
            if overlap == NONE:
                load_start = max(left, load_ready)
            else:
                # The shadow registers are free once the previous fold has taken their content.
                load_start = max(load_end, begin, load_ready)
            load_end = load_start + load_cycles
            begin = max(load_end, stream_ready, out_ready)
            if overlap == WEIGHTS:
                begin = max(begin, left)
            elif overlap == FULL:
                begin = max(begin, free)
            idle_from = old_left if overlap == NONE else old_free
            waited = max(0.0, min(load_start, begin) - idle_from)
            shown = max(0.0, min(load_end, begin) - max(load_start, old_free))
            left = begin + max(injected + latency * rows + (columns - 1), interval)
        free = begin + interval
        fold += 1
        result[LOAD_WAIT] += waited
        result[LOAD_SHOWN] += shown
        shifted = begin - old_begin
        if (
            fold > 2
            and shifted == step
            and (
                load_start - old_start == shifted
                and load_end - old_end == shifted
                and free - old_free == shifted
                and left - old_left == shifted
            )
        ):
            jump = shifted * (count - fold)
            load_start += jump
            load_end += jump
            begin += jump
            free += jump
            left += jump
            result[LOAD_WAIT] += waited * (count - fold)
            result[LOAD_SHOWN] += shown * (count - fold)
            fold = count
        step = shifted
    clock[_LOAD_START], clock[_LOAD_END], clock[_STREAM], clock[_STREAM_END], clock[_LEFT] = (
        load_start,
        load_end,
        begin,
        free,
        left,
    )
    return left


@njit(cache=True, nogil=True)
def tile_work(hw, job, m, n, k, adds):
    """What the arrays and their buffers have to do for a tile; ``adds`` is 1 where it goes on with a sum.

    Returns (folds on all arrays, folds along the rows, along the columns; for each array its folds and what each streams; cycles
    from operand to operand, of a load; bytes of sums written and read).
    """
    rows, columns = hw[ROWS], hw[COLUMNS]
    dataflow = int(hw[DATAFLOW])
    arrays = 1.0 + hw[EXTRA_ARRAYS]
    packed, beside, split = 1.0 + job[EXTRA_PACKED], 1.0 + job[EXTRA_BESIDE], 1.0 + job[EXTRA_SPLIT]
    groups = packed * beside
    if dataflow == WS:
        fold_rows, fold_columns, stream = np.ceil(k / rows), np.ceil(n / columns), m
    elif dataflow == OS:
        fold_rows, fold_columns, stream = np.ceil(m / rows), np.ceil(n / columns), k
    else:
        fold_rows, fold_columns, stream = np.ceil(k / rows), np.ceil(m / columns), n
    # Folds on all arrays, and for each array its folds and what they stream.
    every = beside * fold_rows * fold_columns
    count, part = np.ceil(every * split / arrays), np.ceil(stream / split)
    at_work = min(arrays, every * split)
    k_folds = 1.0 if dataflow == OS else fold_rows
    # Rows and columns in use decide what the buffers must deliver to each array in a cycle.
    interval = hw[MAC_CYCLES]
    load_cycles = rows
    if dataflow == WS:
        interval = max(interval, at_work * min(rows, k * packed) * job[A_BYTES] / hw[IN_BPC])
        size = min(rows, k) * min(columns, n) * packed * job[B_BYTES]
        load_cycles = max(load_cycles, at_work * size / hw[WEIGHT_BPC])
    elif dataflow == IS:
        interval = max(interval, at_work * min(rows, k * packed) * job[B_BYTES] / hw[WEIGHT_BPC])
        size = min(rows, k) * min(columns, m) * packed * job[A_BYTES]
        load_cycles = max(load_cycles, at_work * size / hw[IN_BPC])
    else:
        interval = max(interval, at_work * min(rows, m) * job[A_BYTES] / hw[IN_BPC])
        interval = max(interval, at_work * min(columns, n) * job[B_BYTES] / hw[WEIGHT_BPC])
    written = groups * m * n * k_folds * job[P_BYTES]
    read = groups * m * n * (k_folds - 1.0 + adds) * job[P_BYTES]
    interval = max(interval, (written + read) / hw[OUT_BPC] / (count * part))
    return every, fold_rows, fold_columns, count, part, interval, load_cycles, written, read


@njit(cache=True, nogil=True)
def least_progress(hw, count, part, interval, load_cycles):
    """How much the clock that folds follow (``followed``) goes on in ``count`` equal folds, and how long their loads take, at the
    least and whatever comes before."""
    overlap, dataflow = int(hw[OVERLAP]), int(hw[DATAFLOW])
    rows, columns, latency = hw[ROWS], hw[COLUMNS], hw[LATENCY]
    whole = interval * part
    if dataflow == OS:
        shift = rows if hw[DRAIN_SHIFT] > 0 else 0.0
        if overlap == FULL:
            return whole + (count - 1.0) * max(whole, shift), 0.0
        return count * max(interval * (part - 1.0) + (rows - 1) + (columns - 1) + latency + shift, whole), 0.0
    if overlap == FULL:
        return whole + (count - 1.0) * max(whole, load_cycles), count * load_cycles
    through = max(interval * (part - 1.0) + latency * rows + (columns - 1), whole)
    if overlap == NONE:
        return count * (through + load_cycles), count * load_cycles
    return through + (count - 1.0) * max(through, load_cycles), count * load_cycles


@njit(cache=True, nogil=True)
def _transfer(clock, hw, size, after):
    """Move ``size`` bytes over the off-chip channel, in order; returns when it is over. An ideal channel orders nothing."""
    if hw[OFF_BPC] == np.inf:
        return after
    start = max(clock[_DMA], after)
    end = start + size / hw[OFF_BPC]
    clock[_DMA] = end
    return end


@njit(cache=True, nogil=True)
def _write_back(clock, hw, size):
    """Write ``size`` bytes that are ready at the pending clock; returns when they have left.

    The channel gives them their time in turn but is not held up until they are ready: loads behind them go ahead.
    """
    if hw[OFF_BPC] == np.inf:
        return clock[_PENDING]
    clock[_DMA] += size / hw[OFF_BPC]
    clock[_WRITTEN] = max(clock[_DMA], max(clock[_PENDING], clock[_WRITTEN]) + size / hw[OFF_BPC])
    return clock[_WRITTEN]


@njit(cache=True, nogil=True)
def _settle(clock, pending):
    """Raise clocks that can no longer delay anything to the earliest time at which they could matter."""
    clock[_READY_A] = max(clock[_READY_A], clock[_STREAM])
    clock[_READY_P] = max(clock[_READY_P], clock[_STREAM])
    clock[_READY_B] = max(clock[_READY_B], clock[_LOAD_START])
    clock[_READY_X] = max(clock[_READY_X], clock[_LEFT])
    clock[_DMA] = max(clock[_DMA], clock[_DONE2])
    clock[_WRITTEN] = max(clock[_WRITTEN], clock[_LEFT])
    clock[_FREE1] = max(clock[_FREE1], clock[_STREAM])
    clock[_FREE2] = max(clock[_FREE2], clock[_STREAM])
    clock[_VECTOR] = max(clock[_VECTOR], clock[_LEFT])
    if pending == 0.0:
        clock[_PENDING] = max(clock[_PENDING], clock[_LEFT])


@njit(cache=True, nogil=True)
def _uniform(clock, before):
    """Whether all clocks moved by the same amount."""
    shift = clock[_DONE1] - before[_DONE1]
    for i in range(_CLOCKS):  # noqa: SIM110  (no generators in numba)
        if abs(clock[i] - before[i] - shift) > 1e-9 + 1e-13 * abs(clock[i]):
            return False
    return True


@njit(cache=True, nogil=True)
def _leap(clock, result, clock_before, result_before, run):
    """Repeat the last pass of a loop, which moved all clocks alike, ``run`` times at once."""
    shift = clock[_DONE1] - clock_before[_DONE1]
    for f in range(RESULT_FIELDS):
        result[f] += run * (result[f] - result_before[f])
    for c in range(_CLOCKS):
        clock[c] += run * shift


@njit(cache=True, nogil=True)
def _equal_tiles(dim, at, trips, msize, am, cm, nsize, bn, cn, ksize, ak, bk):
    """How many of the tiles after ``at`` are like it. The last tile of n may carry row-wise work and the last of k ends the
    sums, so neither counts as like the ones before."""
    if dim == 0:
        size, first, second, end = msize, am, cm, trips[0]
    elif dim == 1:
        size, first, second, end = nsize, bn, cn, trips[1] - 1
    else:
        size, first, second, end = ksize, ak, bk, trips[2] - 1
    run = 0
    while at + run + 1 < end:
        t = at + run + 1
        if size[t] != size[at] or first[t] != first[at] or second[t] != second[at]:
            break
        run += 1
    return run


@njit(cache=True, nogil=True)
def _moved(result):
    """Bytes that have crossed the off-chip channel."""
    loaded = result[LOAD_A] + result[LOAD_B] + result[LOAD_PARTIAL] + result[LOAD_EXTRA]
    return loaded + result[STORE_PARTIAL] + result[STORE_OUT]


@njit(cache=True, nogil=True)
def simulate(hw, job, order, msize, am, cm, nsize, bn, cn, ksize, ak, bk, reuse, tiles, limit):
    """Run one mapping: every tile in loop order, batch outermost. ``reuse`` says whether A, B and the partial sums stay in
    their buffers across the loop that does not index them. Where ``tiles`` has room, each tile's work for the array is written
    there (columns as in ``_cycle_kernels``) and every tile is run; else equal ones are leapt over.

    ``limit``: the time to beat, and the least cycles that all transfers take; all folds, and what then follows; all loads into
    the array, and what then follows. Once the time that one of them has lost rules the time to beat out, it is infinite."""
    recording = tiles.shape[0] > 0
    trips = np.array([msize.size, nsize.size, ksize.size])
    reuse_a, reuse_b, reuse_p = reuse[0], reuse[1], reuse[2]
    rows, columns = hw[ROWS], hw[COLUMNS]
    dataflow = int(hw[DATAFLOW])
    n_total = nsize.sum()
    c_total = cn.sum()
    row_wise = job[ROW_CYCLES] > 0.0
    split = 1.0 + job[EXTRA_SPLIT]
    groups = (1.0 + job[EXTRA_PACKED]) * (1.0 + job[EXTRA_BESIDE])

    result = np.zeros(RESULT_FIELDS)
    clock = np.zeros(_CLOCKS)
    pending = 0.0
    o0, o1, o2 = order[0], order[1], order[2]
    index = np.zeros(3, dtype=np.int64)
    last = np.full(3, -1, dtype=np.int64)
    batches = int(job[BATCH])
    batch = 0
    # The state before the present pass of each loop: outer, middle, inner, batch.
    clocks = np.zeros((4, _CLOCKS))
    results = np.zeros((4, RESULT_FIELDS))
    waiting = np.zeros(4)
    to_beat, channel_cycles, array_cycles, load_cycles_in_all = limit
    followed = _STREAM_END if int(hw[OVERLAP]) == FULL else _LEFT
    while batch < batches:
        clocks[3, :], results[3, :], waiting[3] = clock, result, pending
        last[:] = -1
        outer = 0
        while outer < trips[o0]:
            clocks[0, :], results[0, :], waiting[0] = clock, result, pending
            index[o0] = outer
            middle = 0
            while middle < trips[o1]:
                clocks[1, :], results[1, :], waiting[1] = clock, result, pending
                index[o1] = middle
                inner = 0
                while inner < trips[o2]:
                    clocks[2, :], results[2, :], waiting[2] = clock, result, pending
                    index[o2] = inner
                    i, j, k_tile = index[0], index[1], index[2]
                    # --- loads, in the order B, A, partial sums, operands of the vector operators
                    double_after = clock[_DONE2]
                    single_after = clock[_DONE1]
                    if job[B_HERE] == 0.0 and not (last[1] == j and last[2] == k_tile) and not (reuse_b and i > 0):
                        size = bk[k_tile] * bn[j] * job[B_BYTES]
                        end = _transfer(clock, hw, size, double_after if hw[WEIGHT_DOUBLE] > 0 else single_after)
                        clock[_READY_B] = end + hw[OFF_LATENCY]
                        result[LOAD_B] += size
                    if job[A_HERE] == 0.0 and not (last[0] == i and last[2] == k_tile) and not (reuse_a and j > 0):
                        size = am[i] * ak[k_tile] * job[A_BYTES]
                        if size > 0.0:
                            end = _transfer(clock, hw, size, double_after if hw[IN_DOUBLE] > 0 else single_after)
                            clock[_READY_A] = end + hw[OFF_LATENCY]
                            result[LOAD_A] += size
                    new_output = not (last[0] == i and last[1] == j)
                    first_sum = k_tile == 0
                    last_sum = k_tile == trips[2] - 1
                    spilled = trips[2] > 1 and not reuse_p
                    if spilled and new_output and not first_sum:
                        size = groups * msize[i] * nsize[j] * job[P_BYTES]
                        end = _transfer(clock, hw, size, double_after if hw[OUT_DOUBLE] > 0 else single_after)
                        clock[_READY_P] = end + hw[OFF_LATENCY]
                        result[LOAD_PARTIAL] += size
                    outputs = cm[i] * cn[j]
                    if last_sum and job[EXTRA_LOAD] > 0.0:
                        size = outputs * job[EXTRA_LOAD]
                        end = _transfer(clock, hw, size, double_after)
                        clock[_READY_X] = end + hw[OFF_LATENCY]
                        result[LOAD_EXTRA] += size
                    # --- the write-back that the step before left
                    if pending > 0.0:
                        end = _write_back(clock, hw, pending)
                        clock[_FREE2] = clock[_FREE1]
                        clock[_FREE1] = end
                        pending = 0.0
                    # --- compute
                    m, n, k = msize[i], nsize[j], ksize[k_tile]
                    every, fold_rows, fold_columns, count, part, interval, load_cycles, written, read = tile_work(
                        hw, job, m, n, k, 0.0 if first_sum else 1.0
                    )
                    # A stationary operand comes from its buffer in either role.
                    load_ready = clock[_READY_A] if dataflow == IS else clock[_READY_B]
                    stream_ready = clock[_READY_B] if dataflow == IS else clock[_READY_A]
                    out_ready = clock[_READY_P]
                    if new_output:
                        # A result needs its place when it leaves the array, not when its operands enter: that much later at
                        # least, whatever the buffers' bandwidth.
                        depth = hw[LATENCY] * rows + columns - 1
                        if dataflow == OS:
                            depth += hw[MAC_CYCLES] * (part - 1) + rows
                        out_ready = max(out_ready, (clock[_FREE2] if hw[OUT_DOUBLE] > 0 else clock[_FREE1]) - depth)
                    if recording:
                        step = int(result[STEPS])
                        tiles[step, 0], tiles[step, 1] = count, part
                        tiles[step, 2], tiles[step, 3] = load_ready, max(stream_ready, out_ready)
                        tiles[step, 4], tiles[step, 5] = load_cycles, interval
                    done = run_folds(clock, result, hw, count, part, load_ready, stream_ready, out_ready, load_cycles, interval)
                    # Operand buffers are free again when their content has streamed into the array.
                    clock[_DONE2] = clock[_DONE1]
                    clock[_DONE1] = clock[_STREAM_END]
                    result[FOLDS] += every
                    result[ARRAY_BUSY] += count * interval * part
                    # What stays is read once for each array that shares a fold.
                    if dataflow == WS:
                        result[IN_READ] += groups * job[A_BYTES] * m * k * fold_columns
                        result[WEIGHT_READ] += groups * job[B_BYTES] * k * n * split
                    elif dataflow == OS:
                        result[IN_READ] += groups * job[A_BYTES] * m * k * fold_columns
                        result[WEIGHT_READ] += groups * job[B_BYTES] * k * n * fold_rows
                    else:
                        result[IN_READ] += groups * job[A_BYTES] * m * k * split
                        result[WEIGHT_READ] += groups * job[B_BYTES] * k * n * fold_columns
                    result[OUT_WRITE] += written
                    result[OUT_READ] += read
                    # --- results
                    if last_sum:
                        work = outputs * job[VECTOR_CYCLES]
                        leaving = outputs
                        if row_wise:
                            # Whole rows wait for their last tile, are worked on, and leave together.
                            leaving = 0.0
                            if j == trips[1] - 1:
                                work += groups * m * n_total * job[ROW_CYCLES]
                                leaving = cm[i] * c_total
                        ready = done
                        if work > 0.0 or job[EXTRA_LOAD] > 0.0:
                            ready = max(done, clock[_VECTOR], clock[_READY_X]) + work
                            clock[_VECTOR] = ready
                        result[OUT_READ] += groups * m * n * job[P_BYTES]
                        pending = leaving * job[STORE]
                        clock[_PENDING] = ready
                        result[STORE_OUT] += pending
                        if pending == 0.0 and leaving > 0.0:
                            clock[_FREE2] = clock[_FREE1]
                            clock[_FREE1] = ready
                    elif spilled:
                        pending = groups * m * n * job[P_BYTES]
                        clock[_PENDING] = done
                        result[STORE_PARTIAL] += pending
                        result[OUT_READ] += pending
                    last[0], last[1], last[2] = i, j, k_tile
                    result[STEPS] += 1.0
                    _settle(clock, pending)
                    if to_beat < np.inf:
                        progress, loads = least_progress(hw, count, part, interval, load_cycles)
                        result[PROGRESS] += progress
                        result[LOADED] += loads
                        moved = _moved(result) / hw[OFF_BPC]
                        idled = max(
                            clock[_DMA] - moved + channel_cycles,
                            clock[followed] - result[PROGRESS] + array_cycles,
                            clock[_LOAD_END] - result[LOADED] + load_cycles_in_all,
                        )
                        if idled * (1.0 - 1e-12) > to_beat:
                            result[TIME] = np.inf
                            return result
                    if inner > 1 and not recording and pending == waiting[2] and _uniform(clock, clocks[2]):
                        run = _equal_tiles(o2, inner, trips, msize, am, cm, nsize, bn, cn, ksize, ak, bk)
                        _leap(clock, result, clocks[2], results[2], run)
                        inner += run
                        last[o2] += run
                    inner += 1
                if middle > 1 and not recording and pending == waiting[1] and _uniform(clock, clocks[1]):
                    run = _equal_tiles(o1, middle, trips, msize, am, cm, nsize, bn, cn, ksize, ak, bk)
                    _leap(clock, result, clocks[1], results[1], run)
                    middle += run
                    last[o1] += run
                middle += 1
            if outer > 1 and not recording and pending == waiting[0] and _uniform(clock, clocks[0]):
                run = _equal_tiles(o0, outer, trips, msize, am, cm, nsize, bn, cn, ksize, ak, bk)
                _leap(clock, result, clocks[0], results[0], run)
                outer += run
                last[o0] += run
            outer += 1
        if batch > 1 and not recording and pending == waiting[3] and _uniform(clock, clocks[3]):
            run = batches - batch - 1
            _leap(clock, result, clocks[3], results[3], run)
            batch += run
        batch += 1
    if pending > 0.0:
        _write_back(clock, hw, pending)
    # An ideal channel keeps no clock of what it wrote; it was ready when the array and the vector unit were.
    result[ARRAY_LEFT] = clock[_LEFT]
    result[TIME] = max(clock[_LEFT], clock[_VECTOR], clock[_DMA], clock[_WRITTEN])
    return result


@njit(cache=True, nogil=True)
def levels(hw, job, result):
    """Cycles that the bytes of a mapping, and those of other operators beside it, take at each memory level's bandwidth."""
    off = _moved(result)
    inside = (result[IN_READ] + result[LOAD_A] + job[OTHER_IN]) / hw[IN_BPC]
    weights = (result[WEIGHT_READ] + result[LOAD_B]) / hw[WEIGHT_BPC]
    sums = (result[OUT_READ] + result[OUT_WRITE] + result[LOAD_PARTIAL]) / hw[OUT_BPC]
    return max((off + job[OTHER_OFF]) / hw[OFF_BPC], inside, weights, sums)


@njit(cache=True, nogil=True)
def vector_pipeline(chunks, load_cycles, work_cycles, store_cycles, latency):
    """Cycles of a vector operator in ``chunks`` equal pieces: load, work and store overlapped, one off-chip channel."""
    dma = done = done_before = pending = 0.0
    has_pending = False
    # The state before the last chunk and before the one before it: each half of a double buffer waits for the other.
    last = np.zeros(4)
    earlier = np.zeros(4)
    chunk = 0
    leapt = False
    while chunk < chunks:
        earlier[:] = last
        last[0], last[1], last[2], last[3] = dma, done, done_before, pending
        if load_cycles > 0:
            dma = max(dma, done_before) + load_cycles
            ready = dma + latency
        else:
            ready = 0.0
        if has_pending and store_cycles > 0:
            dma = max(dma, pending) + store_cycles
        done_before = done
        done = max(done, ready) + work_cycles
        pending = done
        has_pending = True
        dma = max(dma, done_before)
        chunk += 1
        shift = done - earlier[1]
        slack = 1e-9 + 1e-13 * done
        if (
            not leapt
            and chunk > 5
            and abs(dma - earlier[0] - shift) < slack
            and abs(done_before - earlier[2] - shift) < slack
            and abs(pending - earlier[3] - shift) < slack
        ):
            pairs = (chunks - chunk) // 2
            dma += shift * pairs
            done += shift * pairs
            done_before += shift * pairs
            pending += shift * pairs
            chunk += 2 * pairs
            leapt = True
    if has_pending and store_cycles > 0:
        dma = max(dma, pending) + store_cycles
    return max(dma, done)
