"""Conversion of numpy arrays to block formats: the scale of each block, then its elements."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics import _arrays
from numerics import _kernels as k
from numerics._parallel import run_parts
from numerics.errors import InputError
from numerics.formats import BlockFormat, FloatFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerics.quantizer import Draw, Request


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
    if not -len(shape) <= axis < len(shape):
        raise InputError(f"axis: expected {-len(shape)} to {len(shape) - 1} (x has {len(shape)} dimensions), got {axis}")
    if shape[axis] % fmt.block_size:
        raise InputError(
            f"axis: expected a length that the block size {fmt.block_size} of {fmt.name!r} divides, got {shape[axis]} "
            f"(shape {shape}, axis {axis})"
        )
    return axis % len(shape)


def convert(x: NDArray[Any], out: NDArray[Any], request: Request, scale: Any, axis: int, draw: Draw) -> Blocks:
    """As ``_arrays.convert`` for a block format; returns the scales, blocks in the order of ``x`` with ``axis`` moved last."""
    fmt = request.fmt
    assert isinstance(fmt, BlockFormat)
    axis = check_axis(x.shape, axis, fmt)
    if axis == x.ndim - 1:
        return _convert_last(x.reshape(-1), out.reshape(-1), request, scale, draw)
    source = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    if draw.words is not None:
        words = np.ascontiguousarray(np.moveaxis(draw.words.reshape(x.shape), axis, -1)).reshape(-1)
        draw = replace(draw, words=words)
    result = np.empty_like(source)
    found = _convert_last(source.reshape(-1), result.reshape(-1), request, scale, draw)
    out[...] = np.moveaxis(result, -1, axis)
    return found


def _convert_last(x: NDArray[Any], out: NDArray[Any], request: Request, scale: Any, draw: Draw) -> Blocks:
    fmt = request.fmt
    assert isinstance(fmt, BlockFormat)
    if fmt.scale.mantissa_bits == 0 and not fmt.tensor_scale:
        return _convert_by_powers(x, out, request, draw)
    size = fmt.block_size
    rows = x.reshape(-1, size)
    with np.errstate(invalid="ignore"):
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float64)
    scales, whole = block_scales(largest, fmt, scale)
    # One factor a block, in the type of x: what a decoder multiplies an element by.
    with np.errstate(invalid="ignore"):
        factors = (scales * whole).astype(np.float32).astype(x.dtype)[:, None]
    divisors = np.where(factors > 0, factors, 1)  # a block of zeros (or one too small for any scale) becomes zeros
    values = out.reshape(-1, size)
    np.divide(rows, divisors, out=values)
    bad = np.isnan(factors[:, 0])
    if bad.any():
        values[bad] = 0
    elements = replace(request, fmt=fmt.element, overflow="saturate")
    _arrays.convert(values, values, elements, None, -1, draw)
    np.multiply(values, factors, out=values)
    return Blocks(scales, whole)


def block_scales(largest: NDArray[np.float64], fmt: BlockFormat, tensor_scale: Any) -> tuple[NDArray[np.float64], float]:
    """Scales of blocks with these largest magnitudes, rounded to the scale's format, and the tensor's scale."""
    from numerics.quantizer import quantize

    finite = largest[np.isfinite(largest)]
    whole = 1.0
    if fmt.tensor_scale:
        top = float(finite.max(initial=0.0)) if tensor_scale is None else 0.0
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


def _convert_by_powers(x: NDArray[Any], out: NDArray[Any], request: Request, draw: Draw) -> Blocks:
    """Scales that are powers of two: one kernel for scales and elements."""
    fmt = request.fmt
    assert isinstance(fmt, BlockFormat)
    element = fmt.element
    width = 8 * x.dtype.itemsize
    overflow = "saturate" if isinstance(element, FloatFormat) else None
    chosen = _arrays.plan(element, request.rounding, overflow, width)
    wide = _arrays.plan(element, request.rounding, overflow, 64)
    how = chosen.how if width == 32 else k.GENERAL
    mode, key, kept, words = _arrays.random_arguments(request, draw)
    exponents = np.empty(x.size // fmt.block_size, np.int16)
    lowest, highest = _arrays.exponent_of(fmt.scale.smallest_subnormal), fmt.scale.emax
    rounding = _arrays.SCALE_ROUNDINGS[fmt.scale_rounding]
    narrow_parameters, wide_parameters = chosen.packed, wide.packed
    emax, largest = _arrays.exponent_of(element.max), element.max

    def work(start: int, stop: int) -> None:
        k.convert_blocks(
            x, out, exponents, start, stop, fmt.block_size, narrow_parameters, wide_parameters, key, kept, words,
            emax, largest, rounding, lowest, highest, mode, how,
        )  # fmt: skip

    run_parts(work, exponents.size, smallest=max(1, (1 << 16) // fmt.block_size))
    scales = np.ldexp(1.0, exponents.astype(np.int32))
    scales[exponents > highest] = math.nan
    return Blocks(scales, 1.0)
