"""Sums of products in which every addition is rounded (numba): one after the other, in trees, in chunks, compensated.

A sum of two floats is formed rounded to odd, from the float adder and its exact error (TwoSum: Knuth, TAOCP 2, section 4.2.2,
theorem B); rounding that once more to the accumulator's format is as good as rounding the exact sum (Boldo, Melquiond, IEEE
Transactions on Computers 57(4), 2008). Columns of the result lie side by side in vector lanes, of 32 bits where products fit.

Numba's cache watches the file of the compiled function only; ``SOURCE`` brings the file that defines rounding into its key.
"""

from __future__ import annotations

import math
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics import _kernels
from numerics._kernels import GENERAL, STOCHASTIC, _fields, _round, _Word, random_bits, round_element

SOURCE = zlib.crc32(Path(_kernels.__file__).read_bytes())
"""A closure's constants are part of the key in numba's cache: kernels compiled with another ``_kernels.py`` are not found."""

# How a sum is rounded: as ``_kernels`` does in its general and short ways (0, 1, 2), and
NATIVE = 3  # the float adder itself: fp32 in 32-bit lanes, fp64 in 64-bit lanes
CASTING = 4  # fp32 in 64-bit lanes: by the conversion
EXACT = 5  # a product that is not rounded at all
FAST_SHIFT = 6  # nearest even in 32-bit lanes, for formats with the exponents of fp32 and Inf beyond the largest
FAST_ADD = 7  # nearest even in 32-bit lanes, for formats with fewer exponents and Inf beyond the largest
FAST_CUT = 8  # toward zero in 32-bit lanes, for formats with the exponents of fp32

SEQUENTIAL, SYSTOLIC, TREE, COMPENSATED = range(4)
"""Orders: pairwise is a tree of all products."""

LEVELS = 48
"""Buffers of partial sums that a tree may need."""

RANDOM_MASK = 0xFFFFFF00
"""Stochastic rounding compares 24 bits, as many as a sum rounded to odd still has right for fp32."""


def _to_odd(builder: Any, value: Any, error: Any, width: int) -> Any:
    """``value`` = the nearest float to ``value + error``, whose last bit becomes sticky."""
    kind = ir.IntType(width)
    bits, error_bits = builder.bitcast(value, kind), builder.bitcast(error, kind)
    one = ir.Constant(kind, 1)
    # −1 where the exact value is nearer to zero, else +1.
    step = builder.or_(builder.ashr(builder.xor(bits, error_bits), ir.Constant(kind, width - 1)), one)
    even = builder.icmp_unsigned("==", builder.and_(bits, one), ir.Constant(kind, 0))
    # Ordered: the error of an Inf or NaN is NaN, and is none.
    inexact = builder.fcmp_ordered("!=", error, ir.Constant(error.type, 0.0))
    moved = builder.select(builder.and_(inexact, even), step, ir.Constant(kind, 0))
    return builder.bitcast(builder.add(bits, moved), value.type)


def _finish(builder: Any, value: Any, error: Any, chance: Any, packed: Any, mode: int, how: int, width: int) -> Any:
    """``value + error``, the nearest float and what it lacks, rounded once to the format. NaN must be the default one in the fast
    ways: they add to its bits."""
    if how == FAST_SHIFT:
        return _fast_shift(builder, value, error, _fields(builder, packed))
    odd = _to_odd(builder, value, error, width)
    if how == CASTING:
        return builder.fpext(builder.fptrunc(odd, ir.FloatType()), ir.DoubleType())
    if how == FAST_ADD:
        return _fast_add(builder, odd, _fields(builder, packed))
    if how == FAST_CUT:
        bits = _Word(builder, builder.bitcast(odd, ir.IntType(32)))
        return (bits & (0 - ((bits * 0 + 1) << _fields(builder, packed)[_kernels.SHIFT]))).as_float()
    result, sign = _round(builder, odd, chance, _fields(builder, packed), mode, how, width)
    return (result | sign).as_float()


def _fast_shift(builder: Any, value: Any, error: Any, p: Any) -> Any:
    """Half a step less one is added to the bits, and one more where a tie goes up: to the even neighbour, or as the error says.

    Only a tie is changed by that one.
    """
    kind = ir.IntType(32)
    bits = _Word(builder, builder.bitcast(value, kind))
    away = ((bits ^ _Word(builder, builder.bitcast(error, kind))) ^ 0xFFFFFFFF) >> 31
    inexact = _Word(builder, builder.fcmp_ordered("!=", error, ir.Constant(error.type, 0.0)))
    up = inexact.where(away, (bits >> p[_kernels.SHIFT]) & 1)
    step = (bits * 0 + 1) << p[_kernels.SHIFT]
    return ((bits + ((step >> 1) - 1) + up) & (0 - step)).as_float()


def _fast_add(builder: Any, odd: Any, p: Any) -> Any:
    """x + m − m, where m = 1.5 · 2^k has its last bit where the format has its own: the float adder rounds."""
    kind = ir.IntType(32)
    bits = _Word(builder, builder.bitcast(odd, kind))
    magnitude = bits & 0x7FFFFFFF
    exponent = magnitude & (255 << 23)
    lowest, highest = p[_kernels.EMIN] << 23, p[_kernels.CLAMP]
    exponent = (exponent > lowest).where(exponent, lowest)
    exponent = (exponent < highest).where(exponent, highest)
    magic = (exponent + ((p[_kernels.SHIFT] << 23) + (1 << 22))).as_float()
    rounded = _Word(builder, builder.bitcast(builder.fsub(builder.fadd(odd, magic), magic), kind)) & 0x7FFFFFFF
    # An Inf or NaN is above the largest as well, and stays what it is.
    over = (magnitude > 0x7F800000).where(magnitude, bits * 0 + 0x7F800000)
    return ((rounded > p[_kernels.LARGEST]).where(over, rounded) | (bits & 0x80000000)).as_float()


def _largest_instead(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """The largest float instead of an Inf that is the sum of finite floats: a directed rounding does not reach it."""
    kind = ir.IntType(32)
    bits, first, second = (_Word(builder, builder.bitcast(v, kind)) for v in (total, x, y))
    first, second = first & 0x7FFFFFFF, second & 0x7FFFFFFF
    finite = (first > second).where(first, second) < 0x7F800000
    overflown = ((bits & 0x7FFFFFFF) == 0x7F800000) & finite
    return overflown.where(bits - 1, bits).as_float()


@intrinsic(prefer_literal=True)
def add(typing_context: Any, a: Any, b: Any, chance: Any, p: Any, mode: Any, how: Any) -> Any:
    """a + b, rounded once to a format; ``mode`` and ``how`` are compile-time constants."""
    if not isinstance(mode, types.Literal) or not isinstance(how, types.Literal) or a != b:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, random, packed, _, _ = arguments
        total = builder.fadd(x, y)
        if how.literal_value == NATIVE:
            return total
        back = builder.fsub(total, x)
        error = builder.fadd(builder.fsub(x, builder.fsub(total, back)), builder.fsub(y, back))
        if how.literal_value in (GENERAL, FAST_CUT) and a.bitwidth == 32:
            # The error of an Inf is NaN, which counts for none.
            total = _largest_instead(builder, total, x, y)
        return _finish(builder, total, error, random, packed, mode.literal_value, how.literal_value, a.bitwidth)

    return a(a, b, chance, p, mode, how), generate


@intrinsic(prefer_literal=True)
def multiply(typing_context: Any, a: Any, b: Any, p: Any, how: Any) -> Any:
    """a · b: exact in the lane (``EXACT``), or rounded once, to nearest even, to a format (in 32-bit lanes it must be exact)."""
    if not isinstance(how, types.Literal) or a != b:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, packed, _ = arguments
        product = builder.fmul(x, y)
        if how.literal_value == EXACT:
            return product
        error = ir.Constant(product.type, 0.0)
        if a.bitwidth == 64:
            error = builder.fma(x, y, builder.fneg(product))
        zero = ir.Constant(ir.IntType(64), 0)
        return _finish(builder, product, error, zero, packed, _kernels.NEAREST_EVEN, how.literal_value, a.bitwidth)

    return a(a, b, p, how), generate


@intrinsic(prefer_literal=True)
def multiply_add(
    typing_context: Any, total: Any, a: Any, b: Any, chance: Any, p: Any, q: Any, mode: Any, how: Any, by: Any
) -> Any:
    """total + a · b: the product exact or rounded as ``by`` says, the sum rounded once to a format."""
    if not all(isinstance(x, types.Literal) for x in (mode, how, by)) or not (total == a == b):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        s, x, y, random, packed, packed_product, *_ = arguments
        if how.literal_value == NATIVE and by.literal_value == EXACT:
            # Right even where the product does not fit the lane.
            return builder.fma(x, y, s)
        product = _call(context, builder, multiply, total(a, b, q, by), (x, y, packed_product, None))
        return _call(context, builder, add, total(total, total, chance, p, mode, how), (s, product, random, packed, None, None))

    return total(total, a, b, chance, p, q, mode, how, by), generate


def _call(context: Any, builder: Any, function: Any, signature: Any, arguments: tuple[Any, ...]) -> Any:
    """Code of another intrinsic in place."""
    _, generate = function._defn(context.typing_context, *signature.args)
    return generate(context, builder, signature, arguments)


@intrinsic
def narrow(typing_context: Any, x: Any, like: Any) -> Any:
    """A float as the type of ``like``, in which it is exact."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if x.bitwidth == like.bitwidth:
            return arguments[0]
        if x.bitwidth > like.bitwidth:
            return builder.fptrunc(arguments[0], ir.FloatType())
        return builder.fpext(arguments[0], ir.DoubleType())

    return like(x, like), generate


@cache
def chain(mode, how, by, wide_how, source=SOURCE):
    """The kernel for a rounding mode, how sums, products and promoted sums are rounded. Compiled for each."""

    @njit(nogil=True, cache=True)
    def run(a, b, out, first, last, columns, order, group, interval, p, q, w, key, row_step, column_step, offset, steps):
        """Units ``first`` to ``last`` of ``out += a @ b``; a unit is ``columns`` columns of one row, and rows run fastest.

        Args:
            a, b, out: arrays (M, K), (K, N), (M, N) of one float type; ``out`` holds the initial values.
            order: ``SEQUENTIAL``, ``SYSTOLIC``, ``TREE`` or ``COMPENSATED``.
            group: products in a group.
            interval: products between promotions; 0 for none.
            p, q, w: parameters of the sum, the product and the promoted sum.
            key: of the random stream; rounding ``n`` (0 … steps − 1) of output (i, j) draws word
                ``(offset + i · row_step + j · column_step) · steps + n``.
        """
        version = source  # part of the cache's key
        rows, depth, width = a.shape[0], a.shape[1], b.shape[1]
        short = np.empty(columns, a.dtype)
        chunk = np.empty(columns, a.dtype)
        lost = np.empty(columns, a.dtype)
        stack = np.empty((LEVELS if order == TREE else 1, columns), a.dtype)
        size = np.empty(LEVELS, np.int64)
        zero = a.dtype.type(0.0)
        chance = np.uint64(0)
        for unit in range(first, last):
            i = unit % rows
            begin = (unit // rows) * columns
            n = min(columns, width - begin)
            left = a[i]
            stored = out[i, begin : begin + n]
            start_word = np.uint64(offset + i * row_step + begin * column_step) * np.uint64(steps)
            word_step = np.uint64(column_step) * np.uint64(steps)
            done = np.uint64(version - version)
            span = interval if interval > 0 else max(depth, 1)
            for low in range(0, depth, span):
                high = min(low + span, depth)
                total = stored
                if interval > 0:
                    total = short[:n]
                    for j in range(n):
                        total[j] = zero
                if order == COMPENSATED:
                    for j in range(n):
                        lost[j] = zero
                    for k in range(low, high):
                        x, right = left[k], b[k, begin : begin + n]
                        for j in range(n):
                            y = add(multiply(x, right[j], q, by), -lost[j], chance, p, mode, how)
                            t = add(total[j], y, chance, p, mode, how)
                            u = add(t, -total[j], chance, p, mode, how)
                            # Kahan's difference is zero once the sum is infinite.
                            lost[j] = add(u, -y, chance, p, mode, how) if np.isfinite(t) else zero
                            total[j] = t
                    continue
                part = group if order != SEQUENTIAL else high - low
                for begin_group in range(low, high, part):
                    end_group = min(begin_group + part, high)
                    if order == TREE:
                        top = 0
                        for k in range(begin_group, end_group, 2):
                            x, right = left[k], b[k, begin : begin + n]
                            leaf = stack[top]
                            if k + 1 < end_group:
                                x2, right2 = left[k + 1], b[k + 1, begin : begin + n]
                                for j in range(n):
                                    if mode == STOCHASTIC:
                                        word = start_word + np.uint64(j) * word_step + done
                                        chance = random_bits(key, word) & np.uint64(RANDOM_MASK)
                                    leaf[j] = multiply_add(
                                        multiply(x, right[j], q, by), x2, right2[j], chance, p, q, mode, how, by
                                    )
                                done += np.uint64(1)
                                size[top] = 2
                            else:
                                for j in range(n):
                                    leaf[j] = multiply(x, right[j], q, by)
                                size[top] = 1
                            top += 1
                            final = k + 2 >= end_group
                            while top > 1 and (size[top - 2] == size[top - 1] or final):
                                upper, lower = stack[top - 2], stack[top - 1]
                                for j in range(n):
                                    if mode == STOCHASTIC:
                                        word = start_word + np.uint64(j) * word_step + done
                                        chance = random_bits(key, word) & np.uint64(RANDOM_MASK)
                                    upper[j] = add(upper[j], lower[j], chance, p, mode, how)
                                done += np.uint64(1)
                                size[top - 2] += size[top - 1]
                                top -= 1
                        addend = stack[0]
                    else:
                        addend = chunk
                        running = total
                        if order == SYSTOLIC:
                            running = chunk[:n]
                            for j in range(n):
                                running[j] = zero
                        k = begin_group
                        while how == NATIVE and k + 4 <= end_group:
                            x0, x1, x2, x3 = left[k], left[k + 1], left[k + 2], left[k + 3]
                            r0, r1 = b[k, begin : begin + n], b[k + 1, begin : begin + n]
                            r2, r3 = b[k + 2, begin : begin + n], b[k + 3, begin : begin + n]
                            for j in range(n):
                                t = running[j]
                                t = multiply_add(t, x0, r0[j], chance, p, q, mode, how, by)
                                t = multiply_add(t, x1, r1[j], chance, p, q, mode, how, by)
                                t = multiply_add(t, x2, r2[j], chance, p, q, mode, how, by)
                                running[j] = multiply_add(t, x3, r3[j], chance, p, q, mode, how, by)
                            k += 4
                        # Longer chains leave too few independent columns in flight.
                        while how != NATIVE and mode != STOCHASTIC and k + 2 <= end_group:
                            x0, x1 = left[k], left[k + 1]
                            r0, r1 = b[k, begin : begin + n], b[k + 1, begin : begin + n]
                            for j in range(n):
                                t = multiply_add(running[j], x0, r0[j], chance, p, q, mode, how, by)
                                running[j] = multiply_add(t, x1, r1[j], chance, p, q, mode, how, by)
                            k += 2
                        while k < end_group:
                            x, right = left[k], b[k, begin : begin + n]
                            for j in range(n):
                                if mode == STOCHASTIC:
                                    word = start_word + np.uint64(j) * word_step + done
                                    chance = random_bits(key, word) & np.uint64(RANDOM_MASK)
                                running[j] = multiply_add(running[j], x, right[j], chance, p, q, mode, how, by)
                            done += np.uint64(1)
                            k += 1
                    if order != SEQUENTIAL:
                        for j in range(n):
                            if mode == STOCHASTIC:
                                word = start_word + np.uint64(j) * word_step + done
                                chance = random_bits(key, word) & np.uint64(RANDOM_MASK)
                            total[j] = add(total[j], addend[j], chance, p, mode, how)
                        done += np.uint64(1)
                if interval > 0:
                    for j in range(n):
                        stored[j] = add(stored[j], total[j], np.uint64(0), w, 0, wide_how)

    return run


@njit(nogil=True, cache=True)
def saturating_chain(a, b, out, first, last, order, group, low, high):
    """Rows ``first`` to ``last`` of ``out += a @ b`` in 64-bit integers, clipped to ``low`` … ``high`` at every addition.

    Orders as for ``chain``; the products fit 62 bits.
    """
    depth, width = a.shape[1], b.shape[1]
    values = np.empty(LEVELS, np.int64)
    size = np.empty(LEVELS, np.int64)
    for i in range(first, last):
        for j in range(width):
            total = out[i, j]
            part = group if order != SEQUENTIAL else max(depth, 1)
            for begin in range(0, depth, part):
                end = min(begin + part, depth)
                addend = np.int64(0)
                if order == TREE:
                    top = 0
                    for k in range(begin, end):
                        values[top], size[top] = a[i, k] * b[k, j], 1
                        top += 1
                        while top > 1 and (size[top - 2] == size[top - 1] or k + 1 == end):
                            values[top - 2] = min(max(values[top - 2] + values[top - 1], low), high)
                            size[top - 2] += size[top - 1]
                            top -= 1
                    addend = values[0]
                elif order == SYSTOLIC:
                    for k in range(begin, end):
                        addend = min(max(addend + a[i, k] * b[k, j], low), high)
                else:
                    for k in range(begin, end):
                        total = min(max(total + a[i, k] * b[k, j], low), high)
                total = min(max(total + addend, low), high)
            out[i, j] = total


@njit(nogil=True, cache=True)
def wrapping_chain(a, b, out, first, last):
    """Rows of ``out += a @ b`` in 64-bit integers, modulo 2^64: the order is of no account."""
    for i in range(first, last):
        row = out[i]
        for k in range(a.shape[1]):
            x, right = a[i, k], b[k]
            for j in range(row.shape[0]):
                row[j] += x * right[j]


@njit(nogil=True, cache=True)
def exact_chain(a, b, out, first, last, lowest, limbs):
    """Rows ``first`` to ``last`` of ``out += a @ b`` summed exactly, then rounded to odd to a 64-bit float.

    Sums are integers of ``limbs`` digits of 32 bits, in units of 2^lowest (Kulisch's accumulator); products are exact in 64-bit
    floats and multiples of that unit.
    """
    digits = np.empty(limbs, np.int64)
    mask = np.int64(0xFFFFFFFF)
    for i in range(first, last):
        for j in range(b.shape[1]):
            digits[:] = 0
            special = 0.0
            since = 0
            for k in range(-1, a.shape[1]):
                x = out[i, j] if k < 0 else a[i, k] * b[k, j]
                if not np.isfinite(x):
                    special += x
                    continue
                if x == 0.0:
                    continue
                fraction, exponent = math.frexp(abs(x))
                integer = np.int64(fraction * 9007199254740992.0)
                place = exponent - 53 - lowest
                if place < 0:  # the bits below the unit are zero
                    integer >>= -place
                    place = 0
                digit, shift = place // 32, place % 32
                sign = np.int64(1) if x > 0 else np.int64(-1)
                # At most 53 + 31 bits, in three digits.
                lower = (integer & mask) << shift
                upper = (integer >> np.int64(32)) << shift
                digits[digit] += sign * (lower & mask)
                digits[digit + 1] += sign * ((lower >> np.int64(32)) + (upper & mask))
                digits[digit + 2] += sign * (upper >> np.int64(32))
                since += 1
                if since == 1 << 29:
                    since = 0
                    for d in range(limbs - 1):
                        digits[d + 1] += digits[d] >> np.int64(32)
                        digits[d] &= mask
            if special != 0.0:
                out[i, j] = special
                continue
            for d in range(limbs - 1):
                digits[d + 1] += digits[d] >> np.int64(32)
                digits[d] &= mask
            negative = digits[limbs - 1] < 0
            if negative:
                for d in range(limbs):
                    digits[d] = -digits[d]
                for d in range(limbs - 1):
                    digits[d + 1] += digits[d] >> np.int64(32)
                    digits[d] &= mask
            top = limbs - 1
            while top > 0 and digits[top] == 0:
                top -= 1
            # The leading digits, 53 bits at least, with a sticky bit for the rest.
            value = np.uint64(digits[top])
            below = top
            while below > 0 and value < np.uint64(1 << 31):
                below -= 1
                value = (value << np.uint64(32)) | np.uint64(digits[below])
            rest = np.uint64(0)
            spare = 0
            if below > 0:
                while value < np.uint64(1 << 62):
                    value <<= np.uint64(1)
                    spare += 1
                value |= np.uint64(digits[below - 1]) >> np.uint64(32 - spare)
                rest = np.uint64(digits[below - 1]) & ((np.uint64(1) << np.uint64(32 - spare)) - np.uint64(1))
                for d in range(below - 1):
                    rest |= np.uint64(digits[d])
            while value >= np.uint64(1 << 53):
                rest |= value & np.uint64(1)
                value >>= np.uint64(1)
                spare -= 1
            if rest != np.uint64(0):
                value |= np.uint64(1)
            exponent = lowest + 32 * below - spare
            result = np.float64(value)
            while exponent < -1000:
                result *= 2.0**-60
                exponent += 60
            result *= 2.0**exponent
            out[i, j] = -result if negative else result


@cache
def rounder(mode, source=SOURCE):
    """The kernel that rounds sums, 64-bit floats rounded to odd, to a format."""

    @njit(nogil=True, cache=True)
    def run(sums, p, key):
        """``sums`` (flat) in place; ``p``: parameters, 64 bits; element i draws word i of the random stream."""
        version = source  # part of the cache's key
        chance = np.uint64(version - version)
        for i in range(sums.size):
            if mode == STOCHASTIC:
                chance = random_bits(key, np.uint64(i)) & np.uint64(RANDOM_MASK)
            sums[i] = round_element(sums[i], chance, p, mode, GENERAL)

    return run
