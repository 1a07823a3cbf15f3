"""A checked sum of products: the lane and the kernel that compute what an accumulator says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics import _product_operands as operands
from numerics.accumulator import Accumulator
from numerics.errors import InputError
from numerics.formats import FloatFormat, IntFormat, get_format
from numerics.quantizer import stream_key
from numerics.rounding import ROUNDINGS, fits_lane, float_bits, float_parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerics._product_operands import Extent, Operand

COLUMNS = 512
"""Columns of the result that a kernel works on at a time: its buffers stay in the first-level cache."""

PART = 1 << 18
"""Multiplications below which another thread costs more than it saves."""


@dataclass(frozen=True)
class Stream:
    """Where the random words of a part of the result lie: output (i, j) has number ``offset + i · row + j · column``."""

    row: int
    column: int
    offset: int

    @property
    def turned(self) -> Stream:
        """The same for the transposed part."""
        return Stream(self.column, self.row, self.offset)


@dataclass(frozen=True)
class Product:
    """A checked sum of products.

    Attributes:
        accumulator: how it is computed.
        left, right: operands as given.
        a, b: bounds on their values.
        lane: bits of the floats that sums are kept in; 64 for integers.
        how: way to round sums (of ``numerics._product_kernels``); None where the kernel is another.
        key: of the random stream.
    """

    accumulator: Accumulator
    left: Operand
    right: Operand
    a: Extent
    b: Extent
    lane: int
    how: int | None
    key: int

    @classmethod
    def plan(
        cls, accumulator: Accumulator, left: Operand, right: Operand, seed: Any, fields: tuple[str, str] = ("a", "b")
    ) -> Product:
        """Choose the lane and check the operands, which errors call ``fields``.

        Raises:
            InputError: a seed missing or not needed, products that are not exact, operands that are no integers, Inf or NaN where
                the accumulator has no NaN.
        """
        if accumulator.rounding == "stochastic":
            if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 1 << 64:
                raise InputError(f"seed: stochastic rounding needs an integer from 0 to 2^64 − 1, got {seed!r}")
        elif seed is not None:
            raise InputError(f"seed: rounding {accumulator.rounding!r} draws no random bits; leave seed out")
        a, b = operands.extent(left.values), operands.extent(right.values)
        key = stream_key(int(seed)) if seed is not None else 0
        fmt = get_format(accumulator.format)
        if isinstance(fmt, IntFormat):
            _check_integers(left.values, a, fields[0])
            _check_integers(right.values, b, fields[1])
            return cls(accumulator, left, right, a, b, 64, None, key)
        assert isinstance(fmt, FloatFormat)
        for bounds, field in zip((a, b), fields, strict=True):
            if not bounds.finite and not fmt.has_nan:
                raise InputError(
                    f"{field}: holds Inf or NaN, and the accumulator's {fmt.name!r} has no NaN; expected finite numbers"
                )
        if accumulator.order == "fused":
            lane = 32 if fmt.mantissa_bits <= 23 and fmt.emax <= 127 and fmt.emin >= -126 else 64
            if accumulator.promotion is not None and not _is_fp32(get_format(accumulator.promotion.format)):
                lane = 64
            return cls(accumulator, left, right, a, b, lane, None, key)
        lane, how = _way(accumulator, fmt, a, b)
        if accumulator.order == "exact" or not _fused_multiply(accumulator, how):
            rounded = accumulator.product != "exact"
            _check_products(a, b, rounded, fields)
        return cls(accumulator, left, right, a, b, lane, how, key)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the sums."""
        if isinstance(get_format(self.accumulator.format), IntFormat):
            return np.dtype(np.int64)
        return np.dtype(np.float32 if self.lane == 32 else np.float64)

    def start(self, bias: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """The initial values: ``bias`` or zero.

        Raises:
            InputError: a bias that does not broadcast, or that the accumulator cannot hold.
        """
        result = np.zeros(shape, self.dtype)
        if bias is None:
            return result
        values = operands.as_values(bias, "bias")
        try:
            np.broadcast_to(values, shape)
        except ValueError:
            raise InputError(f"bias: expected a shape that broadcasts to {shape}, got {values.shape}") from None
        check_initial(values, self.accumulator, "bias")
        result[...] = values
        return result

    def run(self, x: NDArray[Any], y: NDArray[Any], result: NDArray[Any], stream: Stream) -> None:
        """``result += x @ y`` for two matrices; ``result`` is contiguous."""
        if 0 in (x.shape[0], x.shape[1], y.shape[1]):
            return
        turned = y.shape[1] < 16 and y.shape[1] < x.shape[0]
        target = result
        if turned:
            # Products commute: the longer side lies in the vector lanes.
            x, y, target, stream = y.T, x.T, np.ascontiguousarray(result.T), stream.turned
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        kind = self.accumulator.order
        if isinstance(get_format(self.accumulator.format), IntFormat):
            self._integers(x, y, target)
        elif kind == "exact":
            self._exact(x, y, target)
        elif kind == "fused":
            from numerics._fused import run_fused

            run_fused(self, x, y, target, stream, turned)
        else:
            self._rounded(x, y, target, stream)
        if turned:
            result[...] = target.T

    def _rounded(self, x: NDArray[Any], y: NDArray[Any], result: NDArray[Any], stream: Stream) -> None:
        from numerics import _product_kernels as kernels

        accumulator = self.accumulator
        x, y = (_plain_nans(v, bounds) for v, bounds in ((x, self.a), (y, self.b)))
        _plain_nans(result, None)
        x, y = x.astype(self.dtype, copy=False), y.astype(self.dtype, copy=False)
        depth = x.shape[1]
        order = {"sequential": kernels.SEQUENTIAL, "systolic": kernels.SYSTOLIC}.get(accumulator.order, kernels.TREE)
        if accumulator.compensated:
            order = kernels.COMPENSATED
        group = accumulator.group or depth
        by, q = kernels.EXACT, parameters(None, None, self.lane, None)
        if accumulator.product != "exact":
            way = _product_way(accumulator) if self.lane == 32 else None
            by = kernels.GENERAL if way is None else way
            q = parameters(get_format(accumulator.product), "nearest_even", self.lane, None)
        interval, wide_how, w = self.promotion()
        p = parameters(get_format(accumulator.format), accumulator.rounding, self.lane, accumulator.overflow)
        assert self.how is not None
        kernel = kernels.chain(ROUNDINGS[accumulator.rounding], self.how, by, wide_how)
        key, steps = np.uint64(self.key), 2 * depth + 2

        def work(first: int, last: int) -> None:
            kernel(
                x, y, result, first, last, COLUMNS, order, group, interval, p, q, w, key, stream.row, stream.column,
                stream.offset, steps,
            )  # fmt: skip

        self.over_units(work, x, y)

    def promotion(self) -> tuple[int, int, tuple[Any, ...]]:
        """Interval (0 for none), way to round and parameters of the promoted sum."""
        from numerics import _product_kernels as kernels

        promotion = self.accumulator.promotion
        if promotion is None:
            return 0, kernels.NATIVE, parameters(None, None, self.lane, None)
        fmt = get_format(promotion.format)
        assert isinstance(fmt, FloatFormat)
        native = _is_fp32(fmt) if self.lane == 32 else _is_fp64(fmt)
        how = kernels.NATIVE if native else kernels.CASTING if _is_fp32(fmt) else kernels.GENERAL
        return promotion.interval, how, parameters(fmt, "nearest_even", self.lane, None)

    def over_units(self, work: Callable[[int, int], None], x: NDArray[Any], y: NDArray[Any]) -> None:
        """Rows of the result, ``COLUMNS`` columns at a time, over threads."""
        from numerics._parallel import run_parts

        units = x.shape[0] * -(-y.shape[1] // COLUMNS)
        each = x.shape[1] * min(y.shape[1], COLUMNS)
        run_parts(work, units, smallest=max(1, PART // max(each, 1)))

    def _integers(self, x: NDArray[Any], y: NDArray[Any], result: NDArray[np.int64]) -> None:
        from numerics import _product_kernels as kernels
        from numerics._parallel import run_parts

        accumulator, depth = self.accumulator, x.shape[1]
        fmt = get_format(accumulator.format)
        assert isinstance(fmt, IntFormat)
        start = int(np.abs(result).max())
        # No partial sum, in any order, is larger.
        bound = start + depth * (2 << self.a.high) * (2 << self.b.high)
        saturating = accumulator.overflow == "saturate" and bound > fmt.code_max
        smallest = max(1, PART // max(depth * y.shape[1], 1))
        if saturating or bound >= 1 << 53:
            left, right = x.astype(np.int64), y.astype(np.int64)
            order = {"sequential": kernels.SEQUENTIAL, "systolic": kernels.SYSTOLIC}.get(accumulator.order, kernels.TREE)
            group = accumulator.group or depth
            low, high = fmt.code_min, fmt.code_max

            def clip(first: int, last: int) -> None:
                kernels.saturating_chain(left, right, result, first, last, order, group, low, high)

            def wrap(first: int, last: int) -> None:
                kernels.wrapping_chain(left, right, result, first, last)

            run_parts(clip if saturating else wrap, x.shape[0], smallest=smallest)
        else:
            # Every partial sum is exact in the float: its sequential sum is the integer's.
            lane = np.float32 if bound < 1 << 24 else np.float64
            wide = result.astype(lane)
            exact = Accumulator(format="fp32" if lane is np.float32 else "fp64")
            plain = replace(self, accumulator=exact, lane=8 * np.dtype(lane).itemsize, how=kernels.NATIVE)
            plain._rounded(x, y, wide, Stream(0, 0, 0))
            result[...] = wide

    def _exact(self, x: NDArray[Any], y: NDArray[Any], result: NDArray[np.float64]) -> None:
        """Sums rounded to odd to 64 bits."""
        from numerics import _product_kernels as kernels
        from numerics._parallel import run_parts

        x, y = x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)
        initial = operands.extent(result)
        lowest = min(self.a.low - self.a.bits + self.b.low - self.b.bits + 2, initial.low - initial.bits + 1)
        highest = max(self.a.high + self.b.high + 2, initial.high + 1) + (x.shape[1] + 1).bit_length()
        smallest = max(1, PART // max(x.shape[1] * y.shape[1], 1))
        if highest - lowest <= 53 and self.a.finite and self.b.finite and initial.finite:
            plain = replace(self, accumulator=Accumulator(format="fp64"), lane=64, how=kernels.NATIVE)
            plain._rounded(x, y, result, Stream(0, 0, 0))
            return
        limbs = (highest - lowest) // 32 + 5

        def work(first: int, last: int) -> None:
            kernels.exact_chain(x, y, result, first, last, lowest, limbs)

        run_parts(work, x.shape[0], smallest=smallest)

    def finish(self, result: NDArray[Any]) -> NDArray[Any]:
        """The sums in the type that is returned."""
        fmt = get_format(self.accumulator.format)
        if isinstance(fmt, IntFormat):
            if self.accumulator.overflow != "saturate":
                half = 1 << (fmt.bits - 1)
                result += half
                result &= (1 << fmt.bits) - 1
                result -= half
            return result.astype(np.int32) if fmt.bits <= 32 else result
        assert isinstance(fmt, FloatFormat)
        if self.accumulator.order == "exact":
            return self._round_once(result, fmt)
        if self.accumulator.order == "fused":
            if result.dtype == np.float32:
                result.view(np.uint32)[np.isnan(result)] = 0x7FFFFFFF
            return result
        widest = fmt if self.accumulator.promotion is None else get_format(self.accumulator.promotion.format)
        assert isinstance(widest, FloatFormat)
        if result.dtype == np.float64 and _in_fp32(widest):
            return result.astype(np.float32)
        return result

    def _round_once(self, sums: NDArray[np.float64], fmt: FloatFormat) -> NDArray[Any]:
        from numerics._product_kernels import rounder

        p = parameters(fmt, self.accumulator.rounding, 64, self.accumulator.overflow)
        rounder(ROUNDINGS[self.accumulator.rounding])(sums.reshape(-1), p, np.uint64(self.key))
        return sums.astype(np.float32 if _in_fp32(fmt) else np.float64)


# --- checks and choices ---------------------------------------------------------------------------------------------------


def _is_fp32(fmt: Any) -> bool:
    return isinstance(fmt, FloatFormat) and replace(fmt, name="fp32", storage_bits=None) == get_format("fp32")


def _is_fp64(fmt: Any) -> bool:
    return isinstance(fmt, FloatFormat) and replace(fmt, name="fp64", storage_bits=None) == get_format("fp64")


def _in_fp32(fmt: FloatFormat) -> bool:
    return fmt.mantissa_bits <= 23 and fmt.emax <= 127 and fmt.emin - fmt.mantissa_bits >= -149


def _fused_multiply(accumulator: Accumulator, how: int | None) -> bool:
    """Whether products need not be exact, as the sum is a fused multiply-add."""
    from numerics._product_kernels import NATIVE

    chained = accumulator.order in ("sequential", "systolic") and not accumulator.compensated
    return how == NATIVE and chained and accumulator.product == "exact"


def _way(accumulator: Accumulator, fmt: FloatFormat, a: Extent, b: Extent) -> tuple[int, int | None]:
    """The lane for sums, and the way to round them."""
    from numerics import _arrays
    from numerics import _product_kernels as kernels

    plain = accumulator.overflow in (None, "ieee") and accumulator.rounding == "nearest_even"
    if accumulator.order == "exact":
        return 64, None
    if _is_fp64(fmt):
        return 64, kernels.NATIVE
    exact = a.bits + b.bits <= 24 and a.high + b.high <= 124 and a.low - a.bits + b.low - b.bits + 2 >= -149
    promoted = accumulator.promotion is None or _is_fp32(get_format(accumulator.promotion.format))
    narrow = a.high <= 127 and b.high <= 127 and a.bits <= 24 and b.bits <= 24 and min(a.low, b.low) >= -126
    if _is_fp32(fmt) and plain:
        if promoted and accumulator.product == "exact" and narrow and (exact or _fused_multiply(accumulator, kernels.NATIVE)):
            return 32, kernels.NATIVE
        return 64, kernels.CASTING
    if not exact or not promoted or _product_way(accumulator) is None or accumulator.rounding == "stochastic":
        return 64, kernels.GENERAL
    # A sum rounded to odd needs two bits more than the format.
    if fmt.mantissa_bits > 21 or not fits_lane(fmt, 32):
        return 64, kernels.GENERAL
    if accumulator.rounding == "toward_zero" and accumulator.overflow in (None, "ieee") and _has_exponents_of_fp32(fmt):
        return 32, kernels.FAST_CUT
    if accumulator.rounding != "nearest_even":
        return 32, kernels.GENERAL
    overflow = None if accumulator.overflow == "infinity" else accumulator.overflow
    short = _fast(_arrays.plan(fmt, "nearest_even", overflow, 32).how) if fmt.has_inf and overflow in (None, "ieee") else None
    return 32, kernels.GENERAL if short is None else short


def _fast(how: int) -> int | None:
    """The way for sums that a short way for single values stands for."""
    from numerics import _kernels
    from numerics import _product_kernels as kernels

    return {_kernels.BY_SHIFTING: kernels.FAST_SHIFT, _kernels.BY_ADDING: kernels.FAST_ADD}.get(how)


def _has_exponents_of_fp32(fmt: FloatFormat) -> bool:
    return fmt.emin == -126 and fmt.emax == 127 and fmt.has_inf and fmt.subnormals


def _product_way(accumulator: Accumulator) -> int | None:
    """How products are rounded in 32-bit lanes; None where they cannot be."""
    from numerics import _arrays
    from numerics import _product_kernels as kernels

    if accumulator.product == "exact":
        return kernels.EXACT
    fmt = get_format(accumulator.product)
    assert isinstance(fmt, FloatFormat)
    if not fmt.has_inf or fmt.mantissa_bits > 21:
        return None
    return _fast(_arrays.plan(fmt, "nearest_even", None, 32).how)


def _check_integers(values: NDArray[Any], bounds: Extent, field: str) -> None:
    if not bounds.finite or not np.array_equal(values, np.rint(values)):
        raise InputError(f"{field}: an integer accumulator takes integers, got other numbers")
    if bounds.high > 30:
        raise InputError(f"{field}: an integer accumulator takes operands below 2^31, got {np.abs(values).max():.0f}")


def _check_products(a: Extent, b: Extent, rounded: bool, fields: tuple[str, str]) -> None:
    """See that products are exact in 64-bit floats, or have an exact error there (where they are rounded)."""
    if a.bits == 0 or b.bits == 0:
        return
    # A factor of one significant bit is a power of two and moves the exponent only.
    if not rounded and a.bits + b.bits - (min(a.bits, b.bits) == 1) > 53:
        raise InputError(
            f"{', '.join(fields)}: products of {a.bits} by {b.bits} significant bits are not exact in 64-bit floats; "
            "expected operands rounded first, as numerics.quantize(x, 'fp32') does, or an accumulator with product= a format"
        )
    if a.low - a.bits + b.low - b.bits < -1070 or a.high + b.high > 510:
        raise InputError(
            f"{', '.join(fields)}: products from 2^{a.low + b.low} to 2^{a.high + b.high} leave the range of exact sums; "
            "expected at most 2^510"
        )


def check_initial(values: NDArray[Any], accumulator: Accumulator, field: str) -> None:
    """See that an accumulator can hold the sums it starts from.

    Raises:
        InputError: it cannot.
    """
    fmt = get_format(accumulator.format)
    if isinstance(fmt, IntFormat):
        if not operands.extent(values).finite or not np.array_equal(values, np.rint(values)):
            raise InputError(f"{field}: an integer accumulator takes integers, got other numbers")
        # As Python's numbers: float32 would round the bounds.
        if values.size and not (fmt.min <= values.min().item() and values.max().item() <= fmt.max):
            raise InputError(f"{field}: expected {fmt.code_min} to {fmt.code_max} ({fmt.name}), got others")
        return
    holder = _initial_format(accumulator)
    if not operands.in_format(values, holder):
        raise InputError(f"{field}: the accumulator starts from it, and {holder.name!r} does not have its values; quantise it")


def _initial_format(accumulator: Accumulator) -> FloatFormat:
    """The format that the initial value must be in: the promoted sum's; fp32 for the tensor cores' sums of 13 bits, which read it
    whole."""
    fmt = get_format(accumulator.format if accumulator.promotion is None else accumulator.promotion.format)
    assert isinstance(fmt, FloatFormat)
    if accumulator.order == "fused" and fmt.exponent_bits == 8 and fmt.mantissa_bits < 23:
        return FloatFormat("fp32", 8, 23)
    return fmt


def _plain_nans(values: NDArray[Any], bounds: Extent | None) -> NDArray[Any]:
    """Every NaN as the default one, whose bits the fast ways to round leave a NaN; in place without ``bounds``."""
    if bounds is not None and bounds.finite:
        return values
    nans = np.isnan(values)
    if nans.any():
        values = values if bounds is None else values.copy()
        values[nans] = np.nan
    return values


@lru_cache(maxsize=256)
def parameters(fmt: Any, rounding: str | None, lane: int, overflow: str | None) -> tuple[Any, ...]:
    """Parameters of a format for the kernels, in integers of the lane; zeros for no format."""
    unsigned = np.uint32 if lane == 32 else np.uint64
    if fmt is None or rounding is None or (fmt.mantissa_bits >= 23 and lane == 32) or fmt.mantissa_bits >= 52:
        return (unsigned(0),) * 17
    found = list(float_parameters(fmt, lane, rounding, None if overflow == "infinity" else overflow))
    if overflow == "infinity":
        found[4] = found[5] = float_bits(float("inf"), lane)
    return tuple(map(unsigned, found))
