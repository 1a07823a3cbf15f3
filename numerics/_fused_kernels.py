"""Sums in which a group of exact products is aligned, truncated and added at once, as tensor cores do (numba).

One instruction computes, from the stored sum c and the products of its group (MMA-Sim, arXiv 2511.10909):
``E = max(exponent of c, exponents of the products, −126)``; ``T = Σ trunc(x · 2^(F − E))`` over c and the products; and
stores ``T · 2^(E − F)`` in the sum's format. An exponent is that of the operand's format (a subnormal has the smallest), that of
a product is the sum of its operands'; zeros have none.

Products are formed in 32-bit lanes where they fit; c, T and the result in 64-bit floats, in which all of them are exact.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics._kernels import GENERAL, SHIFT, STOCHASTIC, _fields, _Word, random_bits, round_element
from numerics._product_kernels import FAST_ADD, RANDOM_MASK, SOURCE, _fast_add, add, narrow

NO_EXPONENT = -(1 << 20)
"""The exponent of a zero: below any other, twice over."""

FLOOR = -126
"""What a zero counts as."""

TRUNCATED = 9
"""How a result is stored: cut off toward zero, Inf beyond the largest; or ``GENERAL``, as ``numerics._kernels`` rounds; or
``FAST_ADD``, which is ``GENERAL`` but for groups that fit 32-bit lanes."""


@intrinsic
def truncated_integer(typing_context: Any, x: Any) -> Any:
    """A 32-bit float toward zero, as a 32-bit integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fptosi(arguments[0], ir.IntType(32))

    return types.int32(x), generate


@intrinsic
def power_of_two(typing_context: Any, exponent: Any, like: Any) -> Any:
    """2^exponent in the type of ``like``; the exponent (32 bits) is that of a normal number, or is clipped to the largest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mantissa, bias, width = (23, 127, 32) if like.bitwidth == 32 else (52, 1023, 64)
        kind = ir.IntType(width)
        limit = ir.Constant(ir.IntType(32), bias)
        e = builder.select(builder.icmp_signed(">", arguments[0], limit), limit, arguments[0])
        field = builder.add(e, limit)
        field = builder.zext(field, kind) if width == 64 else field
        return builder.bitcast(
            builder.shl(field, ir.Constant(kind, mantissa)), ir.FloatType() if width == 32 else ir.DoubleType()
        )

    return like(types.int32, like), generate


@intrinsic
def sum_exponent(typing_context: Any, x: Any, emin: Any) -> Any:
    """The exponent of a stored sum (32 or 64 bits), as a 32-bit integer: at least ``emin``, and ``FLOOR`` for a zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mantissa, bias, width = (23, 127, 32) if x.bitwidth == 32 else (52, 1023, 64)
        kind, word = ir.IntType(width), ir.IntType(32)
        bits = builder.and_(builder.bitcast(arguments[0], kind), ir.Constant(kind, (1 << (width - 1)) - 1))
        field = builder.lshr(bits, ir.Constant(kind, mantissa))
        field = builder.trunc(field, word) if width == 64 else field
        e = builder.sub(field, ir.Constant(word, bias))
        e = builder.select(builder.icmp_signed(">", e, arguments[1]), e, arguments[1])
        zero = builder.icmp_unsigned("==", bits, ir.Constant(kind, 0))
        return builder.select(zero, ir.Constant(word, FLOOR), e)

    return types.int32(x, types.int32), generate


@intrinsic
def larger_sum(typing_context: Any, largest: Any, a: Any, b: Any) -> Any:
    """max(largest, a + b) of 32-bit integers, in 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total = builder.add(arguments[1], arguments[2])
        return builder.select(builder.icmp_signed(">", total, arguments[0]), total, arguments[0])

    return types.int32(types.int32, types.int32, types.int32), generate


@intrinsic
def plus(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b of 32-bit integers, in 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.add(*arguments)

    return types.int32(types.int32, types.int32), generate


@intrinsic
def bound_exponents(typing_context: Any, bounds: Any, exponent: Any) -> Any:
    """(lowest, highest) of exponents seen, with one more."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pair, e = arguments
        low, high = builder.extract_value(pair, 0), builder.extract_value(pair, 1)
        low = builder.select(builder.icmp_signed("<", e, low), e, low)
        high = builder.select(builder.icmp_signed(">", e, high), e, high)
        return builder.insert_value(builder.insert_value(pair, low, 0), high, 1)

    return bounds(bounds, types.int32), generate


@intrinsic(prefer_literal=True)
def store_whole(typing_context: Any, first: Any, second: Any, exponent: Any, p: Any, how: Any) -> Any:
    """(first + second) · 2^exponent, a 32-bit float: cut off toward zero, or rounded to nearest even (``FAST_ADD``).

    The integers (32 bits) add up to less than 2^32 in magnitude, and 2^exponent is normal, as the result then is or zero.
    """
    if not isinstance(how, types.Literal):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.IntType(32)
        a, b, e, packed, _ = arguments
        p_fields = _fields(builder, packed)
        one = ir.Constant(kind, 1)
        # The sum has 33 bits: its sign is that of its half, its magnitude is right modulo 2^32.
        half = builder.add(builder.add(builder.ashr(a, one), builder.ashr(b, one)), builder.and_(builder.and_(a, b), one))
        sign = builder.ashr(half, ir.Constant(kind, 31))
        total = builder.add(a, b)
        magnitude = builder.sub(builder.xor(total, sign), sign)
        leading = builder.ctlz(magnitude, ir.Constant(ir.IntType(1), 0))
        places = _Word(builder, leading)
        # FAST_ADD rounds 24 bits, the last of them sticky; the other way leaves the mantissa's.
        spare = (places * 0 + 8) if how.literal_value == FAST_ADD else p_fields[SHIFT] + 8
        gone = (places < spare).where(spare - places, places * 0)
        kept = (_Word(builder, magnitude) >> gone) << gone
        if how.literal_value == FAST_ADD:
            sticky = (_Word(builder, magnitude) ^ kept) > 0
            kept = sticky.where(kept | ((places * 0 + 1) << gone), kept)
        value = builder.uitofp(kept.value, ir.FloatType())
        power = builder.bitcast(builder.shl(builder.add(e, ir.Constant(kind, 127)), ir.Constant(kind, 23)), ir.FloatType())
        value = builder.fmul(value, power)
        signed = (
            _Word(builder, builder.bitcast(value, kind)) | _Word(builder, builder.shl(sign, ir.Constant(kind, 31)))
        ).as_float()
        return _fast_add(builder, signed, p_fields) if how.literal_value == FAST_ADD else signed

    return types.float32(types.int32, types.int32, types.int32, p, how), generate


@intrinsic
def cut(typing_context: Any, x: Any, kept: Any, normal: Any, up: Any, down: Any) -> Any:
    """A 64-bit float toward zero: to the bits in ``kept``, or below ``normal`` to multiples of ``down`` = 1 / ``up``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, mask, smallest, scale, step = arguments
        bits = builder.and_(builder.bitcast(value, ir.IntType(64)), mask)
        trunc = builder.module.declare_intrinsic("llvm.trunc", [value.type])
        even = builder.fmul(builder.call(trunc, [builder.fmul(value, scale)]), step)
        magnitude = builder.call(builder.module.declare_intrinsic("llvm.fabs", [value.type]), [value])
        tiny = builder.fcmp_ordered("<", magnitude, smallest)
        return builder.select(tiny, even, builder.bitcast(bits, value.type))

    return x(x, kept, normal, up, down), generate


@cache
def fused_chain(mode, how, wide_how, source=SOURCE):
    """The kernel for how a result is stored (a rounding mode for ``GENERAL``) and how promoted sums are rounded."""

    @njit(nogil=True, cache=True)
    def run(
        a, ea, b, eb, out, first, last, columns, group, part, narrow_p, interval, bits, emin, p, cutting, w, key, row_step,
        column_step, offset, steps,
    ):  # fmt: skip
        """Units ``first`` to ``last`` of ``out += a @ b``; a unit is ``columns`` columns of one row, and rows run fastest.

        Args:
            a, b: operands (M, K), (K, N), finite, of one float type in which their products are exact.
            ea, eb: their exponents (32 bits); ``NO_EXPONENT`` for zeros.
            out: (M, N), holds the initial values.
            group: products summed at once.
            part: of them, how many fit a 32-bit integer; if it is at least half the group, so does the stored sum beside them.
            narrow_p: parameters of the sum's format (32 bits).
            interval: products between promotions; 0 for none.
            bits: F, bits after the point of an aligned product.
            emin: smallest exponent of the stored sum.
            p: parameters of the sum's format (64 bits), for ``GENERAL``.
            cutting: mask of kept bits, smallest normal number, 1 / step below it, that step, for ``TRUNCATED``.
            w: parameters of the promoted sum.
            key, row_step, column_step, offset, steps: of the random stream, as in ``numerics._product_kernels.chain``.
        """
        version = source  # part of the cache's key
        rows, depth, width = a.shape[0], a.shape[1], b.shape[1]
        largest = np.empty(columns, np.int32)
        scale = np.empty(columns, a.dtype)
        whole = np.empty(columns, np.int32)
        other = np.empty(columns, np.int32)
        exact = np.empty(columns, np.float64)
        short = np.empty(columns, out.dtype)
        zero = out.dtype.type(0.0)
        kept, normal, up, down = cutting
        places = np.int32(bits)
        quick = a.itemsize == 4 and out.itemsize == 4 and how != GENERAL
        lowest = np.int32(emin)
        chance = np.uint64(version - version)
        for unit in range(first, last):
            i = unit % rows
            begin = (unit // rows) * columns
            n = min(columns, width - begin)
            left, left_e = a[i], ea[i]
            stored = out[i, begin : begin + n]
            start_word = np.uint64(offset + i * row_step + begin * column_step) * np.uint64(steps)
            word_step = np.uint64(column_step) * np.uint64(steps)
            done = np.uint64(0)
            span = interval if interval > 0 else max(depth, 1)
            for low in range(0, depth, span):
                high = min(low + span, depth)
                total = stored
                if interval > 0:
                    total = short[:n]
                    for j in range(n):
                        total[j] = zero
                for k0 in range(low, high, group):
                    k1 = min(k0 + group, high)
                    k = k0
                    if k + 4 <= k1:
                        e0, e1, e2, e3 = left_e[k], left_e[k + 1], left_e[k + 2], left_e[k + 3]
                        f0, f1 = eb[k, begin : begin + n], eb[k + 1, begin : begin + n]
                        f2, f3 = eb[k + 2, begin : begin + n], eb[k + 3, begin : begin + n]
                        for j in range(n):
                            top = larger_sum(sum_exponent(total[j], lowest), e0, f0[j])
                            top = larger_sum(top, e1, f1[j])
                            top = larger_sum(top, e2, f2[j])
                            largest[j] = larger_sum(top, e3, f3[j])
                        k += 4
                    else:
                        for j in range(n):
                            largest[j] = sum_exponent(total[j], lowest)
                    while k + 4 <= k1:
                        e0, e1, e2, e3 = left_e[k], left_e[k + 1], left_e[k + 2], left_e[k + 3]
                        f0, f1 = eb[k, begin : begin + n], eb[k + 1, begin : begin + n]
                        f2, f3 = eb[k + 2, begin : begin + n], eb[k + 3, begin : begin + n]
                        for j in range(n):
                            top = larger_sum(largest[j], e0, f0[j])
                            top = larger_sum(top, e1, f1[j])
                            top = larger_sum(top, e2, f2[j])
                            largest[j] = larger_sum(top, e3, f3[j])
                        k += 4
                    while k < k1:
                        e0, f0 = left_e[k], eb[k, begin : begin + n]
                        for j in range(n):
                            largest[j] = larger_sum(largest[j], e0, f0[j])
                        k += 1
                    if quick and 2 * part >= group:
                        bounds = (np.int32(127), np.int32(-127))
                        for j in range(n):
                            bounds = bound_exponents(bounds, largest[j])
                        # The powers of two and the result are normal numbers.
                        if bounds[0] >= bits - 120 and bounds[1] <= 127:
                            for j in range(n):
                                s = power_of_two(plus(places, -largest[j]), scale[j])
                                scale[j] = s
                                whole[j] = truncated_integer(total[j] * s)
                                other[j] = 0
                            for side in range(2):
                                into = whole if side == 0 else other
                                k = k0 + side * part
                                k3 = min(k + part, k1)
                                while k + 4 <= k3:
                                    x0, x1, x2, x3 = left[k], left[k + 1], left[k + 2], left[k + 3]
                                    r0, r1 = b[k, begin : begin + n], b[k + 1, begin : begin + n]
                                    r2, r3 = b[k + 2, begin : begin + n], b[k + 3, begin : begin + n]
                                    for j in range(n):
                                        s = scale[j]
                                        t = plus(truncated_integer(x0 * r0[j] * s), truncated_integer(x1 * r1[j] * s))
                                        u = plus(truncated_integer(x2 * r2[j] * s), truncated_integer(x3 * r3[j] * s))
                                        into[j] = plus(into[j], plus(t, u))
                                    k += 4
                                while k < k3:
                                    x0, r0 = left[k], b[k, begin : begin + n]
                                    for j in range(n):
                                        into[j] = plus(into[j], truncated_integer(x0 * r0[j] * scale[j]))
                                    k += 1
                            for j in range(n):
                                total[j] = store_whole(whole[j], other[j], plus(largest[j], -places), narrow_p, how)
                            done += np.uint64(1)
                            continue
                    for j in range(n):
                        places_up = plus(places, -largest[j])
                        scale[j] = power_of_two(places_up, scale[j])
                        wide = power_of_two(places_up, exact[j])
                        exact[j] = np.trunc(np.float64(total[j]) * wide)
                    if a.itemsize == 4:
                        for k2 in range(k0, k1, part):
                            k3 = min(k2 + part, k1)
                            for j in range(n):
                                whole[j] = 0
                            k = k2
                            while k + 4 <= k3:
                                x0, x1, x2, x3 = left[k], left[k + 1], left[k + 2], left[k + 3]
                                r0, r1 = b[k, begin : begin + n], b[k + 1, begin : begin + n]
                                r2, r3 = b[k + 2, begin : begin + n], b[k + 3, begin : begin + n]
                                for j in range(n):
                                    s = scale[j]
                                    t = plus(truncated_integer(x0 * r0[j] * s), truncated_integer(x1 * r1[j] * s))
                                    u = plus(truncated_integer(x2 * r2[j] * s), truncated_integer(x3 * r3[j] * s))
                                    whole[j] = plus(whole[j], plus(t, u))
                                k += 4
                            while k < k3:
                                x0, r0 = left[k], b[k, begin : begin + n]
                                for j in range(n):
                                    whole[j] = plus(whole[j], truncated_integer(x0 * r0[j] * scale[j]))
                                k += 1
                            for j in range(n):
                                exact[j] += np.float64(whole[j])
                    else:
                        for k in range(k0, k1):
                            x0, r0 = left[k], b[k, begin : begin + n]
                            for j in range(n):
                                exact[j] += np.trunc(x0 * r0[j] * scale[j])
                    for j in range(n):
                        value = exact[j] * power_of_two(plus(largest[j], -places), exact[j])
                        if how != TRUNCATED:
                            if mode == STOCHASTIC:
                                word = start_word + np.uint64(j) * word_step + done
                                chance = random_bits(key, word) & np.uint64(RANDOM_MASK)
                            value = round_element(value, chance, p, mode, GENERAL)
                        else:
                            value = cut(value, kept, normal, up, down)
                        total[j] = narrow(value, zero)
                    done += np.uint64(1)
                if interval > 0:
                    for j in range(n):
                        stored[j] = add(stored[j], total[j], np.uint64(0), w, 0, wide_how)

    return run


@cache
def special_chain(mode, how, wide_how, source=SOURCE):
    """As ``fused_chain``, one output at a time, for rows and columns that hold Inf or NaN."""

    @njit(nogil=True, cache=True)
    def run(
        a, ea, b, eb, initial, out, first, last, odd_rows, odd_columns, group, interval, bits, emin, p, cutting, w, key, row_step,
        column_step, offset, steps,
    ):  # fmt: skip
        """Rows ``first`` to ``last`` of the outputs in ``odd_rows`` or ``odd_columns`` (flags), from ``initial`` on.

        A group that holds NaN, Inf of both signs or 0 · Inf gives NaN; one with Inf gives that Inf.
        """
        version = source  # part of the cache's key
        chance = np.uint64(version - version)
        zero = out.dtype.type(0.0)
        kept, normal, up, down = cutting
        one = np.float64(1.0)
        depth = a.shape[1]
        span = interval if interval > 0 else max(depth, 1)
        for i in range(first, last):
            for j in range(b.shape[1]):
                if not (odd_rows[i] or odd_columns[j]):
                    continue
                word = np.uint64(offset + i * row_step + j * column_step) * np.uint64(steps)
                stored = initial[i, j]
                for low in range(0, depth, span):
                    high = min(low + span, depth)
                    total = zero if interval > 0 else stored
                    for k0 in range(low, high, group):
                        k1 = min(k0 + group, high)
                        largest = sum_exponent(total, np.int32(emin))
                        special = 0.0
                        for k in range(k0, k1):
                            product = np.float64(a[i, k]) * np.float64(b[k, j])
                            if np.isfinite(product):
                                largest = larger_sum(largest, ea[i, k], eb[k, j])
                            else:
                                special += product
                        scale = power_of_two(plus(np.int32(bits), -largest), one)
                        exact = np.trunc(np.float64(total) * scale)
                        for k in range(k0, k1):
                            product = np.float64(a[i, k]) * np.float64(b[k, j])
                            if np.isfinite(product):
                                exact += np.trunc(product * scale)
                        value = exact * power_of_two(plus(largest, np.int32(-bits)), one) + special
                        if how != TRUNCATED:
                            if mode == STOCHASTIC:
                                chance = random_bits(key, word) & np.uint64(RANDOM_MASK)
                            value = round_element(value, chance, p, mode, GENERAL)
                        elif np.isfinite(value):
                            value = cut(value, kept, normal, up, down)
                        total = narrow(value, zero)
                        word += np.uint64(1)
                    stored = add(stored, total, np.uint64(0), w, 0, wide_how) if interval > 0 else total
                out[i, j] = stored

    return run


@cache
def scaled_chain(mode, how, wide_how, source=SOURCE):
    """As ``fused_chain`` for block-scaled operands whose neighbouring products are summed before they are aligned."""

    @njit(nogil=True, cache=True)
    def run(
        a, sa, ea, b, sb, eb, out, first, last, columns, group, exact_run, block, interval, bits, emin, p, cutting, w, key,
        row_step, column_step, offset, steps,
    ):  # fmt: skip
        """Units ``first`` to ``last``, as for ``fused_chain``.

        Args:
            a, b: elements (M, K), (K, N), 32-bit floats: sums of ``exact_run`` products are exact.
            sa, sb: significands of the scales (M, K / block), (K / block, N), 64-bit floats; NaN for a NaN.
            ea, eb: exponents of the scales; ``NO_EXPONENT`` for zeros and NaN.
        """
        version = source  # part of the cache's key
        rows, depth, width = a.shape[0], a.shape[1], b.shape[1]
        most = (group + exact_run - 1) // exact_run
        sums = np.empty((most, columns), np.float32)
        largest = np.empty(columns, np.int32)
        scale = np.empty(columns, np.float64)
        exact = np.empty(columns, np.float64)
        short = np.empty(columns, out.dtype)
        zero = out.dtype.type(0.0)
        one = np.float64(1.0)
        kept, normal, up, down = cutting
        chance = np.uint64(version - version)
        for unit in range(first, last):
            i = unit % rows
            begin = (unit // rows) * columns
            n = min(columns, width - begin)
            left = a[i]
            stored = out[i, begin : begin + n]
            start_word = np.uint64(offset + i * row_step + begin * column_step) * np.uint64(steps)
            word_step = np.uint64(column_step) * np.uint64(steps)
            done = np.uint64(0)
            span = interval if interval > 0 else max(depth, 1)
            for low in range(0, depth, span):
                high = min(low + span, depth)
                total = stored
                if interval > 0:
                    total = short[:n]
                    for j in range(n):
                        total[j] = zero
                for k0 in range(low, high, group):
                    k1 = min(k0 + group, high)
                    for j in range(n):
                        largest[j] = sum_exponent(total[j], np.int32(emin))
                    for first_k in range(k0, k1, exact_run):
                        found = sums[(first_k - k0) // exact_run]
                        for j in range(n):
                            found[j] = np.float32(0.0)
                        end = min(first_k + exact_run, k1)
                        k = first_k
                        while k + 4 <= end:
                            x0, x1, x2, x3 = left[k], left[k + 1], left[k + 2], left[k + 3]
                            r0, r1 = b[k, begin : begin + n], b[k + 1, begin : begin + n]
                            r2, r3 = b[k + 2, begin : begin + n], b[k + 3, begin : begin + n]
                            for j in range(n):
                                found[j] += (x0 * r0[j] + x1 * r1[j]) + (x2 * r2[j] + x3 * r3[j])
                            k += 4
                        while k < end:
                            x0, r0 = left[k], b[k, begin : begin + n]
                            for j in range(n):
                                found[j] += x0 * r0[j]
                            k += 1
                        q = first_k // block
                        e0, f0, s0, t0 = ea[i, q], eb[q, begin : begin + n], sa[i, q], sb[q, begin : begin + n]
                        for j in range(n):
                            if found[j] != np.float32(0.0) and s0 * t0[j] != 0.0:
                                largest[j] = larger_sum(largest[j], e0, f0[j])
                    for j in range(n):
                        scale[j] = power_of_two(plus(np.int32(bits), -largest[j]), one)
                        exact[j] = np.trunc(np.float64(total[j]) * scale[j])
                    for first_k in range(k0, k1, exact_run):
                        found = sums[(first_k - k0) // exact_run]
                        q = first_k // block
                        e0, f0, s0, t0 = ea[i, q], eb[q, begin : begin + n], sa[i, q], sb[q, begin : begin + n]
                        for j in range(n):
                            # A scale of zero or NaN has no exponent: its power is anything finite.
                            e = plus(e0, f0[j])
                            power = power_of_two(e if e > np.int32(-1000) else np.int32(0), one)
                            exact[j] += np.trunc(np.float64(found[j]) * (s0 * t0[j]) * power * scale[j])
                    for j in range(n):
                        value = exact[j] * power_of_two(plus(largest[j], np.int32(-bits)), one)
                        if how != TRUNCATED:
                            if mode == STOCHASTIC:
                                word = start_word + np.uint64(j) * word_step + done
                                chance = random_bits(key, word) & np.uint64(RANDOM_MASK)
                            value = round_element(value, chance, p, mode, GENERAL)
                        else:
                            value = cut(value, kept, normal, up, down)
                        total[j] = narrow(value, zero)
                    done += np.uint64(1)
                if interval > 0:
                    for j in range(n):
                        stored[j] = add(stored[j], total[j], np.uint64(0), w, 0, wide_how)

    return run
