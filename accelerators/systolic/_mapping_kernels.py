"""The search over the mappings of a product on a systolic array: each that its bounds do not rule out is run (numba)."""

from __future__ import annotations

import numpy as np
from numba import njit

from accelerators.systolic._pipeline_fields import (
    A_BYTES,
    A_HERE,
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
    FULL,
    IN_CAP,
    IN_DOUBLE,
    LATENCY,
    MAC_CYCLES,
    MAX_STEPS,
    NONE,
    OFF_BPC,
    OFF_LATENCY,
    ORDERS,
    OS,
    OUT_CAP,
    OUT_DOUBLE,
    OVERLAP,
    P_BYTES,
    RESULT_FIELDS,
    ROW_CYCLES,
    ROWS,
    STORE,
    TILE_FIELDS,
    TIME,
    VECTOR_CYCLES,
    WEIGHT_CAP,
    WEIGHT_DOUBLE,
    WS,
)
from accelerators.systolic._pipeline_kernels import levels, simulate


@njit(cache=True, nogil=True)
def held(order, inner, outer, footprint_sum, footprint_max):
    """Elements an operand of dimensions ``inner`` and ``outer`` touches inside the loop over the third dimension."""
    third = 3 - inner - outer
    place = 0
    for i in range(3):
        if order[i] == third:
            place = i
    size = 1.0
    for d in (inner, outer):
        at = 0
        for i in range(3):
            if order[i] == d:
                at = i
        size *= footprint_sum[d] if at > place else footprint_max[d]
    return size


@njit(cache=True, nogil=True)
def search(hw, job, m_start, msize, am, cm, n_start, nsize, bn, cn, k_start, ksize, ak, bk, k_taps):
    """The fastest mapping (least off-chip traffic among equals): every tile triple and loop order that fits its buffers.

    Candidates are tried in the order of a lower bound on their time, and the search ends when no bound is below the best.
    ``*_start`` delimit the candidate tilings of a dimension in its arrays; ``k_taps`` is not 0 for those of k whose tiles share
    feature maps: they run one after another (k innermost) unless the whole feature map is at hand. Returns (chosen m, n, k and
    order, or −1; what stays in its buffer; mappings simulated; result).
    """
    nm, nn, nk = m_start.size - 1, n_start.size - 1, k_start.size - 1
    stats = np.zeros((3, max(nm, nn, nk), 6))  # sum and maximum of size and both footprints
    for d in range(3):
        starts = m_start if d == 0 else (n_start if d == 1 else k_start)
        for c in range(starts.size - 1):
            for t in range(starts[c], starts[c + 1]):
                if d == 0:
                    s, f, g = msize[t], am[t], cm[t]
                elif d == 1:
                    s, f, g = nsize[t], bn[t], cn[t]
                else:
                    s, f, g = ksize[t], ak[t], bk[t]
                stats[d, c, 0] += s
                stats[d, c, 1] += f
                stats[d, c, 2] += g
                stats[d, c, 3] = max(stats[d, c, 3], s)
                stats[d, c, 4] = max(stats[d, c, 4], f)
                stats[d, c, 5] = max(stats[d, c, 5], g)
    total = nm * nn * nk * 6
    bound = np.empty(total)
    traffic = np.empty(total)
    least_cycles = np.empty((total, 3))
    choice = np.empty((total, 4), dtype=np.int64)
    keeps = np.empty((total, 3), dtype=np.bool_)
    kept = 0
    batch = job[BATCH]
    rows, columns = hw[ROWS], hw[COLUMNS]
    in_tile = hw[IN_CAP] / 2 if hw[IN_DOUBLE] > 0 else hw[IN_CAP]
    weight_tile = hw[WEIGHT_CAP] / 2 if hw[WEIGHT_DOUBLE] > 0 else hw[WEIGHT_CAP]
    out_tile = hw[OUT_CAP] / 2 if hw[OUT_DOUBLE] > 0 else hw[OUT_CAP]
    dataflow, overlap = int(hw[DATAFLOW]), int(hw[OVERLAP])
    groups = (1.0 + job[EXTRA_PACKED]) * (1.0 + job[EXTRA_BESIDE])
    sums_bytes = groups * job[P_BYTES]
    shift = rows if hw[DRAIN_SHIFT] > 0 else 0.0
    fsum = np.zeros(3)
    fmax = np.zeros(3)
    unrecorded = np.zeros((0, TILE_FIELDS))
    for cm_ in range(nm):
        tm = m_start[cm_ + 1] - m_start[cm_]
        for cn_ in range(nn):
            tn = n_start[cn_ + 1] - n_start[cn_]
            for ck in range(nk):
                tk = k_start[ck + 1] - k_start[ck]
                steps = tm * tn * tk
                if steps > MAX_STEPS:
                    continue
                a_all = stats[0, cm_, 1] * stats[2, ck, 1] * job[A_BYTES]
                b_all = stats[2, ck, 2] * stats[1, cn_, 1] * job[B_BYTES]
                c_all = stats[0, cm_, 2] * stats[1, cn_, 2]
                a_whole = batch == 1 and a_all <= hw[IN_CAP]
                b_whole = batch == 1 and b_all <= hw[WEIGHT_CAP]
                p_whole = batch == 1 and stats[0, cm_, 0] * stats[1, cn_, 0] * sums_bytes <= hw[OUT_CAP]
                a_tile = stats[0, cm_, 4] * stats[2, ck, 4] * job[A_BYTES]
                b_tile = stats[2, ck, 5] * stats[1, cn_, 4] * job[B_BYTES]
                p_tile = stats[0, cm_, 3] * stats[1, cn_, 3] * sums_bytes
                if job[A_HERE] == 0.0 and a_tile > in_tile and not a_whole:
                    continue
                if job[B_HERE] == 0.0 and b_tile > weight_tile and not b_whole:
                    continue
                if p_tile > out_tile and not (tm == 1 and tn == 1 and p_whole):
                    continue
                # Row-wise vector work needs whole rows of sums in the output buffer.
                row_tile = stats[0, cm_, 3] * stats[1, cn_, 0] * sums_bytes
                if job[ROW_CYCLES] > 0.0 and row_tile > out_tile and not p_whole:
                    continue
                # A lower bound on compute: the folds' steady interval.
                ms, ns, ks = stats[0, cm_, 0], stats[1, cn_, 0], stats[2, ck, 0]
                compute = 0.0
                if dataflow == WS:
                    folds = _folds(k_start[ck], tk, ksize, rows) * _folds(n_start[cn_], tn, nsize, columns)
                    stream_sum, stream_tiles = ms, tm
                elif dataflow == OS:
                    folds = _folds(m_start[cm_], tm, msize, rows) * _folds(n_start[cn_], tn, nsize, columns)
                    stream_sum, stream_tiles = ks, tk
                else:
                    folds = _folds(k_start[ck], tk, ksize, rows) * _folds(m_start[cm_], tm, msize, columns)
                    stream_sum, stream_tiles = ns, tn
                q = hw[MAC_CYCLES]
                share = batch * (1.0 + job[EXTRA_BESIDE]) / (1.0 + hw[EXTRA_ARRAYS])
                depth = rows + columns - 2 + hw[LATENCY] + shift if dataflow == OS else hw[LATENCY] * rows + columns - 1
                beside_streaming, preload, drain = depth - q, 0.0, 0.0
                if overlap == FULL:
                    beside_streaming, drain = 0.0, max(0.0, depth - q)
                elif overlap == NONE and dataflow != OS:
                    beside_streaming, preload = beside_streaming + rows, rows
                in_folds = (q * stream_sum + beside_streaming * stream_tiles) * folds * share
                # From when the first tile has come until the last one's results have left; 1e-12 for its rounding.
                ends = _ends(hw, job, m_start[cm_], m_start[cm_ + 1], am, cm, n_start[cn_], n_start[cn_ + 1], bn, cn,
                             k_start[ck], ak, bk, stats[1, cn_, 2])  # fmt: skip
                compute = max(in_folds, (in_folds - preload + drain + ends) * (1.0 - 1e-12))
                if overlap == FULL:
                    compute = max(compute, (shift if dataflow == OS else rows) * folds * stream_tiles * share)
                for order_index in range(6):
                    order = ORDERS[order_index]
                    if _redundant(order, tm, tn, tk):
                        continue
                    if job[ROW_CYCLES] > 0.0 and not p_whole and tm > 1 and tn > 1 and _outside(order, 1, 0):
                        continue
                    if k_taps[ck] > 0 and order[2] != 2 and job[A_HERE] == 0.0 and not a_whole:
                        continue
                    fsum[0], fsum[2] = stats[0, cm_, 1], stats[2, ck, 1]
                    fmax[0], fmax[2] = stats[0, cm_, 4], stats[2, ck, 4]
                    reuse_a = a_whole or held(order, 0, 2, fsum, fmax) * job[A_BYTES] <= in_tile
                    fsum[1], fsum[2] = stats[1, cn_, 1], stats[2, ck, 2]
                    fmax[1], fmax[2] = stats[1, cn_, 4], stats[2, ck, 5]
                    reuse_b = b_whole or held(order, 1, 2, fsum, fmax) * job[B_BYTES] <= weight_tile
                    fsum[0], fsum[1] = stats[0, cm_, 0], stats[1, cn_, 0]
                    fmax[0], fmax[1] = stats[0, cm_, 3], stats[1, cn_, 3]
                    reuse_p = order[2] == 2 or held(order, 0, 1, fsum, fmax) * sums_bytes <= out_tile or p_whole
                    size = c_all * (job[STORE] + job[EXTRA_LOAD])
                    if job[A_HERE] == 0.0:
                        size += a_all * (1 if reuse_a or order[2] == 1 else tn)
                    if job[B_HERE] == 0.0:
                        size += b_all * (1 if reuse_b or order[2] == 0 else tm)
                    if tk > 1 and not reuse_p:
                        size += 2.0 * (tk - 1) * ms * ns * sums_bytes
                    size *= batch
                    bound[kept] = max(compute, size / hw[OFF_BPC])
                    traffic[kept] = size
                    least_cycles[kept, 0], least_cycles[kept, 1] = size / hw[OFF_BPC], in_folds
                    least_cycles[kept, 2] = max(0.0, beside_streaming)
                    choice[kept, 0], choice[kept, 1], choice[kept, 2], choice[kept, 3] = (
                        cm_,
                        cn_,
                        ck,
                        order_index,
                    )
                    keeps[kept, 0], keeps[kept, 1], keeps[kept, 2] = reuse_a, reuse_b, reuse_p
                    kept += 1
    best = np.zeros(RESULT_FIELDS)
    picked = np.full(4, -1, dtype=np.int64)
    reuse = np.zeros(3, dtype=np.bool_)
    simulated = 0
    if kept == 0:
        return picked, reuse, simulated, best
    ranking = np.argsort(bound[:kept], kind="mergesort")
    least = np.inf
    least_traffic = np.inf
    for r in ranking:
        if bound[r] > least:
            break
        if bound[r] == least and traffic[r] >= least_traffic:
            continue
        a, b, c = choice[r, 0], choice[r, 1], choice[r, 2]
        ms_, me = m_start[a], m_start[a + 1]
        ns_, ne = n_start[b], n_start[b + 1]
        ks_, ke = k_start[c], k_start[c + 1]
        limit = (least, least_cycles[r, 0], least_cycles[r, 1], least_cycles[r, 2])
        result = simulate(
            hw, job, ORDERS[choice[r, 3]], msize[ms_:me], am[ms_:me], cm[ms_:me], nsize[ns_:ne], bn[ns_:ne], cn[ns_:ne],
            ksize[ks_:ke], ak[ks_:ke], bk[ks_:ke], keeps[r], unrecorded, limit,
        )  # fmt: skip
        simulated += 1
        result[TIME] = max(result[TIME], levels(hw, job, result))
        if result[TIME] < least or (result[TIME] == least and traffic[r] < least_traffic):
            least = result[TIME]
            least_traffic = traffic[r]
            best = result
            picked[:] = choice[r]
            reuse[:] = keeps[r]
    return picked, reuse, simulated, best


@njit(cache=True, nogil=True)
def _ends(hw, job, m_first, m_end, am, cm, n_first, n_end, bn, cn, k_first, ak, bk, c_row):
    """Cycles before the first tile's operands have come and after the last tile's sums have left the array, at the least."""
    moved = 0.0
    if job[B_HERE] == 0.0:
        moved += bk[k_first] * bn[n_first] * job[B_BYTES]
    if job[A_HERE] == 0.0:
        moved += am[m_first] * ak[k_first] * job[A_BYTES]
    waited = hw[OFF_LATENCY] if moved > 0.0 else 0.0
    outputs = cm[m_end - 1] * cn[n_end - 1]
    worked = outputs * job[VECTOR_CYCLES]
    if job[ROW_CYCLES] > 0.0:
        outputs = cm[m_end - 1] * c_row
    return waited + worked + (moved + outputs * job[STORE]) / hw[OFF_BPC]


@njit(cache=True, nogil=True)
def _folds(start, count, sizes, unit):
    total = 0.0
    for t in range(start, start + count):
        total += np.ceil(sizes[t] / unit)
    return total


@njit(cache=True, nogil=True)
def _outside(order, one, other):
    """Whether the loop over dimension ``one`` lies outside that over ``other``."""
    for i in range(3):
        if order[i] == one:
            return True
        if order[i] == other:
            return False
    return False


@njit(cache=True, nogil=True)
def _redundant(order, tm, tn, tk):
    """Whether another order visits the same tiles in the same sequence: loops of one trip go first, in the order m, n, k."""
    trips = (tm, tn, tk)
    seen_long = False
    previous = -1
    for i in range(3):
        d = order[i]
        if trips[d] == 1:
            if seen_long or d < previous:
                return True
            previous = d
        else:
            seen_long = True
    return False
