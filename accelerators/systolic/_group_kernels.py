# mypy: disallow-untyped-defs=False
"""What a group of operators takes on one configuration of a systolic array, tile by tile (numba).

Operation for operation what ``pipeline.TilePipeline`` and ``windows`` do, so that both give the same bits; the search over
mappings and the pipeline of a mapping are the same functions. The tests hold one against the other.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from accelerators.systolic import _cost_fields as cf
from accelerators.systolic import _pipeline_fields as pf
from accelerators.systolic._cost_kernels import buffer_elements, loaded, on_arrays, operator_work
from accelerators.systolic._mapping_kernels import search_described
from accelerators.systolic._pipeline_kernels import simulate, vector_pipeline

CHUNK_BYTES = 4096
"""As in ``pipeline``."""
MOST_BLOCKS_LOG2 = 24
"""As in ``windows``."""

# Columns of a vector operator at work (float64).
_WORK, _LOAD, _STORE, _TOUCHED, _HANDED, _HOST, _ROW_WISE = 0, 1, 2, 3, 4, 5, 6


@njit(cache=True, nogil=True)
def machine(spec):
    """The vectors of a configuration that the pipeline's kernels take: as it is, and with ideal memory."""
    hw = np.zeros(pf.HW_FIELDS)
    hw[pf.ROWS], hw[pf.COLUMNS] = spec[cf.ROWS], spec[cf.COLUMNS]
    hw[pf.LATENCY], hw[pf.OVERLAP] = spec[cf.LATENCY], spec[cf.OVERLAP]
    hw[pf.DRAIN_SHIFT], hw[pf.DATAFLOW] = spec[cf.DRAIN], spec[cf.DATAFLOW]
    hw[pf.MAC_CYCLES], hw[pf.EXTRA_ARRAYS] = 1.0, spec[cf.ARRAYS] - 1.0
    for place in range(3):
        buffer = cf.IN_CAP + 5 * place
        hw[pf.IN_CAP + place], hw[pf.IN_DOUBLE + place] = spec[buffer], spec[buffer + 3]
        hw[pf.IN_BPC + place] = spec[buffer + 1] * spec[buffer + 2]
    hw[pf.OFF_BPC] = spec[cf.OFF_ACHIEVED] / spec[cf.CLOCK]
    hw[pf.OFF_LATENCY] = spec[cf.OFF_LATENCY] * spec[cf.CLOCK]
    ideal = hw.copy()
    ideal[pf.IN_BPC] = ideal[pf.WEIGHT_BPC] = ideal[pf.OUT_BPC] = ideal[pf.OFF_BPC] = np.inf
    ideal[pf.IN_CAP] = ideal[pf.WEIGHT_CAP] = ideal[pf.OUT_CAP] = np.inf
    ideal[pf.OFF_LATENCY] = 0.0
    return hw, ideal


@njit(cache=True, nogil=True)
def group_cost(spec, with_kernel, group, operators, work, converted, macs, cuts, costs):
    """``TilePipeline.run`` of one group, into the rows of ``costs`` of its operators; False where a buffer holds no tile.

    ``cuts`` are those of ``pipeline.dimensions``; ``with_kernel`` says whether a kernel's windows are moved instead.
    """
    first, end, streamed = group[cf.FIRST], group[cf.END], group[cf.STREAMED]
    hw, ideal = machine(spec)
    if group[cf.MATRIX] == 0:
        vectors = _vectors(spec, first, end, operators, work, converted, macs)
        for i in range(vectors.shape[0]):
            _pass(spec, hw, vectors[i : i + 1], spec[cf.LAUNCH], costs[first + i : first + i + 1])
        return True
    op, rows = operators[first], costs[first:end]
    own = operator_work(spec, op, first, True, work, converted, macs)[0]
    vectors = _vectors(spec, first + 1, end, operators, work, converted, macs)
    before = streamed
    for i in range(streamed - 1, -1, -1):
        if vectors[i, _ROW_WISE] > 0.0:
            before = i
    if before == streamed:
        return _together(spec, hw, ideal, with_kernel, op, own, vectors[:streamed], vectors[streamed:], cuts, rows)
    # Rows stream only where whole rows fit the output buffer; writing them out and reading them back may also be faster.
    apart = np.zeros(rows.shape)
    if not _apart(spec, hw, ideal, with_kernel, op, own, vectors, streamed, before, cuts, apart):
        return False
    fits = _together(spec, hw, ideal, with_kernel, op, own, vectors[:streamed], vectors[streamed:], cuts, rows)
    if not (fits and _cycles(rows) <= _cycles(apart)):
        rows[:] = apart
    return True


@njit(cache=True, nogil=True)
def _cycles(rows):
    total = 0.0
    for i in range(rows.shape[0]):
        total += rows[i, cf.COST_CYCLES]
    return total


@njit(cache=True, nogil=True)
def _vectors(spec, first, end, operators, work, converted, macs):
    """The vector operators of a group at work on this configuration."""
    found = np.zeros((end - first, 7))
    for i in range(end - first):
        op = operators[first + i]
        found[i, _WORK] = operator_work(spec, op, first + i, False, work, converted, macs)[0]
        found[i, _LOAD], found[i, _STORE], found[i, _HOST] = loaded(spec, op), op[cf.STORE], op[cf.HOST]
        found[i, _TOUCHED], found[i, _HANDED], found[i, _ROW_WISE] = op[cf.TOUCHED], op[cf.HANDED], op[cf.ROW_WISE]
    return found


@njit(cache=True, nogil=True)
def _host_cycles(spec, size):
    if size == 0.0:
        return 0.0
    return (size / spec[cf.LINK_BANDWIDTH] + spec[cf.LINK_LATENCY]) * spec[cf.CLOCK]


@njit(cache=True, nogil=True)
def _vector_time(spec, hw, load, work, store, touched):
    off = hw[pf.OFF_BPC]
    least = max(work, (load + store) / off)
    best, piece = np.inf, CHUNK_BYTES
    tile = spec[cf.IN_CAP] / 2 if spec[cf.IN_DOUBLE] > 0.0 else spec[cf.IN_CAP]
    while True:
        chunks = max(1, -(-int(touched) // piece))
        best = min(best, vector_pipeline(chunks, load / off / chunks, work / chunks, store / off / chunks, hw[pf.OFF_LATENCY]))
        piece *= 2
        if chunks == 1 or best <= least or piece > tile:
            return max(best, least)


@njit(cache=True, nogil=True)
def _vector_cost(row, cycles, vector):
    row[cf.COST_CYCLES] = cycles
    row[cf.COST_IN], row[cf.COST_OFF] = vector[_TOUCHED], vector[_LOAD] + vector[_STORE]
    row[cf.COST_WEIGHT] = row[cf.COST_OUT] = 0.0


@njit(cache=True, nogil=True)
def _pass(spec, hw, vectors, launch, rows):
    """Vector operators that share one pass over their data."""
    count = vectors.shape[0]
    work = load = store = touched = 0.0
    for i in range(count):
        work += vectors[i, _WORK]
        load += vectors[i, _LOAD]
        store += vectors[i, _STORE]
        touched += vectors[i, _TOUCHED]
    total = max(_vector_time(spec, hw, load, work, store, touched), touched / hw[pf.IN_BPC])
    for i in range(count):
        share = vectors[i, _TOUCHED] / touched if touched > 0.0 else 1.0 / count
        overhead = _host_cycles(spec, vectors[i, _HOST]) + launch
        _vector_cost(rows[i], vectors[i, _WORK] + (total - work) * share + overhead, vectors[i])


@njit(cache=True, nogil=True)
def _apart(spec, hw, ideal, with_kernel, op, own, vectors, streamed, before, cuts, rows):
    """The group with its row-wise operators, from ``before`` on, in a pass of their own over results written out before."""
    op, changed = op.copy(), vectors.copy()
    spilled = vectors[before, _HANDED]
    if before > 0:
        changed[before - 1, _STORE] += spilled
        changed[before - 1, _TOUCHED] += spilled
    else:
        op[cf.STORE] += spilled
        op[cf.RESULT] += spilled
    changed[before, _LOAD] += spilled
    changed[before, _TOUCHED] += spilled
    others = np.zeros((1 + before + vectors.shape[0] - streamed, rows.shape[1]))
    if not _together(spec, hw, ideal, with_kernel, op, own, changed[:before], changed[streamed:], cuts, others):
        return False
    rows[: 1 + before] = others[: 1 + before]
    rows[1 + streamed :] = others[1 + before :]
    _pass(spec, hw, changed[before:streamed], 0.0, rows[1 + before : 1 + streamed])
    return True


@njit(cache=True, nogil=True)
def _together(spec, hw, ideal, with_kernel, op, own, streamed, background, cuts, rows):
    """Everything in one pipeline; False where a buffer holds no tile or, with row-wise operators, no row of results."""
    if with_kernel:
        fits, run = _windows(spec, op, own, streamed, background)
    else:
        fits, run = _mapped(spec, hw, ideal, op, own, streamed, background, cuts)
    if not fits:
        return False
    time, at_ideal, array_only, off_chip, inside, weights, sums = run
    side_time = side_ideal = busy = 0.0
    for i in range(streamed.shape[0]):
        busy += streamed[i, _WORK]
    moved = off_chip
    for i in range(streamed.shape[0]):
        moved += streamed[i, _LOAD] + streamed[i, _STORE]
    for i in range(background.shape[0]):
        job = background[i]
        busy += job[_WORK]
        side_ideal += job[_WORK]
        side_time += _vector_time(spec, hw, job[_LOAD], job[_WORK], job[_STORE], job[_TOUCHED])
        moved += job[_LOAD] + job[_STORE]
    shortest = max(at_ideal, side_ideal, own + busy)
    total = max(time, side_time, own + busy, shortest)
    stall = total - shortest
    shown = shortest - array_only if busy > 0.0 else 0.0
    rows[0, cf.COST_CYCLES] = (
        (array_only if busy > 0.0 else shortest)
        + (stall * (off_chip / moved) if moved > 0.0 else stall)
        + (spec[cf.LAUNCH] + _host_cycles(spec, op[cf.HOST]))
    )
    rows[0, cf.COST_IN], rows[0, cf.COST_WEIGHT] = inside, weights
    rows[0, cf.COST_OUT], rows[0, cf.COST_OFF] = sums, off_chip
    count = streamed.shape[0]
    for i in range(count + background.shape[0]):
        job = streamed[i] if i < count else background[i - count]
        share = job[_WORK] / busy if busy > 0.0 else 0.0
        lost = stall * ((job[_LOAD] + job[_STORE]) / moved) if moved > 0.0 else 0.0
        _vector_cost(rows[1 + i], shown * share + lost + _host_cycles(spec, job[_HOST]), job)
    return True


@njit(cache=True, nogil=True)
def _sums(jobs):
    """(loads, stores, bytes touched) of vector operators."""
    load = store = touched = 0.0
    for i in range(jobs.shape[0]):
        load += jobs[i, _LOAD]
        store += jobs[i, _STORE]
        touched += jobs[i, _TOUCHED]
    return load, store, touched


@njit(cache=True, nogil=True)
def _mapped(spec, hw, ideal, op, own, streamed, background, cuts):
    """The fastest mapping: (whether there is one, (cycles, those with ideal memory, those of the array alone; bytes off chip, and
    of the input, weight and output buffer))."""
    time, packed, mac_cycles, _ = on_arrays(spec, op)
    split, beside = time[3], time[4]
    outputs = op[cf.OUTPUTS]
    load, store, touched = _sums(streamed)
    other_load, other_store, other_touched = _sums(background)
    flat = by_rows = 0.0
    for i in range(streamed.shape[0]):
        if streamed[i, _ROW_WISE] > 0.0:
            by_rows += streamed[i, _WORK]
        else:
            flat += streamed[i, _WORK]
    job = np.zeros(pf.JOB_FIELDS)
    job[pf.BATCH] = int(op[cf.BATCH]) // (packed * beside)
    job[pf.A_BYTES], job[pf.B_BYTES], job[pf.P_BYTES] = op[cf.A_BYTES], op[cf.B_BYTES], op[cf.P_BYTES]
    job[pf.A_HERE], job[pf.B_HERE] = op[cf.A_HERE], op[cf.B_HERE]
    job[pf.VECTOR_CYCLES] = (own + flat) / outputs
    job[pf.ROW_CYCLES] = by_rows / outputs
    job[pf.EXTRA_LOAD] = (op[cf.LOAD] + load) / outputs
    job[pf.STORE] = (op[cf.STORE] + store) / outputs
    job[pf.OTHER_OFF] = other_load + other_store
    job[pf.OTHER_IN] = op[cf.RESULT] + touched + other_touched
    job[pf.EXTRA_PACKED], job[pf.EXTRA_BESIDE], job[pf.EXTRA_SPLIT] = packed - 1, beside - 1, split - 1
    hw, ideal = hw.copy(), ideal.copy()
    hw[pf.MAC_CYCLES] = ideal[pf.MAC_CYCLES] = mac_cycles / spec[cf.STREAMING]
    m_start, msize, am, cm, n_start, nsize, bn, cn, k_start, ksize, ak, bk, k_taps, m_cuts, n_cuts, k_cuts = cuts
    picked, reuse, _, result = search_described(
        hw, job, m_start, msize, am, cm, n_start, nsize, bn, cn, k_start, ksize, ak, bk, k_taps, m_cuts, n_cuts, k_cuts
    )
    if picked[0] < 0:
        return False, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    a, b, c = picked[0], picked[1], picked[2]
    m0, m1, n0, n1, k0, k1 = m_start[a], m_start[a + 1], n_start[b], n_start[b + 1], k_start[c], k_start[c + 1]
    bare = job.copy()
    bare[pf.VECTOR_CYCLES] = bare[pf.ROW_CYCLES] = bare[pf.EXTRA_LOAD] = 0.0
    order, unrecorded = pf.ORDERS[picked[3]], np.zeros((0, pf.TILE_FIELDS))
    with_vector = simulate(
        ideal, job, order, msize[m0:m1], am[m0:m1], cm[m0:m1], nsize[n0:n1], bn[n0:n1], cn[n0:n1], ksize[k0:k1], ak[k0:k1],
        bk[k0:k1], reuse, unrecorded, pf.UNLIMITED,
    )[pf.TIME]  # fmt: skip
    array_only = simulate(
        ideal, bare, order, msize[m0:m1], am[m0:m1], cm[m0:m1], nsize[n0:n1], bn[n0:n1], cn[n0:n1], ksize[k0:k1], ak[k0:k1],
        bk[k0:k1], reuse, unrecorded, pf.UNLIMITED,
    )[pf.TIME]  # fmt: skip
    load_a, load_b, partial_in = result[pf.LOAD_A], result[pf.LOAD_B], result[pf.LOAD_PARTIAL]
    stored, fetched = result[pf.STORE_OUT] - store, result[pf.LOAD_EXTRA] - load
    return True, (
        result[pf.TIME],
        with_vector,
        array_only,
        np.rint(load_a + load_b + partial_in + result[pf.STORE_PARTIAL] + stored + fetched),
        np.rint(result[pf.IN_READ] + load_a) + op[cf.RESULT],
        np.rint(result[pf.WEIGHT_READ] + load_b),
        np.rint(result[pf.OUT_READ] + result[pf.OUT_WRITE] + partial_in),
    )


@njit(cache=True, nogil=True)
def _repeats(spec, op, a, b):
    """``windows.repeats``: how often A and B are read."""
    columns, m, n = spec[cf.COLUMNS], op[cf.M], op[cf.N]
    if a <= spec[cf.IN_CAP] or b <= spec[cf.WEIGHT_CAP]:
        return 1.0, 1.0
    most = (spec[cf.OUT_CAP] / 2 if spec[cf.OUT_DOUBLE] > 0.0 else spec[cf.OUT_CAP]) / op[cf.P_BYTES]
    best, times_a, times_b = np.inf, 1.0, 1.0
    for doublings in range(MOST_BLOCKS_LOG2):
        width = min(n, columns * 2.0**doublings)
        height = max(1.0, most // width)
        again_a, again_b = np.ceil(n / width), np.ceil(m / height)
        size = a * again_a + b * again_b if width <= most else np.inf
        if size < best:
            best, times_a, times_b = size, again_a, again_b
        if width == n:
            break
    return times_a, times_b


@njit(cache=True, nogil=True)
def _windows(spec, op, own, streamed, background):
    """``windows.window_run``; the same as ``_mapped``."""
    batch, m, n, k = op[cf.BATCH], op[cf.M], op[cf.N], op[cf.K]
    out_tile = spec[cf.OUT_CAP] / 2 if spec[cf.OUT_DOUBLE] > 0.0 else spec[cf.OUT_CAP]
    load, store, touched = _sums(streamed)
    other_load, other_store, other_touched = _sums(background)
    work = 0.0
    for i in range(streamed.shape[0]):
        if streamed[i, _ROW_WISE] > 0.0 and min(m, spec[cf.ROWS]) * n * op[cf.P_BYTES] > out_tile:
            return False, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        work += streamed[i, _WORK]
    vector = own + work
    cycles = on_arrays(spec, op)[0][0]
    read_a, read_b, sums = buffer_elements(spec, int(batch), int(m), int(n), int(k))
    a = 0.0 if op[cf.A_HERE] > 0.0 else op[cf.ONCE_A] * op[cf.A_BYTES]
    b = 0.0 if op[cf.B_HERE] > 0.0 else op[cf.ONCE_B] * op[cf.B_BYTES]
    other, stored = op[cf.LOAD] + load, op[cf.STORE] + store
    rate, cores, window = spec[cf.OFF_ACHIEVED] / spec[cf.CLOCK], spec[cf.CORES], spec[cf.WINDOW]
    by_product = batch >= cores
    by_column = not by_product and n >= cores * spec[cf.COLUMNS]
    copies_a = cores if by_column else 1.0
    copies_b = min(cores, m) if not by_product and not by_column else 1.0
    under_way = cores if by_product else 1.0
    times_a, times_b = _repeats(spec, op, a / batch, b / batch)
    rows, depth = min(m, window) / m, min(k, window) / k
    first = (a * copies_a * rows * depth + b * copies_b * depth) * under_way / batch
    load_a, load_b = a * copies_a * times_a, b * copies_b * times_b
    loads = load_a + load_b + other
    ahead = (spec[cf.OFF_LATENCY] * spec[cf.CLOCK] if loads > 0.0 else 0.0) + first / rate
    body = max(cycles, vector, (loads - first) / rate)
    time = ahead + body + stored / (rate * spec[cf.STORE_FRACTION])
    inside = read_a * op[cf.A_BYTES] + op[cf.RESULT] + (touched + other_touched)
    weights, results = read_b * op[cf.B_BYTES], sums * op[cf.P_BYTES]
    time = max(time, (loads + stored + (other_load + other_store)) / rate)
    time = max(time, (inside + load_a) / (spec[cf.IN_BANKS] * spec[cf.IN_BANK_BPC]))
    time = max(time, (weights + load_b) / (spec[cf.WEIGHT_BANKS] * spec[cf.WEIGHT_BANK_BPC]))
    time = max(time, results / (spec[cf.OUT_BANKS] * spec[cf.OUT_BANK_BPC]))
    return True, (
        time,
        max(cycles, vector),
        cycles,
        np.rint(load_a + load_b + op[cf.LOAD] + op[cf.STORE]),
        np.rint(read_a * op[cf.A_BYTES] + load_a) + op[cf.RESULT],
        np.rint(weights + load_b),
        np.rint(results),
    )


@njit(cache=True, nogil=True)
def shares(specs, operators, groups):
    """For each configuration and group, how many products of the group's operator on the array run at once: groups in a fold,
    times those on arrays of their own; 0 where nothing runs on the array."""
    found = np.zeros((specs.shape[0], groups.shape[0]), dtype=np.int64)
    for g in range(groups.shape[0]):
        if groups[g, cf.MATRIX] == 0:
            continue
        for i in range(specs.shape[0]):
            time, packed, _, _ = on_arrays(specs[i], operators[groups[g, cf.FIRST]])
            found[i, g] = packed * time[4]
    return found
