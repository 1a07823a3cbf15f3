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
    EXTRA_SPLIT,
    FULL,
    IN_BPC,
    IN_CAP,
    IN_DOUBLE,
    IS,
    LATENCY,
    MAC_CYCLES,
    MAX_STEPS,
    NONE,
    OFF_BPC,
    OFF_LATENCY,
    ORDERS,
    OS,
    OTHER_IN,
    OTHER_OFF,
    OUT_BPC,
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
    WEIGHT_BPC,
    WEIGHT_CAP,
    WEIGHT_DOUBLE,
    WS,
)
from accelerators.systolic._pipeline_kernels import least_progress, levels, simulate, tile_work

SLOW_TO_TRY = 1e-5
"""Share by which a mapping must be faster, for each of its tiles, to be tried first."""


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
def describe(start, size, first, second):
    """What the search asks of each cut of a dimension: (sums and maxima of size and both footprints, where its classes of equal
    sizes begin, their sizes, their tiles)."""
    cuts = start.size - 1
    stats = np.zeros((cuts, 6))
    begin = np.zeros(cuts + 1, dtype=np.int64)
    sizes = np.empty(size.size)
    tiles = np.empty(size.size)
    known = 0
    for c in range(cuts):
        begin[c] = known
        for t in range(start[c], start[c + 1]):
            stats[c, 0] += size[t]
            stats[c, 1] += first[t]
            stats[c, 2] += second[t]
            stats[c, 3] = max(stats[c, 3], size[t])
            stats[c, 4] = max(stats[c, 4], first[t])
            stats[c, 5] = max(stats[c, 5], second[t])
            at = begin[c]
            while at < known and sizes[at] != size[t]:
                at += 1
            if at == known:
                sizes[at], tiles[at] = size[t], 0.0
                known += 1
            tiles[at] += 1.0
    begin[cuts] = known
    return stats, begin, sizes[:known].copy(), tiles[:known].copy()


@njit(cache=True, nogil=True)
def search(hw, job, m_start, msize, am, cm, n_start, nsize, bn, cn, k_start, ksize, ak, bk, k_taps):
    """``search_described`` of cuts that nothing has described yet."""
    return search_described(
        hw, job, m_start, msize, am, cm, n_start, nsize, bn, cn, k_start, ksize, ak, bk, k_taps,
        describe(m_start, msize, am, cm), describe(n_start, nsize, bn, cn), describe(k_start, ksize, ak, bk),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def search_described(
    hw, job, m_start, msize, am, cm, n_start, nsize, bn, cn, k_start, ksize, ak, bk, k_taps, m_cuts, n_cuts, k_cuts
):
    """The fastest mapping (least off-chip traffic among equals): every tile triple and loop order that fits its buffers.

    Candidates are tried in the order of a lower bound on their time, and the search ends when no bound is below the best.
    ``*_start`` delimit the candidate tilings of a dimension in its arrays, ``*_cuts`` describe them (``describe``); ``k_taps`` is
    not 0 for those of k whose tiles share feature maps: they run one after another (k innermost) unless the whole feature map is
    at hand. Of mappings equal in time and traffic the one whose array alone is bound to be faster counts, then the one listed
    first. Returns (chosen m, n, k and order, or −1; what stays in its buffer; mappings simulated; result).
    """
    m_stats, m_begin, m_sizes, m_tiles = m_cuts
    n_stats, n_begin, n_sizes, n_tiles = n_cuts
    k_stats, k_begin, k_sizes, k_tiles = k_cuts
    nm, nn, nk = m_start.size - 1, n_start.size - 1, k_start.size - 1
    total = nm * nn * nk * 6
    bound = np.empty(total)
    traffic = np.empty(total)
    rank = np.empty(total)
    guess = np.empty(total)
    least_cycles = np.empty((total, 2))
    choice = np.empty((total, 4), dtype=np.int64)
    keeps = np.empty((total, 3), dtype=np.bool_)
    kept = 0
    batch = job[BATCH]
    rows, columns = hw[ROWS], hw[COLUMNS]
    in_tile = hw[IN_CAP] / 2 if hw[IN_DOUBLE] > 0 else hw[IN_CAP]
    weight_tile = hw[WEIGHT_CAP] / 2 if hw[WEIGHT_DOUBLE] > 0 else hw[WEIGHT_CAP]
    out_tile = hw[OUT_CAP] / 2 if hw[OUT_DOUBLE] > 0 else hw[OUT_CAP]
    dataflow, overlap = int(hw[DATAFLOW]), int(hw[OVERLAP])
    sums_bytes = (1.0 + job[EXTRA_PACKED]) * (1.0 + job[EXTRA_BESIDE]) * job[P_BYTES]
    shift = rows if hw[DRAIN_SHIFT] > 0 else 0.0
    depth = rows + columns - 2 + hw[LATENCY] + shift if dataflow == OS else hw[LATENCY] * rows + columns - 1
    fsum = np.zeros(3)
    fmax = np.zeros(3)
    unrecorded = np.zeros((0, TILE_FIELDS))
    for cm_ in range(nm):
        tm = m_start[cm_ + 1] - m_start[cm_]
        for cn_ in range(nn):
            tn = n_start[cn_ + 1] - n_start[cn_]
            for ck in range(nk):
                tk = k_start[ck + 1] - k_start[ck]
                if tm * tn * tk > MAX_STEPS:
                    continue
                a_all = m_stats[cm_, 1] * k_stats[ck, 1] * job[A_BYTES]
                b_all = k_stats[ck, 2] * n_stats[cn_, 1] * job[B_BYTES]
                c_all = m_stats[cm_, 2] * n_stats[cn_, 2]
                a_whole = batch == 1 and a_all <= hw[IN_CAP]
                b_whole = batch == 1 and b_all <= hw[WEIGHT_CAP]
                p_whole = batch == 1 and m_stats[cm_, 0] * n_stats[cn_, 0] * sums_bytes <= hw[OUT_CAP]
                a_tile = m_stats[cm_, 4] * k_stats[ck, 4] * job[A_BYTES]
                b_tile = k_stats[ck, 5] * n_stats[cn_, 4] * job[B_BYTES]
                p_tile = m_stats[cm_, 3] * n_stats[cn_, 3] * sums_bytes
                if job[A_HERE] == 0.0 and a_tile > in_tile and not a_whole:
                    continue
                if job[B_HERE] == 0.0 and b_tile > weight_tile and not b_whole:
                    continue
                if p_tile > out_tile and not (tm == 1 and tn == 1 and p_whole):
                    continue
                # Row-wise vector work needs whole rows of sums in the output buffer.
                row_tile = m_stats[cm_, 3] * n_stats[cn_, 0] * sums_bytes
                if job[ROW_CYCLES] > 0.0 and row_tile > out_tile and not p_whole:
                    continue
                ms, ns = m_stats[cm_, 0], n_stats[cn_, 0]
                # From when the first tile has come until the last one's results have left.
                waited, left = _ends(
                    hw, job, m_start[cm_], m_start[cm_ + 1], am, cm, n_start[cn_], n_start[cn_ + 1], bn, cn, k_start[ck], ak, bk,
                    n_stats[cn_, 2],
                )  # fmt: skip
                at_ideal = _steady(
                    hw, job, m_sizes[m_begin[cm_] : m_begin[cm_ + 1]], m_tiles[m_begin[cm_] : m_begin[cm_ + 1]],
                    n_sizes[n_begin[cn_] : n_begin[cn_ + 1]], n_tiles[n_begin[cn_] : n_begin[cn_ + 1]],
                    k_sizes[k_begin[ck] : k_begin[ck + 1]], k_tiles[k_begin[ck] : k_begin[ck + 1]],
                    ms if dataflow == WS else (ns if dataflow == IS else k_stats[ck, 0]),
                    tm if dataflow == WS else (tn if dataflow == IS else tk), waited + left, depth, shift,
                )  # fmt: skip
                folds, loads, read_a, read_b, sums, interval = _levels(
                    hw, job, m_sizes[m_begin[cm_] : m_begin[cm_ + 1]], m_tiles[m_begin[cm_] : m_begin[cm_ + 1]],
                    n_sizes[n_begin[cn_] : n_begin[cn_ + 1]], n_tiles[n_begin[cn_] : n_begin[cn_ + 1]],
                    k_sizes[k_begin[ck] : k_begin[ck + 1]], k_tiles[k_begin[ck] : k_begin[ck + 1]],
                    ksize[k_start[ck]], msize[m_start[cm_ + 1] - 1], nsize[n_start[cn_ + 1] - 1], ksize[k_start[ck + 1] - 1],
                )  # fmt: skip
                folds = folds + left + (max(0.0, depth - interval) if overlap == FULL else 0.0)
                loads = loads + left + depth if dataflow != OS else 0.0
                # No operand streams before its first tile has come, nor, where loads lead, before the first load is over.
                ahead = waited if dataflow == OS else max(waited, rows)
                if overlap == NONE and dataflow != OS:
                    # The first load, which may go on while the stream's operands come, is among the folds' cycles.
                    first = tile_work(hw, job, msize[m_start[cm_]], nsize[n_start[cn_]], ksize[k_start[ck]], 0.0)[6]
                    ahead = max(0.0, waited - first)
                array_bound = max(folds + ahead, loads, sums / hw[OUT_BPC])
                for order_index in range(6):
                    order = ORDERS[order_index]
                    if _redundant(order, tm, tn, tk):
                        continue
                    if job[ROW_CYCLES] > 0.0 and not p_whole and tm > 1 and tn > 1 and _outside(order, 1, 0):
                        continue
                    if k_taps[ck] > 0 and order[2] != 2 and job[A_HERE] == 0.0 and not a_whole:
                        continue
                    fsum[0], fsum[2] = m_stats[cm_, 1], k_stats[ck, 1]
                    fmax[0], fmax[2] = m_stats[cm_, 4], k_stats[ck, 4]
                    reuse_a = a_whole or held(order, 0, 2, fsum, fmax) * job[A_BYTES] <= in_tile
                    fsum[1], fsum[2] = n_stats[cn_, 1], k_stats[ck, 2]
                    fmax[1], fmax[2] = n_stats[cn_, 4], k_stats[ck, 5]
                    reuse_b = b_whole or held(order, 1, 2, fsum, fmax) * job[B_BYTES] <= weight_tile
                    fsum[0], fsum[1] = m_stats[cm_, 0], n_stats[cn_, 0]
                    fmax[0], fmax[1] = m_stats[cm_, 3], n_stats[cn_, 3]
                    reuse_p = order[2] == 2 or held(order, 0, 1, fsum, fmax) * sums_bytes <= out_tile or p_whole
                    load_a = load_b = spilled = 0.0
                    if job[A_HERE] == 0.0:
                        load_a = a_all * (1 if reuse_a or order[2] == 1 else tn)
                    if job[B_HERE] == 0.0:
                        load_b = b_all * (1 if reuse_b or order[2] == 0 else tm)
                    if tk > 1 and not reuse_p:
                        spilled = 2.0 * (tk - 1) * ms * ns * sums_bytes
                    size = (c_all * (job[STORE] + job[EXTRA_LOAD]) + load_a + load_b + spilled) * batch
                    inside = (read_a + load_a * batch + job[OTHER_IN]) / hw[IN_BPC]
                    weights = (read_b + load_b * batch) / hw[WEIGHT_BPC]
                    bound[kept] = max(array_bound, (size + job[OTHER_OFF]) / hw[OFF_BPC], inside, weights)
                    # The first and the last tile's transfers and folds have nothing beside them.
                    steps = tm * tn * tk * batch
                    guess[kept] = max(bound[kept], size / hw[OFF_BPC] + folds / steps + left)
                    guess[kept] *= 1.0 + SLOW_TO_TRY * steps
                    traffic[kept] = size
                    rank[kept] = max(at_ideal, size / hw[OFF_BPC])
                    least_cycles[kept, 0], least_cycles[kept, 1] = folds, loads
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
    # What the likeliest takes is a time to beat from the start; it rules out only what is slower by more than rounding.
    to_beat = np.inf
    least = np.inf
    best_at = seed = -1
    for turn in range(-1, kept):
        r = int(np.argmin(guess[:kept])) if turn < 0 else int(ranking[turn])
        if turn >= 0:
            # A bound and a time that are equal differ by their rounding.
            if bound[r] * (1.0 - 1e-9) > min(least, to_beat):
                break
            if bound[r] * (1.0 + 1e-12) >= least and not _before(traffic, rank, r, best_at):
                continue
        a, b, c = choice[r, 0], choice[r, 1], choice[r, 2]
        ms_, me = m_start[a], m_start[a + 1]
        ns_, ne = n_start[b], n_start[b + 1]
        ks_, ke = k_start[c], k_start[c + 1]
        limit = (min(least, to_beat), traffic[r] / hw[OFF_BPC], least_cycles[r, 0], least_cycles[r, 1])
        result = simulate(
            hw, job, ORDERS[choice[r, 3]], msize[ms_:me], am[ms_:me], cm[ms_:me], nsize[ns_:ne], bn[ns_:ne], cn[ns_:ne],
            ksize[ks_:ke], ak[ks_:ke], bk[ks_:ke], keeps[r], unrecorded, limit,
        )  # fmt: skip
        simulated += 1
        result[TIME] = max(result[TIME], levels(hw, job, result))
        if turn < 0:
            to_beat = result[TIME] * (1.0 + 1e-9)
            seed, best = r, result
        elif result[TIME] == np.inf:
            continue
        elif result[TIME] < least or (result[TIME] == least and _before(traffic, rank, r, best_at)):
            least = result[TIME]
            best_at = r
            best = result
    if best_at < 0:
        best_at = seed
    picked[:] = choice[best_at]
    reuse[:] = keeps[best_at]
    return picked, reuse, simulated, best


@njit(cache=True, nogil=True)
def _before(traffic, rank, one, other):
    """Whether of two candidates that take the same time, the first counts."""
    if other < 0 or traffic[one] < traffic[other]:
        return True
    return traffic[one] == traffic[other] and (rank[one] < rank[other] or (rank[one] == rank[other] and one < other))


@njit(cache=True, nogil=True)
def _steady(hw, job, m_sizes, m_tiles, n_sizes, n_tiles, k_sizes, k_tiles, stream_sum, stream_tiles, ends, depth, shift):
    """A lower bound on the array's time where its buffers keep up: the folds' steady interval."""
    rows, columns, q = hw[ROWS], hw[COLUMNS], hw[MAC_CYCLES]
    dataflow, overlap = int(hw[DATAFLOW]), int(hw[OVERLAP])
    if dataflow == WS:
        folds = _folds(k_sizes, k_tiles, rows) * _folds(n_sizes, n_tiles, columns)
    elif dataflow == OS:
        folds = _folds(m_sizes, m_tiles, rows) * _folds(n_sizes, n_tiles, columns)
    else:
        folds = _folds(k_sizes, k_tiles, rows) * _folds(m_sizes, m_tiles, columns)
    share = job[BATCH] * (1.0 + job[EXTRA_BESIDE]) / (1.0 + hw[EXTRA_ARRAYS])
    beside_streaming, preload, drain = depth - q, 0.0, 0.0
    if overlap == FULL:
        beside_streaming, drain = 0.0, max(0.0, depth - q)
    elif overlap == NONE and dataflow != OS:
        beside_streaming, preload = beside_streaming + rows, rows
    in_folds = (q * stream_sum + beside_streaming * stream_tiles) * folds * share
    found = max(in_folds, (in_folds - preload + drain + ends) * (1.0 - 1e-12))
    if overlap == FULL:
        found = max(found, (shift if dataflow == OS else rows) * folds * stream_tiles * share)
    return found


@njit(cache=True, nogil=True)
def _levels(hw, job, m_sizes, m_tiles, n_sizes, n_tiles, k_sizes, k_tiles, k_first, m_last, n_last, k_last):
    """Over all tiles, in any order: (least progress of the folds and of their loads; bytes of A and B read from their buffers, of
    sums written and read; cycles from operand to operand in the last tile)."""
    groups = (1.0 + job[EXTRA_PACKED]) * (1.0 + job[EXTRA_BESIDE])
    split = 1.0 + job[EXTRA_SPLIT]
    dataflow = int(hw[DATAFLOW])
    folds = loads = read_a = read_b = sums = 0.0
    k_all = 0.0
    for k in range(k_sizes.size):
        k_all += k_tiles[k]
    for m in range(m_sizes.size):
        for n in range(n_sizes.size):
            for k in range(-1, k_sizes.size):
                # The first tile of k begins the sums; the others add to them.
                size, tiles, adds = (k_first, 1.0, 0.0) if k < 0 else (k_sizes[k], k_tiles[k], 1.0)
                if k >= 0 and size == k_first:
                    tiles -= 1.0
                if tiles == 0.0:
                    continue
                times = m_tiles[m] * n_tiles[n] * tiles
                _, fold_rows, fold_columns, count, part, interval, load_cycles, written, read = tile_work(
                    hw, job, m_sizes[m], n_sizes[n], size, adds
                )
                progress, loading = least_progress(hw, count, part, interval, load_cycles)
                folds += times * progress
                loads += times * loading
                a, b = groups * m_sizes[m] * size * job[A_BYTES], groups * n_sizes[n] * size * job[B_BYTES]
                read_a += times * a * (split if dataflow == IS else fold_columns)
                read_b += times * b * (split if dataflow == WS else (fold_rows if dataflow == OS else fold_columns))
                sums += times * (written + read)
            # Each sum is read when it leaves, be it whole or to make room.
            sums += m_tiles[m] * n_tiles[n] * groups * m_sizes[m] * n_sizes[n] * job[P_BYTES]
    batch = job[BATCH]
    last = tile_work(hw, job, m_last, n_last, k_last, 1.0 if k_all > 1.0 else 0.0)[5]
    return folds * batch, loads * batch, read_a * batch, read_b * batch, sums * batch, last


@njit(cache=True, nogil=True)
def _ends(hw, job, m_first, m_end, am, cm, n_first, n_end, bn, cn, k_first, ak, bk, c_row):
    """(cycles before the first tile's operands have come, after the last tile's sums have left the array), at the least."""
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
    return waited + moved / hw[OFF_BPC], worked + outputs * job[STORE] / hw[OFF_BPC]


@njit(cache=True, nogil=True)
def _folds(sizes, tiles, unit):
    total = 0.0
    for i in range(sizes.size):
        total += tiles[i] * np.ceil(sizes[i] / unit)
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
