"""What many configurations of a systolic array take for one workload where memory is ideal (numba).

The same closed forms as ``analytic`` and ``ideal``, operation for operation, so that both give the same bits; the tests hold one
against the other.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from accelerators.systolic._cost_fields import (
    A_BYTES,
    A_HERE,
    ARRAYS,
    B_BYTES,
    B_HERE,
    BATCH,
    CLOCK,
    COLUMNS,
    COMPONENTS,
    COST_CYCLES,
    COST_FIELDS,
    COST_IN,
    COST_OFF,
    COST_OUT,
    COST_WEIGHT,
    CYCLES,
    DATAFLOW,
    DRAIN,
    END,
    ENERGY,
    FIRST,
    FORMATS,
    FULL,
    HOST,
    IN_CAP,
    IN_PJ,
    LANES,
    LATENCY,
    LAUNCH,
    LINK_PJ,
    LOAD,
    MAC,
    MACS,
    MATRIX,
    NONE,
    OFF_PJ,
    ONCE_A,
    ONCE_B,
    OS,
    OUT_PJ,
    OVERLAP,
    P_BYTES,
    PACKING,
    RESULT,
    ROW_BYTES,
    ROWS,
    SCAN_LENGTH,
    SCAN_STEP,
    STATIC,
    STORE,
    STREAMING,
    TOUCHED,
    WEIGHT_PJ,
    WEIGHTS,
    WS,
    K,
    M,
    N,
)


@njit(cache=True, nogil=True)
def operator_work(spec, op, p, on_array, work, converted, macs):
    """(cycles of the vector unit, joules of it) of an operator; ``macs`` formats stand before the conversions."""
    work_start, work_kind, work_count = work
    change_start, change_kind, change_count = converted
    cycles = joules = 0.0
    for i in range(work_start[p], work_start[p + 1]):
        cycles += work_count[i] * spec[CYCLES + work_kind[i]]
        joules += work_count[i] * spec[ENERGY + work_kind[i]]
    cycles /= spec[LANES]
    if not on_array and op[SCAN_LENGTH] > 0.0:
        cycles = max(cycles, op[SCAN_LENGTH] * spec[SCAN_STEP])
    extra_cycles = extra_joules = 0.0
    for i in range(change_start[p], change_start[p + 1]):
        at = FORMATS + 2 * macs + 2 * change_kind[i]
        extra_cycles += change_count[i] * spec[at]
        extra_joules += change_count[i] * spec[at + 1] * 1e-12
    return cycles + extra_cycles / spec[LANES], 1e-12 * joules + extra_joules


@njit(cache=True, nogil=True)
def loaded(spec, op):
    """Bytes that a vector operator loads: twice where its rows do not fit."""
    return op[LOAD] * 2.0 if op[ROW_BYTES] > spec[IN_CAP] else op[LOAD]


@njit(cache=True, nogil=True)
def packed_groups(spec, batch, m, n, k):
    """``mapping.packed_groups``, where the spec packs groups."""
    if spec[PACKING] == 0.0 or spec[DATAFLOW] == OS or batch == 1:
        return 1
    along = n if spec[DATAFLOW] == WS else m
    most = min(int(spec[ROWS]) // k, int(spec[COLUMNS]) // along)
    found = 1
    for d in range(2, min(most, batch) + 1):
        if batch % d == 0:
            found = d
    return found


@njit(cache=True, nogil=True)
def array_time(spec, batch, m, n, k, mac_cycles):
    """``analytic.array_time``: (cycles, cycles of streaming, of loads, arrays that share a stream, products at once)."""
    rows, columns, arrays = int(spec[ROWS]), int(spec[COLUMNS]), int(spec[ARRAYS])
    dataflow = int(spec[DATAFLOW])
    if dataflow == WS:
        along_rows, along_columns, stream = k, n, m
    elif dataflow == OS:
        along_rows, along_columns, stream = m, n, k
    else:
        along_rows, along_columns, stream = k, m, n
    count = -(-along_rows // rows) * -(-along_columns // columns)
    beside = 1
    for d in range(2, min(arrays, batch) + 1):
        if batch % d == 0 and d * count <= arrays:
            beside = d
    steps = batch // beside
    best = active = load = np.inf
    share = 1
    for split in range(1, (1 if dataflow == OS else arrays) + 1):
        if arrays % split:
            continue
        each = steps * -(-count * beside * split // arrays)
        found = _fold_cycles(spec, each, -(-stream // split), rows, columns, dataflow, mac_cycles)
        if found[0] < best:
            best, active, load = found
            share = split
    return best, active, load, share, beside


@njit(cache=True, nogil=True)
def _fold_cycles(spec, count, stream, rows, columns, dataflow, mac_cycles):
    interval = mac_cycles * stream
    latency = int(spec[LATENCY])
    active = count * interval
    if dataflow == OS:
        drain = rows if spec[DRAIN] > 0.0 else 0
        through = max(interval - mac_cycles + rows + columns - 2 + latency + drain, interval)
        if spec[OVERLAP] == FULL:
            return (count - 1) * max(interval, float(drain)) + through, active, 0.0
        return count * through, active, 0.0
    through = max(interval - mac_cycles + latency * rows + columns - 1, interval)
    if spec[OVERLAP] == NONE:
        return count * (rows + through), active, float(count * rows)
    if spec[OVERLAP] == WEIGHTS:
        return rows + count * through, active, float(rows)
    load = rows + (count - 1) * max(rows - interval, 0.0)
    return rows + (count - 1) * max(interval, float(rows)) + through, active, load


@njit(cache=True, nogil=True)
def buffer_elements(spec, batch, m, n, k):
    """``ideal.buffer_elements``."""
    rows, columns = int(spec[ROWS]), int(spec[COLUMNS])
    if spec[DATAFLOW] == WS:
        fold_rows, fold_columns = -(-k // rows), -(-n // columns)
        k_folds, a_times, b_times = fold_rows, fold_columns, 1
    elif spec[DATAFLOW] == OS:
        fold_rows, fold_columns = -(-m // rows), -(-n // columns)
        k_folds, a_times, b_times = 1, fold_columns, fold_rows
    else:
        fold_rows, fold_columns = -(-k // rows), -(-m // columns)
        k_folds, a_times, b_times = fold_rows, 1, fold_columns
    a, b, c = float(batch) * m * k, float(batch) * k * n, float(batch) * m * n
    return a * a_times, b * b_times, c * 2 * k_folds


@njit(cache=True, nogil=True)
def on_arrays(spec, op):
    """``ideal.on_arrays`` and the cycles of a MAC: (time of the arrays, groups in a fold, cycles of a MAC, of one streamed)."""
    batch, m, n, k = int(op[BATCH]), int(op[M]), int(op[N]), int(op[K])
    packed = packed_groups(spec, batch, m, n, k)
    mac_cycles = spec[FORMATS + 2 * int(op[MAC])]
    streamed = mac_cycles if spec[STREAMING] == 1.0 else mac_cycles / spec[STREAMING]
    return array_time(spec, batch // packed, m, n, k, streamed), packed, mac_cycles, streamed


@njit(cache=True, nogil=True)
def least_cost(spec, group, operators, work, converted, macs, costs):
    """``ideal.analytic_costs`` of one group, into the rows of ``costs`` of its operators."""
    first, end = group[FIRST], group[END]
    matrix = group[MATRIX] == 1
    hidden = own = 0.0
    if matrix:
        op = operators[first]
        own = operator_work(spec, op, first, True, work, converted, macs)[0]
        time = on_arrays(spec, op)[0]
        hidden = max(time[0], own)
        a, b, sums = buffer_elements(spec, int(op[BATCH]), int(op[M]), int(op[N]), int(op[K]))
        load_a = 0.0 if op[A_HERE] > 0.0 else op[ONCE_A] * op[A_BYTES]
        load_b = 0.0 if op[B_HERE] > 0.0 else op[ONCE_B] * op[B_BYTES]
        costs[first, COST_CYCLES] = hidden + 0.0 + spec[LAUNCH]
        costs[first, COST_IN] = np.rint(a * op[A_BYTES] + load_a) + op[RESULT]
        costs[first, COST_WEIGHT] = np.rint(b * op[B_BYTES] + load_b)
        costs[first, COST_OUT] = np.rint(sums * op[P_BYTES])
        costs[first, COST_OFF] = np.rint(load_a + load_b + op[LOAD] + op[STORE])
        first += 1
    busy = 0.0
    for p in range(first, end):
        costs[p, COST_CYCLES] = operator_work(spec, operators[p], p, False, work, converted, macs)[0]
        busy += costs[p, COST_CYCLES]
    shown = max(hidden, busy + own) - hidden
    overhead = 0.0 if matrix else spec[LAUNCH]
    for p in range(first, end):
        op = operators[p]
        share = costs[p, COST_CYCLES] / busy if busy > 0.0 else 0.0
        costs[p, COST_CYCLES] = shown * share + 0.0 + overhead
        costs[p, COST_IN], costs[p, COST_OFF] = op[TOUCHED], loaded(spec, op) + op[STORE]
        costs[p, COST_WEIGHT] = costs[p, COST_OUT] = 0.0


@njit(cache=True, nogil=True)
def total(spec, operators, on_array, work, converted, macs, costs, order, energies):
    """(seconds, joules) of all operators in the order of the report: components first, as it sums them. ``energies`` is room for
    each operator's."""
    for p in range(operators.shape[0]):
        op = operators[p]
        mac = spec[FORMATS + 2 * int(op[MAC]) + 1] if on_array[p] else 0.0
        energies[p, 0] = op[MACS] * mac * 1e-12 if on_array[p] else 0.0
        energies[p, 1] = operator_work(spec, op, p, on_array[p], work, converted, macs)[1]
        energies[p, 2] = costs[p, COST_IN] * spec[IN_PJ] * 1e-12
        energies[p, 3] = costs[p, COST_WEIGHT] * spec[WEIGHT_PJ] * 1e-12
        energies[p, 4] = costs[p, COST_OUT] * spec[OUT_PJ] * 1e-12
        energies[p, 5] = costs[p, COST_OFF] * spec[OFF_PJ] * 1e-12
        energies[p, 6] = op[HOST] * spec[LINK_PJ] * 1e-12
    seconds = static = 0.0
    parts = np.zeros(COMPONENTS)
    for p in order:
        time = costs[p, COST_CYCLES] / spec[CLOCK]
        seconds += time
        static += spec[STATIC] * time
        for component in range(COMPONENTS):
            parts[component] += energies[p, component]
    joules = 0.0
    for component in range(COMPONENTS):
        joules += parts[component]
    return seconds, joules + static


@njit(cache=True, nogil=True)
def analytic(specs, operators, groups, on_array, work, converted, order, macs):
    """(seconds, joules) of each configuration at ``analytic``."""
    seconds, joules = np.empty(specs.shape[0]), np.empty(specs.shape[0])
    costs = np.zeros((operators.shape[0], COST_FIELDS))
    energies = np.zeros((operators.shape[0], COMPONENTS))
    for i in range(specs.shape[0]):
        for g in range(groups.shape[0]):
            least_cost(specs[i], groups[g], operators, work, converted, macs, costs)
        seconds[i], joules[i] = total(specs[i], operators, on_array, work, converted, macs, costs, order, energies)
    return seconds, joules
