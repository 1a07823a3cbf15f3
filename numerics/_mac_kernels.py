"""One multiply-accumulate as an accumulator computes it (numba), for kernels that step through them."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics import _product_kernels
from numerics._product_kernels import _call, multiply_add

SOURCE = zlib.crc32(
    b"".join(Path(str(file)).read_bytes() for file in (__file__, _product_kernels.__file__)), _product_kernels.SOURCE
)
"""A closure's constants are part of the key in numba's cache: kernels compiled with other sources are not found."""

WRAP, SATURATE = 10, 11
"""Ways to round, beside those of ``numerics._product_kernels``, for integers: ``mode`` holds the bits of the sum."""


@intrinsic(prefer_literal=True)
def mac(typing_context: Any, total: Any, a: Any, b: Any, p: Any, q: Any, mode: Any, how: Any, by: Any) -> Any:
    """total + a · b of one type, rounded, wrapped or clipped; ``mode``, ``how`` and ``by`` are compile-time constants."""
    if not all(isinstance(x, types.Literal) for x in (mode, how, by)) or not (total == a == b):
        return None

    def floats(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        s, x, y, packed, packed_product, *_ = arguments
        chance = ir.Constant(ir.IntType(64), 0)
        inner = total(total, a, b, types.uint64, p, q, mode, how, by)
        return _call(context, builder, multiply_add, inner, (s, x, y, chance, packed, packed_product, None, None, None))

    def integers(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        s, x, y, *_ = arguments
        exact = builder.add(s, builder.mul(x, y))
        kind, bits = exact.type, mode.literal_value
        if how.literal_value == SATURATE:
            low, high = ir.Constant(kind, -(1 << (bits - 1))), ir.Constant(kind, (1 << (bits - 1)) - 1)
            exact = builder.select(builder.icmp_signed("<", exact, low), low, exact)
            return builder.select(builder.icmp_signed(">", exact, high), high, exact)
        if bits == kind.width:
            return exact
        spare = ir.Constant(kind, kind.width - bits)
        return builder.ashr(builder.shl(exact, spare), spare)

    return total(total, a, b, p, q, mode, how, by), floats if isinstance(total, types.Float) else integers


@cache
def elementwise(mode, how, by, source=SOURCE):
    """The kernel for the elements ``first`` to ``last`` of flat arrays of one type: ``total += a · b``."""

    @njit(nogil=True, cache=True)
    def run(total, a, b, first, last, p, q):
        version = source  # part of the cache's key
        for i in range(first + version - version, last):
            total[i] = mac(total[i], a[i], b[i], p, q, mode, how, by)

    return run


# --- the bits in which a register holds a sum -------------------------------------------------------------------------------

INTEGER_BITS, SINGLE_BITS, FLOAT_BITS = range(3)
"""Kinds of layouts: two's complement; the bits of a 32-bit float; a float format in 64-bit floats."""


@intrinsic
def ones(typing_context: Any, x: Any) -> Any:
    """How many bits of an unsigned integer are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return x(x), generate


@intrinsic
def bits_of(typing_context: Any, x: Any) -> Any:
    """The bits of a float, or of a signed integer, as an unsigned integer of its width."""
    unsigned = {32: types.uint32, 64: types.uint64}[x.bitwidth]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(x.bitwidth))

    return unsigned(x), generate


@intrinsic
def from_bits(typing_context: Any, bits: Any, like: Any) -> Any:
    """The value of the type of ``like`` that has these bits (the lowest ones, where it is narrower)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.IntType(like.bitwidth)
        word = builder.trunc(arguments[0], kind) if bits.bitwidth > like.bitwidth else arguments[0]
        return builder.bitcast(word, context.get_value_type(like))

    return like(bits, like), generate


@njit(cache=True, nogil=True, inline="always")
def sum_code(x, kind, bits, mantissa_bits, bias):
    """The code of a sum that its format holds exactly, in the lowest ``bits`` bits of an unsigned integer.

    Formats with Inf are IEEE's; in the others NaN is the largest code.
    """
    if kind == INTEGER_BITS:
        return bits_of(x) & from_bits(np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - bits), bits_of(x))
    if kind == SINGLE_BITS:
        # Processors differ in the NaN they make.
        return bits_of(x) if x == x else from_bits(np.uint64(0x7FC00000), bits_of(x))
    word = bits_of(x)
    sign = (word >> np.uint64(63)) << np.uint64(bits - 1)
    exponent = np.int64((word >> np.uint64(52)) & np.uint64(2047))
    fraction = word & np.uint64((1 << 52) - 1)
    if exponent == 2047:
        top = np.uint64((1 << (bits - 1)) - 1)
        return sign | (top if fraction else (top >> np.uint64(mantissa_bits)) << np.uint64(mantissa_bits))
    if exponent == 0:
        return sign
    place = exponent - 1023 + bias
    if place >= 1:
        return sign | (np.uint64(place) << np.uint64(mantissa_bits)) | (fraction >> np.uint64(52 - mantissa_bits))
    whole = fraction | np.uint64(1 << 52)
    return sign | (whole >> np.uint64(min(53 - mantissa_bits - place, 63)))


@njit(cache=True, nogil=True)
def sum_value(code, like, kind, bits, mantissa_bits, bias, has_inf, has_nan):
    """The sum of a code, of the type of ``like``: the inverse of ``sum_code``."""
    if kind == INTEGER_BITS:
        spare = np.int64(64 - bits)
        return type_as((np.int64(code) << spare) >> spare, like)
    if kind == SINGLE_BITS:
        return from_bits(np.uint64(code), like)
    magnitude = np.int64(code & np.uint64((1 << (bits - 1)) - 1))
    exponent, fraction = magnitude >> mantissa_bits, magnitude & ((1 << mantissa_bits) - 1)
    top = (1 << (bits - 1 - mantissa_bits)) - 1
    if has_inf and exponent == top:
        value = np.nan if fraction else np.inf
    elif has_nan and not has_inf and magnitude == (1 << (bits - 1)) - 1:
        value = np.nan
    elif exponent == 0:
        value = np.float64(fraction) * 2.0 ** (1 - bias - mantissa_bits)
    else:
        value = (1.0 + fraction * 2.0**-mantissa_bits) * 2.0 ** (exponent - bias)
    return type_as(-value if code >> np.uint64(bits - 1) else value, like)


@intrinsic
def type_as(typing_context: Any, x: Any, like: Any) -> Any:
    """A number as the type of ``like``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], x, like)

    return like(x, like), generate
