"""Sums, softmax and layer normalisation whose additions are those of a given accumulator.

Everything between the sums is done element by element in a format of its own: the result of 64-bit floats, rounded to it.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._product_operands import as_values, host
from numerics.accumulator import Accumulator, get_accumulator
from numerics.errors import InputError
from numerics.formats import FloatFormat, get_format
from numerics.products import matmul
from numerics.quantizer import is_tensor, quantize

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from numerics.formats import Format


def sum(
    x: Any,
    *,
    axis: int | None = None,
    keepdims: bool = False,
    accumulator: str | Accumulator = "fp32",
    seed: int | None = None,
) -> Any:
    """The sum along an axis, or of all elements (in C order), as the accumulator adds.

    Args:
        x: array or tensor of real numbers.
        axis: which one; None for all.
        keepdims: keep that axis, of length 1.
        accumulator: an ``Accumulator`` or its name; see ``numerics.get_accumulator``. Its products are x · 1.
        seed: an integer, for stochastic rounding.

    Returns:
        An array (tensor) of the type that ``numerics.matmul`` returns.

    Raises:
        InputError: no such axis, or as ``numerics.matmul``.
    """
    found = _plain(accumulator)
    if is_tensor(x):
        return _through_array(lambda v: sum(v, axis=axis, keepdims=keepdims, accumulator=found, seed=seed), x, "sum")
    values = as_values(x, "x")
    if axis is None:
        total = _last(values.reshape(1, -1), found, seed)
        return total.reshape((1,) * values.ndim) if keepdims else total[0]
    moved = np.moveaxis(values, _checked_axis(axis, values.ndim), -1)
    total = _last(moved, found, seed)
    return np.expand_dims(total, axis) if keepdims else total


def softmax(
    x: Any,
    *,
    axis: int = -1,
    accumulator: str | Accumulator = "fp32",
    fmt: str | Format = "fp32",
    seed: int | None = None,
) -> Any:
    """exp(x − max) / Σ exp(x − max) along an axis.

    The difference, the exponential and the quotient are each rounded to nearest even in ``fmt``; the sum is the accumulator's.

    Args:
        x: array or tensor of real numbers that ``fmt`` has.
        axis: along which it adds to 1.
        accumulator: of the sum; an ``Accumulator`` or its name.
        fmt: float format of everything else.
        seed: an integer, for stochastic rounding of the sum.

    Returns:
        float32, or float64 where ``fmt`` needs it; the shape of x.

    Raises:
        InputError: no such axis, values that ``fmt`` lacks, or as ``numerics.matmul``.
    """
    found, rounded = _plain(accumulator), _rounder(fmt)
    if is_tensor(x):
        return _through_array(lambda v: softmax(v, axis=axis, accumulator=found, fmt=fmt, seed=seed), x, "softmax")
    values = _values_in(x, "x", rounded, fmt)
    moved = np.moveaxis(values, _checked_axis(axis, values.ndim), -1)
    if moved.shape[-1] == 0:
        return _delivered(values, fmt)
    with np.errstate(invalid="ignore", over="ignore"):
        powers = rounded(np.exp(rounded(moved - moved.max(axis=-1, keepdims=True))))
        total = _last(powers, found, seed).astype(np.float64)[..., None]
        result = rounded(powers / total)
    return _delivered(np.moveaxis(result, -1, axis), fmt)


def layer_norm(
    x: Any,
    *,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    accumulator: str | Accumulator = "fp32",
    fmt: str | Format = "fp32",
    seed: int | None = None,
) -> Any:
    """(x − mean) / √(variance + eps) · weight + bias along the last axis, with the biased variance (as PyTorch's ``layer_norm``).

    Rounded to nearest even in ``fmt``: the mean (the sum over the length), x less it, the variance (the sum of the exact squares
    over the length), 1 / √(variance + eps), and each product and sum after that. The two sums are the accumulator's.

    Args:
        x: array or tensor (…, n) of real numbers that ``fmt`` has.
        weight, bias: (n,), in ``fmt`` as well; none by default.
        eps: ≥ 0.
        accumulator: of both sums; an ``Accumulator`` or its name.
        fmt: float format of everything else.
        seed: an integer, for stochastic rounding of the sums.

    Returns:
        float32, or float64 where ``fmt`` needs it; the shape of x.

    Raises:
        InputError: shapes that do not fit, values that ``fmt`` lacks, a negative eps, or as ``numerics.matmul``.
    """
    found, rounded = _plain(accumulator), _rounder(fmt)
    if not isinstance(eps, int | float | np.integer | np.floating) or isinstance(eps, bool) or not 0 <= eps < math.inf:
        raise InputError(f"eps: expected a number ≥ 0, got {eps!r}")
    eps = float(eps)
    weight, bias = (host(v, field, "layer_norm") for field, v in (("weight", weight), ("bias", bias)))
    if is_tensor(x):
        again = partial(layer_norm, weight=weight, bias=bias, eps=eps, accumulator=found, fmt=fmt, seed=seed)
        return _through_array(again, x, "layer_norm")
    values = _values_in(x, "x", rounded, fmt)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise InputError(f"x: expected a last axis with elements, got shape {values.shape}")
    length = values.shape[-1]
    scale, shift = (
        None if v is None else _values_in(v, field, rounded, fmt) for field, v in (("weight", weight), ("bias", bias))
    )
    for field, v in (("weight", scale), ("bias", shift)):
        if v is not None and v.shape != (length,):
            raise InputError(f"{field}: expected shape ({length},), got {v.shape}")
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        mean = rounded(_last(values, found, seed).astype(np.float64) / length)[..., None]
        centred = rounded(values - mean)
        rows = centred.reshape(-1, length)
        # A second sum draws other random words.
        other = None if seed is None else seed ^ (1 << 63)
        squares = _squares(rows, found, other).astype(np.float64).reshape(mean.shape)
        factor = rounded(1 / np.sqrt(rounded(squares / length) + eps))
        result = rounded(centred * factor)
        if scale is not None:
            result = rounded(result * scale)
        if shift is not None:
            result = rounded(result + shift)
    return _delivered(result, fmt)


def _plain(accumulator: str | Accumulator) -> Accumulator:
    found = get_accumulator(accumulator)
    if found.scale is not None:
        raise InputError("accumulator: a block-scaled one takes matrices of blocks; expected one without scales")
    return found


def _last(x: NDArray[Any], accumulator: Accumulator, seed: int | None) -> NDArray[Any]:
    """Sums along the last axis."""
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    ones = np.ones((1, x.shape[-1]), np.float32)
    try:
        # Rows side by side in the vector lanes.
        found = matmul(ones, rows.T, accumulator=accumulator, seed=seed)
    except InputError as error:
        raise InputError(re.sub("^(a, b|a|b): (products)?", lambda m: "x: elements" if m[2] else "x: ", str(error))) from None
    return np.asarray(found)[0].reshape(x.shape[:-1])


def _squares(rows: NDArray[np.float64], accumulator: Accumulator, seed: int | None) -> NDArray[Any]:
    """The sum of each row's squares."""
    if accumulator.order == "fused":
        # Products are aligned by their factors' exponents, so that the square is no operand.
        found = (matmul(row[None], row[:, None], accumulator=accumulator, seed=_moved(seed, i)) for i, row in enumerate(rows))
        return np.array([sums[0, 0] for sums in found])
    # Exact: twice the bits of a format of at most 26.
    return _last(rows * rows, accumulator, seed)


def _moved(seed: int | None, place: int) -> int | None:
    return None if seed is None else (seed + place) % (1 << 64)


def _rounder(fmt: str | Format) -> Callable[[NDArray[Any]], NDArray[Any]]:
    found = get_format(fmt)
    if not isinstance(found, FloatFormat) or not found.has_inf or found.mantissa_bits > 25:
        raise InputError(f"fmt: expected a float format with Inf and at most 25 mantissa bits, got {found.name!r}")
    return lambda values: quantize(np.ascontiguousarray(values, np.float64), found)


def _values_in(x: Any, field: str, rounded: Callable[[NDArray[Any]], NDArray[Any]], fmt: str | Format) -> NDArray[np.float64]:
    values = as_values(x, field).astype(np.float64)
    if not np.array_equal(rounded(values), values, equal_nan=True):
        raise InputError(f"{field}: holds values that {get_format(fmt).name!r} does not have; expected values quantised to it")
    return values


def _delivered(values: NDArray[Any], fmt: str | Format) -> NDArray[Any]:
    found = get_format(fmt)
    assert isinstance(found, FloatFormat)
    narrow = found.mantissa_bits <= 23 and found.emax <= 127 and found.emin - found.mantissa_bits >= -149
    return np.ascontiguousarray(values, np.float32 if narrow else np.float64)


def _checked_axis(axis: int, axes: int) -> int:
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool) or not -axes <= axis < axes:
        raise InputError(f"axis: expected one of {axes} axes, got {axis!r}")
    return int(axis)


def _through_array(function: Callable[[Any], Any], x: Any, name: str) -> Any:
    """A function of arrays for a tensor of any device, by way of the host."""
    import torch

    return torch.from_numpy(np.asarray(function(host(x, "x", name)))).to(x.device)
