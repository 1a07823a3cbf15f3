"""One multiply-accumulate as an accumulator computes it (numba), for kernels that step through them."""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics._product_kernels import SOURCE, _call, multiply_add

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
