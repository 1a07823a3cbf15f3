"""Sums of products as the elements of a faulty array make them (numba): only the sums, none of the registers around them.

One multiply-accumulate is ``numerics._mac_kernels.mac``, as in the cycle-level model.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit

from accelerators.systolic._cycle_kernels import FLIP, STUCK_1
from numerics._mac_kernels import SOURCE, mac, sum_code, sum_value

# Fields of a fault in sums (int64 rows). −1 stands for all.
S_KIND, S_BIT, S_ROW, S_STEP, S_WAIT, S_UNIT, S_LANE = range(7)
"""Kind and bit; row of the array (k modulo ``group``); k, and the cycle after its multiply-accumulate; indices of the output.
Of a stored sum, ``S_STEP`` and ``S_WAIT`` are the first and the last fold (without folds, k) at whose end its word is written."""
SUM_FIELDS = 7

LANES = 1024
"""Outputs that are summed together: their sums stay in the first-level cache."""


@njit(cache=True, nogil=True, inline="always")
def _struck(value, one, kind, bit, layout_kind, bits, mantissa_bits, bias, has_inf, has_nan):
    """A sum as its faulty register holds it."""
    code, mask = np.uint64(sum_code(value, layout_kind, bits, mantissa_bits, bias)), np.uint64(1) << np.uint64(bit)
    if kind == FLIP:
        code ^= mask
    elif kind == STUCK_1:
        code |= mask
    else:
        code &= ~mask
    return sum_value(code, one, layout_kind, bits, mantissa_bits, bias, has_inf, has_nan)


@njit(cache=True, nogil=True)
def _strike(sums, fault, unit, begin, count, layout):
    """A fault strikes those of ``count`` sums, the first of which is number ``begin`` of a unit, that it is in."""
    if fault[S_UNIT] >= 0 and fault[S_UNIT] != unit:
        return
    low, high = 0, count
    if fault[S_LANE] >= 0:
        low, high = max(0, fault[S_LANE] - begin), min(count, fault[S_LANE] + 1 - begin)
    kind, bits, mantissa_bits, bias, has_inf, has_nan = layout
    one = sums.dtype.type(1)
    for j in range(low, high):
        sums[j] = _struck(sums[j], one, fault[S_KIND], fault[S_BIT], kind, bits, mantissa_bits, bias, has_inf, has_nan)


@cache
def chain(mode, how, by, layout, source=SOURCE):
    """The kernel for sums of products; arguments as for ``_cycle_kernels.stationary``."""

    @njit(nogil=True, cache=True)
    def run(u, v, out, first, last, group, folded, repeat, faults, stored, p, q):
        """``out[i, j] = Σ u[k, i] · v[k, j]`` for i from ``first`` to ``last`` − 1.

        Args:
            u, v: (k, units) and (k, lanes), of the type of the sums.
            out: (units, lanes), written.
            group: products that an array's column sums, from zero, before their sum is added to the stored one.
            folded: whether it does; else each output is one chain in its element.
            repeat: cycles in which an element holds a sum until its next operands come.
            faults: (number, SUM_FIELDS), in the registers of sums, in the order in which they strike.
            stored: (number, SUM_FIELDS), in the memory of the stored sums: they strike what is written there.
            p, q: parameters of the multiply-accumulate.
        """
        depth, lanes = u.shape[0], v.shape[1] + source - source
        one = out.dtype.type(1)
        sums = np.zeros(min(lanes, LANES), out.dtype)
        right = faults.shape[0] == 0 and stored.shape[0] == 0
        for begin in range(0, lanes, LANES):
            count = min(LANES, lanes - begin)
            for i in range(first, last):
                total = out[i, begin : begin + count]
                total[:] = 0
                sums[:] = 0
                k = -1
                while k < depth - 1:
                    k += 1
                    if right and k + 3 < depth and (not folded or k % group + 3 < group):
                        # Four at a time: a sum is in its processor's register meanwhile.
                        w0, w1, w2, w3 = u[k, i], u[k + 1, i], u[k + 2, i], u[k + 3, i]
                        v0, v1 = v[k, begin : begin + count], v[k + 1, begin : begin + count]
                        v2, v3 = v[k + 2, begin : begin + count], v[k + 3, begin : begin + count]
                        for j in range(np.uint64(count)):
                            total_01 = mac(mac(sums[j], v0[j], w0, p, q, mode, how, by), v1[j], w1, p, q, mode, how, by)
                            sums[j] = mac(mac(total_01, v2[j], w2, p, q, mode, how, by), v3[j], w3, p, q, mode, how, by)
                        k += 3
                    else:
                        weight, came = u[k, i], v[k, begin : begin + count]
                        for j in range(np.uint64(count)):
                            sums[j] = mac(sums[j], came[j], weight, p, q, mode, how, by)
                    if faults.shape[0]:
                        for wait in range(repeat if k < depth - 1 else 1):
                            for f in range(faults.shape[0]):
                                fault = faults[f]
                                if fault[S_ROW] >= 0 and fault[S_ROW] != k % group:
                                    continue
                                if fault[S_STEP] >= 0 and (fault[S_STEP] != k or fault[S_WAIT] != wait):
                                    continue
                                _strike(sums, fault, i, begin, count, layout)
                    if folded and ((k + 1) % group == 0 or k == depth - 1):
                        for j in range(np.uint64(count)):
                            total[j] = mac(total[j], sums[j], one, p, q, mode, how, by)
                        sums[:] = 0
                    for f in range(stored.shape[0]):
                        fault = stored[f]
                        mark = k // group if folded else k
                        written = not folded or (k + 1) % group == 0 or k == depth - 1
                        if written and fault[S_STEP] <= mark <= fault[S_WAIT]:
                            _strike(total if folded else sums, fault, i, begin, count, layout)
                if not folded:
                    total[:] = sums[:count]

    return run


@cache
def drain(layout, source=SOURCE):
    """The kernel for sums that leave through faulty registers."""
    kind, bits, mantissa_bits, bias, has_inf, has_nan = layout

    @njit(nogil=True, cache=True)
    def run(sums, faults):
        """Faults (number, SUM_FIELDS), one after the other, strike all of a flat array of sums."""
        one = sums.dtype.type(1)
        for j in range(sums.size + source - source):
            for f in range(faults.shape[0]):
                sums[j] = _struck(
                    sums[j], one, faults[f, S_KIND], faults[f, S_BIT], kind, bits, mantissa_bits, bias, has_inf, has_nan
                )

    return run
