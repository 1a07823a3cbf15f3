"""Fused sums of products: operands as the kernels of the tensor cores' arithmetic take them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics import _fused_kernels as kernels
from numerics import _product_operands as operands
from numerics._arrays import plan
from numerics._kernels import BY_ADDING
from numerics._parallel import run_parts
from numerics._product_kernels import FAST_ADD
from numerics._product_plan import COLUMNS, parameters
from numerics.formats import FloatFormat, get_format
from numerics.rounding import ROUNDINGS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerics._product_operands import Extent, Operand
    from numerics._product_plan import Product, Stream


def run_fused(product: Product, x: NDArray[Any], y: NDArray[Any], result: NDArray[Any], stream: Stream, turned: bool) -> None:
    """``result += x @ y`` of two contiguous matrices; ``turned``: x is the transposed right operand, y the left one."""
    accumulator = product.accumulator
    fmt = get_format(accumulator.format)
    assert isinstance(fmt, FloatFormat)
    assert accumulator.group is not None
    assert accumulator.fraction_bits is not None
    group, bits = accumulator.group, accumulator.fraction_bits
    cut = (
        accumulator.rounding == "toward_zero" and accumulator.overflow == "infinity" and fmt.specials == "ieee" and fmt.subnormals
    )
    cut = cut and fmt.emax == 127 and fmt.emin == -126
    how = kernels.TRUNCATED if cut else kernels.GENERAL
    if not cut and accumulator.rounding == "nearest_even" and accumulator.overflow != "saturate" and _adds_in_lane(fmt):
        how = FAST_ADD
    # The truncating way is one for every mode.
    mode = 0 if cut else ROUNDINGS[accumulator.rounding]
    p = parameters(fmt, accumulator.rounding, 64, accumulator.overflow)
    kept = np.uint64((1 << 64) - (1 << (52 - fmt.mantissa_bits)))
    step = fmt.smallest_subnormal
    cutting = (kept, fmt.smallest_normal, 1 / step, step)
    interval, wide_how, w = product.promotion()
    key, steps = np.uint64(product.key), -(-x.shape[1] // group) + 1
    tail = (interval, bits, fmt.emin, p, cutting, w, key, stream.row, stream.column, stream.offset, steps)
    left, right = (product.right, product.left) if turned else (product.left, product.right)
    if accumulator.exact_run > 1:
        assert accumulator.scale is not None
        scale_format = get_format(accumulator.scale)
        assert isinstance(scale_format, FloatFormat)
        sx, ex = _scale_parts(left, scale_format, turned)
        sy, ey = _scale_parts(right, scale_format, turned)
        scaled = kernels.scaled_chain(mode, how, wide_how)
        run, block = accumulator.exact_run, accumulator.scale_block
        a, b = x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)

        def blocks(first: int, last: int) -> None:
            scaled(a, sx, ex, b, sy, ey, result, first, last, COLUMNS, group, run, block, *tail)

        product.over_units(blocks, x, y)
        return
    u, eu = _aligned(x, left, turned, 1)
    v, ev = _aligned(y, right, turned, 0)
    bounds = _bounds(u, left, product, turned), _bounds(v, right, product, not turned)
    narrow = u.dtype == v.dtype == np.float32 and _fits_lane(*bounds, bits)
    if not narrow:
        u, v = u.astype(np.float64), v.astype(np.float64)
    odd_rows, odd_columns = ~np.isfinite(u).all(axis=1), ~np.isfinite(v).all(axis=0)
    special = bool(odd_rows.any() or odd_columns.any())
    initial = result.copy() if special else result
    a, b = (np.where(np.isfinite(u), u, 0), np.where(np.isfinite(v), v, 0)) if special else (u, v)
    part = _part(left, right, group, bits)
    narrow_p = parameters(fmt, accumulator.rounding, 32, accumulator.overflow) if product.lane == 32 else (np.uint32(0),) * 17
    if product.lane == 32 and fmt.mantissa_bits >= 23:
        narrow_p = (np.uint32(0),) * 17
    chain = kernels.fused_chain(mode, how, wide_how)

    def groups(first: int, last: int) -> None:
        chain(a, eu, b, ev, result, first, last, COLUMNS, group, part, narrow_p, *tail)

    product.over_units(groups, x, y)
    if special:
        mend = kernels.special_chain(mode, how, wide_how)

        def elements(first: int, last: int) -> None:
            mend(u, eu, v, ev, initial, result, first, last, odd_rows, odd_columns, group, *tail)

        run_parts(elements, x.shape[0], smallest=16)


def _adds_in_lane(fmt: FloatFormat) -> bool:
    """Whether 32-bit floats with a sticky bit are rounded to the format by an addition."""
    return fmt.has_inf and fmt.mantissa_bits <= 21 and plan(fmt, "nearest_even", None, 32).how == BY_ADDING


def _part(left: Operand, right: Operand, group: int, bits: int) -> int:
    """How many aligned products add up in 32 bits: half a group (in fours) if so many and a stored sum do."""
    # Significands are below 2, or at most 2 − 2^−mantissa.
    most = 1.0
    for operand in (left, right):
        most *= 2 - (0.0 if operand.format is None else operand.format.eps)
    unit = 2.0**bits
    half = -(-group // 8) * 4
    if half * most * unit + 2 * unit < 2.0**31 and group * most * unit + 2 * unit < 2.0**32:
        return half
    return max(1, min(group, int((2.0**31 - 1) / (most * unit)))) if 4 * unit < 2.0**31 else 1


def _aligned(values: NDArray[Any], operand: Operand, turned: bool, axis: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Values with their scales (powers of two), and exponents: those of the format plus those of the scales.

    Args:
        values: a matrix, K along ``axis``.
    """
    emin = -1022 if operand.format is None else operand.format.emin
    if operand.format is None and values.dtype == np.float32:
        emin = -149  # any value: its own exponent
    found = operands.exponents(values, emin, kernels.NO_EXPONENT)
    if operand.format is None:
        _normalise(values, found)
    if operand.scales is None:
        return values, found
    scales = operand.scales.T if turned else operand.scales
    spread = np.repeat(scales, values.shape[axis] // scales.shape[axis], axis=axis)
    found = np.where(found == kernels.NO_EXPONENT, found, found + operands.exponents(spread, -1022, 0))
    wide = values * spread
    with np.errstate(over="ignore"):
        short = wide.astype(np.float32)
    return (short if np.array_equal(short, wide, equal_nan=True) else wide), found.astype(np.int32)


def _normalise(values: NDArray[Any], found: NDArray[np.int32]) -> None:
    """Exponents of subnormal floats, as if the float had no smallest exponent."""
    tiny = np.finfo(values.dtype).smallest_normal
    small = (values != 0) & (np.abs(values) < tiny)
    if small.any():
        found[small] = np.frexp(values[small])[1] - 1


def _bounds(values: NDArray[Any], operand: Operand, product: Product, second: bool) -> Extent:
    """Bounds on an operand with its scales; ``low`` is its smallest exponent in its format."""
    bounds = operands.extent(values) if operand.scales is not None else product.b if second else product.a
    if operand.format is None or operand.scales is not None or bounds.bits == 0:
        return bounds
    # Nothing has more bits than the format, and a subnormal's lie at its smallest exponent.
    low = max(bounds.low, operand.format.emin)
    bits = min(bounds.bits + low - bounds.low, operand.format.mantissa_bits + 1)
    return replace(bounds, low=low, bits=bits, high=max(bounds.high, low))


def _fits_lane(a: Extent, b: Extent, bits: int) -> bool:
    """Whether products are exact in 32-bit floats and so are the powers of two that align them."""
    if a.bits == 0 or b.bits == 0:
        return True
    return bits <= 29 and a.bits + b.bits <= 24 and a.high + b.high <= 124 and a.low + b.low >= bits - 100


def _scale_parts(operand: Operand, fmt: FloatFormat, turned: bool) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Significands and exponents of scales; a subnormal one keeps its format's smallest exponent."""
    assert operand.scales is not None
    scales = np.ascontiguousarray(operand.scales.T if turned else operand.scales)
    found = operands.exponents(scales, fmt.emin, kernels.NO_EXPONENT)
    return np.where(found == kernels.NO_EXPONENT, scales, np.ldexp(scales, -np.maximum(found, -1022))), found
