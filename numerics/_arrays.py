"""Conversion of contiguous numpy arrays: the plan for a format, and its kernels over threads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics import _kernels as k
from numerics._parallel import run_parts
from numerics.errors import InputError
from numerics.formats import BlockFormat, CodebookFormat, FixedFormat, FloatFormat, Format, IntFormat
from numerics.rounding import fits_lane, float_parameters, overflow_policy, step_parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerics.quantizer import Draw, Request

SCALE_ROUNDINGS = {"floor": k.FLOOR, "up": k.CEILING, "nearest": k.NEAREST}


def nan_error(fmt: Format) -> InputError:
    """The error for a NaN that a format cannot carry."""
    return InputError(f"x: holds a NaN, and {fmt.name!r} has none; expected numbers")


@dataclass(frozen=True)
class Plan:
    """How a float, integer or fixed-point format is rounded.

    Attributes:
        how: the general way or a short form of nearest even.
        width: bits of the floats to round in.
        parameters: see ``numerics._kernels``.
    """

    how: int
    width: int
    parameters: tuple[int, ...]

    @property
    def packed(self) -> tuple[Any, ...]:
        """The parameters as wide as the floats."""
        return tuple(map(np.uint32 if self.width == 32 else np.uint64, self.parameters))


def plan(fmt: FloatFormat | IntFormat | FixedFormat, rounding: str, overflow: str | None, width: int) -> Plan:
    """The plan for values that are floats of ``width`` bits."""
    if isinstance(fmt, IntFormat | FixedFormat):
        p = step_parameters(fmt, width)
        same = p[k.OVERFLOW_POSITIVE] == p[k.OVERFLOW_NEGATIVE]
        return Plan(k.BY_ADDING if width == 32 and rounding == "nearest_even" and same else k.GENERAL, width, p)
    lane = 32 if width == 32 and fits_lane(fmt, 32) else 64
    p = float_parameters(fmt, lane, rounding, overflow)
    how = k.GENERAL
    simple = p[k.INF] == p[k.OVERFLOW_POSITIVE] and not p[k.NAN_FLIP] and not p[k.FLUSH] and fmt.zero
    if lane == 32 and rounding == "nearest_even" and simple:
        if fmt.emin == -126 and fmt.emax == 127 and fmt.mantissa_bits:
            how = k.BY_SHIFTING
        elif fmt.emin >= -125 and fmt.emax + 1 + p[k.SHIFT] <= 127:
            how = k.BY_ADDING
    return Plan(how, lane, p)


def random_arguments(request: Request, draw: Draw) -> tuple[int, np.uint64, np.uint64, NDArray[np.uint32]]:
    """Mode, key, mask and words as the kernels take them."""
    if draw.words is not None:
        return k.STOCHASTIC_GIVEN, np.uint64(0), np.uint64(0), draw.words
    return request.mode, np.uint64(draw.key), np.uint64(draw.kept), np.empty(0, np.uint32)


def convert(x: NDArray[Any], out: NDArray[Any], request: Request, scale: Any, axis: int, draw: Draw) -> None:
    """Values of ``x`` into ``out``: contiguous arrays of one type and shape. ``scale``: a number, an array or None."""
    fmt = request.fmt
    if x.size == 0:
        return
    if isinstance(fmt, BlockFormat):
        from numerics import _blocks

        _blocks.convert(x, out, request, scale, axis, draw)
    elif isinstance(scale, np.ndarray):
        np.divide(x, scale, out=out)
        _convert(out, out, request, None, draw)
        np.multiply(out, scale, out=out)
    else:
        _convert(x, out, request, scale, draw)


def _convert(x: NDArray[Any], out: NDArray[Any], request: Request, scale: Any, draw: Draw) -> None:
    fmt = request.fmt
    source, result = x.reshape(-1), out.reshape(-1)
    if isinstance(fmt, CodebookFormat):
        convert_codebook(source, result, request, scale)
        return
    if isinstance(fmt, IntFormat | FixedFormat):
        convert_steps(source, result, request, scale, draw)
        return
    assert isinstance(fmt, FloatFormat)
    width = 8 * x.dtype.itemsize
    policy = overflow_policy(fmt, request.overflow)
    if has_every_float(fmt, width) and scale is None and policy.infinite == "inf":
        np.copyto(out, x)
        return
    factor, scaled = (x.dtype.type(1), 0) if scale is None else (scale, 1)
    mode, key, kept, words = random_arguments(request, draw)
    chosen = plan(fmt, request.rounding, request.overflow, width)
    packed = chosen.packed
    ordinary = fmt.signed and fmt.zero
    values = None if ordinary else source.copy() if scale is None else source / scale
    kernel = k.converter(mode, chosen.how, scaled)

    def work(start: int, stop: int) -> bool:
        part = slice(start, stop)
        return kernel(source[part], result[part], start, factor, packed, key, kept, words[part])

    if any(run_parts(work, source.size)) and policy.nan is None:
        raise nan_error(fmt)
    if values is not None:
        _mend_unusual(values, result, request, factor)


def convert_steps(x: NDArray[Any], out: NDArray[Any], request: Request, scale: Any, draw: Draw, *, coded: bool = False) -> None:
    """Integers and fixed point: values, or where ``coded`` their codes, of flat arrays. ``scale``: a number or None."""
    fmt = request.fmt
    assert isinstance(fmt, IntFormat | FixedFormat)
    width, number = 8 * x.dtype.itemsize, x.dtype.type
    factor, scaled = (number(1), 0) if scale is None else (scale, 1)
    mode, key, kept, words = random_arguments(request, draw)
    packed = Plan(k.GENERAL, width, step_parameters(fmt, width, clipped=True)).packed
    low, high = (number((code - request.zero_point) * fmt.step) for code in (fmt.code_min, fmt.code_max))
    magic = number(1.5 * 2.0 ** (23 if width == 32 else 52) * fmt.step)
    narrow = max(-low, high) <= magic / 4
    how = k.BY_ADDING if mode == k.NEAREST_EVEN and narrow else k.GENERAL
    per_step, zero, mask = 1 / fmt.step, request.zero_point, (1 << fmt.bits) - 1
    if not coded:
        zero, mask = 0, 0
    kernel = k.step_converter(mode, how, scaled, int(coded))

    def work(start: int, stop: int) -> bool:
        part = slice(start, stop)
        return kernel(x[part], out[part], start, factor, low, high, magic, per_step, zero, mask, packed, key, kept, words[part])

    if any(run_parts(work, x.size)):
        raise nan_error(fmt)


def has_every_float(fmt: FloatFormat, width: int) -> bool:
    """Whether every float of ``width`` bits is a value of the format."""
    mantissa, bias = (23, 127) if width == 32 else (52, 1023)
    wide = fmt.mantissa_bits >= mantissa and fmt.emax >= bias and fmt.emin <= 1 - bias
    return wide and fmt.subnormals and fmt.signed and fmt.has_inf


def _mend_unusual(values: NDArray[Any], out: NDArray[Any], request: Request, factor: Any) -> None:
    """What formats without a sign or a zero make of negative numbers, zeros and those below the smallest."""
    fmt = request.fmt
    assert isinstance(fmt, FloatFormat)
    policy = overflow_policy(fmt, request.overflow)
    smallest = out.dtype.type(fmt.smallest_normal)
    if not fmt.signed:
        negative = values < 0
        np.abs(out, out=out)
        if policy.negative != "magnitude":
            out[negative] = (np.nan if policy.negative == "nan" and fmt.has_nan else fmt.min) * factor
    if not fmt.zero:
        zero = values == 0
        low = ~zero & (np.abs(out) < smallest * factor)
        out[low] = np.copysign(smallest * factor, out[low])
        out[zero] = (np.nan if policy.zero == "nan" and fmt.has_nan else smallest) * factor


_CODEBOOK_PART = 1 << 14
"""Elements at a time, so that temporaries stay in the cache."""


def convert_codebook(x: NDArray[Any], out: NDArray[Any], request: Request, scale: Any, *, coded: bool = False) -> None:
    """Values of a codebook, or where ``coded`` their codes, of flat arrays. ``scale``: a number or None."""
    fmt = request.fmt
    assert isinstance(fmt, CodebookFormat)
    table = fmt.table().astype(x.dtype)
    factor = x.dtype.type(1) if scale is None else scale

    def work(first: int, last: int) -> None:
        for start in range(first, last, _CODEBOOK_PART):
            part = slice(start, min(start + _CODEBOOK_PART, last))
            codes = codebook_codes(x[part] / factor, fmt, request.rounding)
            out[part] = codes if coded else table[codes] * factor

    run_parts(work, x.size)


def codebook_codes(x: NDArray[Any], fmt: CodebookFormat, rounding: str) -> NDArray[np.int32]:
    """The code of the value each element goes to: the nearest (of two, the even code, or the one farther from zero), or the
    neighbour in a direction."""
    if np.isnan(x).any():
        raise nan_error(fmt)
    if rounding in ("nearest_even", "nearest_away"):
        codes = np.zeros(x.shape, np.int32)
        k.find_cells(np.ascontiguousarray(x).reshape(-1), codebook_edges(fmt, rounding), codes.reshape(-1))
        return codes
    table = fmt.table()
    up = np.minimum(np.searchsorted(table, x, side="left"), len(table) - 1)
    down = np.maximum(np.searchsorted(table, x, side="right") - 1, 0)
    chosen = np.where(x > 0, down, up) if rounding == "toward_zero" else up if rounding == "up" else down
    return chosen.astype(np.int32)


@lru_cache(maxsize=256)
def codebook_edges(fmt: CodebookFormat, rounding: str) -> NDArray[np.float64]:
    """Twice the smallest number that goes to each value but the first.

    A middle is the sum of two neighbours and its rounding error (Knuth's TwoSum), which together are exact; the smallest double
    above it starts the next cell, or the middle itself where the tie goes up.
    """
    table = fmt.table()
    below, above = table[:-1], table[1:]
    total = below + above
    shadow = total - below
    error = (below - (total - shadow)) + (above - shadow)
    to_above = np.arange(1, len(table)) % 2 == 0 if rounding == "nearest_even" else np.abs(above) > np.abs(below)
    starts = (error < 0) | ((error == 0) & to_above)
    return np.where(starts, total, np.nextafter(total, np.inf))


def exponent_of(value: float) -> int:
    """⌊log2⌋ of a positive number."""
    return math.frexp(value)[1] - 1
