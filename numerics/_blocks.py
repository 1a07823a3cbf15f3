"""Conversion of numpy arrays to block formats: the scale of each block, then its elements."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics import _arrays
from numerics import _kernels as k
from numerics._parallel import SMALLEST_PART, run_parts
from numerics.errors import InputError
from numerics.formats import BlockFormat, FixedFormat, FloatFormat, IntFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerics.quantizer import Draw, Request


FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Blocks:
    """The scales that conversion found.

    Attributes:
        scales: one value a block (NaN for a block with Inf or NaN); float64, flat.
        tensor_scale: the scale of the tensor.
    """

    scales: NDArray[np.float64]
    tensor_scale: float


def check_axis(shape: tuple[int, ...], axis: int, fmt: BlockFormat) -> int:
    """The axis along which blocks run, from 0.

    Raises:
        InputError: no such axis, or a length that is not a multiple of the block size.
    """
    if not shape:
        raise InputError(f"x: blocks of {fmt.name!r} need an axis to run along; expected at least 1 dimension, got a number")
    if not -len(shape) <= axis < len(shape):
        raise InputError(f"axis: expected {-len(shape)} to {len(shape) - 1} (x has {len(shape)} dimensions), got {axis}")
    if shape[axis] % fmt.block_size:
        raise InputError(
            f"axis: expected a length that the block size {fmt.block_size} of {fmt.name!r} divides, got {shape[axis]} "
            f"(shape {shape}, axis {axis})"
        )
    return axis % len(shape)


def convert(
    x: NDArray[Any], out: NDArray[Any], request: Request, scale: Any, axis: int, draw: Draw, *, coded: bool = False
) -> Blocks:
    """As ``_arrays.convert`` for a block format; with ``coded``, ``out`` takes the elements' codes.

    Returns:
        The scales, blocks in the order of ``x`` with ``axis`` moved last.
    """
    fmt = request.fmt
    assert isinstance(fmt, BlockFormat)
    axis = check_axis(x.shape, axis, fmt)
    if axis == x.ndim - 1:
        return _convert_last(x, out, request, scale, draw, coded)
    source = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    if draw.words is not None:
        words = np.ascontiguousarray(np.moveaxis(draw.words.reshape(x.shape), axis, -1)).reshape(-1)
        draw = replace(draw, words=words)
    result = np.empty(source.shape, out.dtype)
    found = _convert_last(source, result, request, scale, draw, coded)
    out[...] = np.moveaxis(result, -1, axis)
    return found


def _convert_last(x: NDArray[Any], out: NDArray[Any], request: Request, scale: Any, draw: Draw, coded: bool) -> Blocks:
    fmt = request.fmt
    assert isinstance(fmt, BlockFormat)
    rows, results = x.reshape(-1, fmt.block_size), out.reshape(-1, fmt.block_size)
    by_powers = fmt.scale.mantissa_bits == 0 and not fmt.tensor_scale
    return (_convert_by_powers if by_powers else _convert_by_factors)(rows, results, request, scale, draw, coded)


def _element_codes(element: FloatFormat | IntFormat | FixedFormat, coded: bool) -> tuple[int, float, int]:
    """What the kernels give, elements a step, and the mask of a code."""
    if isinstance(element, FloatFormat):
        return (k.FLOAT_CODES if coded else k.VALUES), 1.0, 0
    return (k.STEP_CODES if coded else k.VALUES), 1 / element.step, (1 << element.bits) - 1


def _convert_by_factors(
    rows: NDArray[Any], results: NDArray[Any], request: Request, scale: Any, draw: Draw, coded: bool
) -> Blocks:
    """Scales of any value, found first."""
    fmt = request.fmt
    assert isinstance(fmt, BlockFormat)
    largest = np.empty(len(rows))
    run_parts(lambda start, stop: k.largest_magnitudes(rows[start:stop], largest[start:stop]), len(rows))
    scales, whole = block_scales(largest, fmt, scale)
    # One factor a block, in the type of x: what a decoder multiplies an element by.
    with np.errstate(invalid="ignore"):
        factors = (scales * whole).astype(np.float32).astype(rows.dtype)
    chosen = _arrays.plan(fmt.element, request.rounding, _element_overflow(fmt.element), 8 * rows.dtype.itemsize)
    mode, key, kept, words = _arrays.random_arguments(request, draw)
    words = words.reshape(-1, fmt.block_size)
    parameters = chosen.packed
    what, per_step, mask = _element_codes(fmt.element, coded)
    kernel = k.factor_converter(mode, chosen.how, what)

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        first = start * fmt.block_size
        kernel(rows[part], results[part], factors[part], first, parameters, key, kept, words[part], per_step, mask)

    run_parts(work, len(rows), smallest=max(1, SMALLEST_PART // fmt.block_size))
    return Blocks(scales, whole)


def _element_overflow(element: FloatFormat | IntFormat | FixedFormat) -> str | None:
    return "saturate" if isinstance(element, FloatFormat) else None


def block_scales(largest: NDArray[np.float64], fmt: BlockFormat, tensor_scale: Any) -> tuple[NDArray[np.float64], float]:
    """Scales of blocks with these largest magnitudes, rounded to the scale's format, and the tensor's scale."""
    from numerics.quantizer import quantize

    finite = largest[np.isfinite(largest)]
    whole = 1.0
    if fmt.tensor_scale:
        top = float(finite.max(initial=0.0)) if tensor_scale is None else 0.0
        if top / fmt.max > FLOAT32_MAX:
            raise InputError(
                f"x: its largest magnitude {top:g} needs a tensor scale beyond those of float32; expected smaller numbers"
            )
        whole = float(tensor_scale) if tensor_scale is not None else float(np.float32(top / fmt.max)) or 1.0
    ideal = np.where(np.isfinite(largest), largest, 0.0) / whole / fmt.element.max
    if fmt.scale_rounding == "floor":
        with np.errstate(divide="ignore"):
            exponent = (
                np.frexp(np.where(np.isfinite(largest), largest, 0.0) / whole)[1] - 1 - _arrays.exponent_of(fmt.element.max)
            )
        ideal = np.where(ideal > 0, np.ldexp(1.0, exponent), 0.0)
    mode = {"floor": "nearest_even", "nearest": "nearest_even", "up": "up"}[fmt.scale_rounding]
    scales = quantize(ideal, fmt.scale, rounding=mode, overflow="saturate")
    scales[~np.isfinite(largest)] = np.nan
    return scales, whole


def _convert_by_powers(
    rows: NDArray[Any], results: NDArray[Any], request: Request, scale: Any, draw: Draw, coded: bool
) -> Blocks:
    """Scales that are powers of two: one kernel for scales and elements."""
    fmt = request.fmt
    assert isinstance(fmt, BlockFormat)
    element = fmt.element
    width = 8 * rows.dtype.itemsize
    overflow = _element_overflow(element)
    chosen = _arrays.plan(element, request.rounding, overflow, width)
    # Where x / scale may be a subnormal float that matters to the element, only the wide way rounds once.
    finest = element.smallest_subnormal if isinstance(element, FloatFormat) else element.step
    how = chosen.how if width == 32 and finest > 2.0**-100 else k.GENERAL
    mode, key, kept, words = _arrays.random_arguments(request, draw)
    words = words.reshape(-1, fmt.block_size)
    exponents = np.empty(len(rows), np.int16)
    lowest, highest = _arrays.exponent_of(fmt.scale.smallest_subnormal), fmt.scale.emax
    rounding = _arrays.SCALE_ROUNDINGS[fmt.scale_rounding]
    narrow, wide = chosen.packed, _arrays.plan(element, request.rounding, overflow, 64).packed
    emax, largest = _arrays.exponent_of(element.max), element.max
    what, per_step, mask = _element_codes(element, coded)
    # Exponents of scales that leave the element's values, times the scale, normal floats; none where subnormals are flushed.
    bias = 127 if chosen.width == 32 else 1023
    first_moved, last_moved = 1 - bias - _arrays.exponent_of(finest), bias - 1 - emax
    if not chosen.parameters[k.EMIN]:
        first_moved, last_moved = 1, 0
    kernel = k.block_converter(mode, how, what)

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        kernel(
            rows[part], results[part], exponents[part], start * fmt.block_size, narrow, wide, key, kept, words[part],
            emax, largest, per_step, mask, rounding, lowest, highest, first_moved, last_moved,
        )  # fmt: skip

    run_parts(work, len(rows), smallest=max(1, SMALLEST_PART // fmt.block_size))
    scales = np.ldexp(1.0, exponents.astype(np.int32))
    scales[exponents > highest] = math.nan
    return Blocks(scales, 1.0)
