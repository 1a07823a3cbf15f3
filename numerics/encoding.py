"""``encode`` and ``decode``: real numbers to the integer codes of a format, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._display import displaying
from numerics._fields import check_integer
from numerics.errors import InputError
from numerics.formats import TABLE_BITS, BlockFormat, CodebookFormat, FixedFormat, FloatFormat, Format, IntFormat, get_format
from numerics.packing import check_codes, code_dtype, pack, unpack
from numerics.quantizer import Request, as_floats, check_fits, check_scale, is_tensor, make_draw
from numerics.rounding import RANDOM_BITS, overflow_policy

if TYPE_CHECKING:
    from numpy.typing import NDArray


@displaying("storage_bytes")
@dataclass(frozen=True)
class BlockCodes:
    """A tensor in a block format.

    Attributes:
        format: the block format.
        codes: codes of the elements, unsigned integers; the shape of the tensor, or packed bytes of its elements with the
            blocks' axis moved last.
        scales: codes of the blocks' scales; the shape of the tensor with ``axis`` moved last and divided by the block size.
        tensor_scale: scale of the whole tensor (1 where the format has none).
        axis: along which blocks run.
        shape: of the tensor.
        packed: whether ``codes`` are packed.
    """

    format: BlockFormat
    codes: Any
    scales: Any
    tensor_scale: float
    axis: int
    shape: tuple[int, ...]
    packed: bool = False

    @property
    def storage_bytes(self) -> int:
        """Bytes of codes and scales, densely packed."""
        return self.format.storage_bytes(int(np.prod(self.shape, dtype=np.int64)))


def encode(
    x: Any,
    fmt: str | Format,
    *,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    scale: Any = None,
    zero_point: int = 0,
    axis: int = -1,
    seed: Any = None,
    random_bits: int = RANDOM_BITS,
    packed: bool = False,
) -> Any:
    """The integer codes of ``x`` in a format, rounded as ``quantize`` does.

    Args:
        x, fmt, rounding, overflow, scale, zero_point, axis, seed, random_bits: as for ``quantize``.
        packed: several codes of a format of fewer than 16 bits to a byte, flat, the first in the lowest bits.

    Returns:
        Codes in the narrowest unsigned type (integers in two's complement), of the shape of x, or flat bytes where packed; a
        torch tensor for a tensor. For a block format, ``BlockCodes``.

    Raises:
        InputError: as ``quantize``; a format wider than 16 bits cannot be packed.
    """
    request = Request.check(fmt, rounding, overflow, zero_point)
    if is_tensor(x):
        from numerics import _tensors

        return _tensors.encode(x, request, scale, axis, seed, random_bits, packed)
    array, _ = as_floats(x)
    draw = make_draw(rounding, seed, random_bits, array.shape)
    scales = check_scale(scale, request.fmt, array.shape, array.dtype)
    if isinstance(request.fmt, BlockFormat):
        return _encode_blocks(array, request, scales, axis, draw, packed)
    codes = _codes(array, request, scales, draw)
    return pack(codes, _code_bits(request.fmt)) if packed else codes


_FLOAT_BITS = {np.float32: 24, np.float64: 53}
"""Bits of the integers that a float type has all of."""


def _code_bits(fmt: FloatFormat | IntFormat | FixedFormat | CodebookFormat) -> int:
    return fmt.code_bits if isinstance(fmt, FloatFormat) else fmt.bits


def _codes(x: NDArray[Any], request: Request, scale: Any, draw: Any) -> NDArray[Any]:
    from numerics import _arrays
    from numerics import _kernels as k
    from numerics._parallel import run_parts

    fmt = request.fmt
    assert not isinstance(fmt, BlockFormat)
    bits = _code_bits(fmt)
    if isinstance(scale, np.ndarray):
        x, scale = np.divide(x, scale), None
    codes = np.empty(x.shape, code_dtype(bits))
    if x.size == 0:
        return codes
    if isinstance(fmt, CodebookFormat):
        _arrays.convert_codebook(x.reshape(-1), codes.reshape(-1), request, scale, coded=True)
        return codes
    if isinstance(fmt, IntFormat | FixedFormat):
        if bits - int(fmt.signed) > _FLOAT_BITS[np.float64]:
            raise InputError(f"x: no float holds every code of {fmt.name!r}; expected a format of at most 53 bits")
        if bits - int(fmt.signed) > _FLOAT_BITS[x.dtype.type]:
            x, scale = (x if scale is None else x / scale).astype(np.float64), None
        _arrays.convert_steps(x.reshape(-1), codes.reshape(-1), request, scale, draw, coded=True)
        return codes
    assert isinstance(fmt, FloatFormat)
    width = 8 * x.dtype.itemsize
    if not (fmt.signed and fmt.zero):
        # The values are settled first; coding them rounds nothing any more.
        values = np.empty_like(x)
        _arrays.convert(x if scale is None else x / scale, values, request, None, -1, draw)
        x, scale, draw = values, None, replace(draw, key=0, kept=0, words=None)
        request = replace(request, rounding="toward_zero", mode=k.TOWARD_ZERO)
    chosen = _arrays.plan(fmt, request.rounding, request.overflow, width)
    if width == 32 and fmt.mantissa_bits >= 23:
        chosen = _arrays.plan(fmt, request.rounding, request.overflow, 64)
    source, result = x.reshape(-1), codes.reshape(-1)
    factor, scaled = (x.dtype.type(1), 0) if scale is None else (scale, 1)
    mode, key, kept, words = _arrays.random_arguments(request, draw)
    packed = chosen.packed
    kernel = k.encoder(mode, chosen.how, scaled)

    def work(start: int, stop: int) -> bool:
        part = slice(start, stop)
        return kernel(source[part], result[part], start, factor, packed, key, kept, words[part])

    if any(run_parts(work, source.size)) and overflow_policy(fmt, request.overflow).nan is None:
        raise _arrays.nan_error(fmt)
    return codes


def _encode_blocks(x: NDArray[Any], request: Request, scale: Any, axis: int, draw: Any, packed: bool) -> BlockCodes:
    from numerics import _blocks

    fmt = request.fmt
    assert isinstance(fmt, BlockFormat)
    axis = _blocks.check_axis(x.shape, axis, fmt)
    codes = np.empty(x.shape, code_dtype(_code_bits(fmt.element)))
    found = _blocks.convert(x, codes, request, scale, axis, draw, coded=True)
    moved = np.moveaxis(codes, axis, -1)
    codes = pack(moved, _code_bits(fmt.element)) if packed else codes
    scales = _codes(
        found.scales, Request.check(fmt.scale, "nearest_even", "saturate"), None, replace(draw, key=0, kept=0, words=None)
    )
    shape = (*moved.shape[:-1], moved.shape[-1] // fmt.block_size)
    return BlockCodes(fmt, codes, scales.reshape(shape), found.tensor_scale, axis, x.shape, packed)


def decode(
    codes: Any,
    fmt: str | Format | None = None,
    *,
    scale: Any = None,
    zero_point: int = 0,
    shape: tuple[int, ...] | None = None,
    dtype: Any = np.float32,
) -> Any:
    """The values that codes stand for.

    Args:
        codes: unsigned integer codes (as ``encode`` gives them), or ``BlockCodes``; with ``shape``, packed bytes. Those of a
            signed integer or fixed-point format may also come in the signed type of their width, negative where the value is.
        fmt: their format; left out for ``BlockCodes``.
        scale, zero_point: what they were encoded with.
        shape: of the result, for packed codes.
        dtype: float32 or float64, of numpy or torch or by name.

    Returns:
        Values, of the shape of the codes (a tensor for a tensor).

    Raises:
        InputError: a code that does not fit the format's bits, packed bytes that do not fill the shape, a shape that is not of
            integers ≥ 0, a type that cannot hold the values.
    """
    dtype = _float_dtype(dtype)
    if isinstance(codes, BlockCodes):
        if fmt is not None or scale is not None or zero_point or shape is not None:
            raise InputError("decode: BlockCodes bring their format, scales and shape; leave the other arguments out")
        if is_tensor(codes.codes):
            from numerics import _tensors

            return _tensors.decode_blocks(codes, dtype)
        return _decode_blocks(codes, dtype)
    if fmt is None:
        raise InputError("fmt: expected the codes' format")
    found = get_format(fmt)
    if isinstance(found, BlockFormat):
        raise InputError(f"codes: {found.name!r} needs BlockCodes (codes with their scales), got {type(codes).__name__}")
    shape = None if shape is None else _check_shape(shape)
    if is_tensor(codes):
        from numerics import _tensors

        return _tensors.decode(codes, found, scale, zero_point, shape, dtype)
    return _decode(np.asarray(codes), found, scale, zero_point, shape, dtype)


def _float_dtype(given: Any) -> np.dtype[Any]:
    """The numpy type that ``dtype`` asks for."""
    name = str(given).removeprefix("torch.") if type(given).__module__ == "torch" else given
    try:
        found = None if name is None else np.dtype(name)
    except (TypeError, ValueError):
        found = None
    if found not in (np.float32, np.float64):
        raise InputError(f"dtype: expected float32 or float64, got {repr(given) if found is None else found}")
    assert found is not None
    return found


def _check_shape(given: Any) -> tuple[int, ...]:
    sizes = tuple(given) if isinstance(given, Iterable) else (given,)
    try:
        return tuple(check_integer("shape", size, least=0) for size in sizes)
    except InputError:
        raise InputError(f"shape: expected integers ≥ 0, got {given!r}") from None


def _decode(
    codes: NDArray[Any], fmt: Any, scale: Any, zero_point: int, shape: tuple[int, ...] | None, dtype: np.dtype[Any]
) -> NDArray[Any]:
    Request.check(fmt, "nearest_even", None, zero_point)
    bits = _code_bits(fmt)
    if dtype == np.float32 and not _fits_fp32(fmt):
        raise InputError(f"dtype: float32 cannot hold the values of {fmt.name!r}; expected float64")
    codes = _unsigned(codes, fmt) if shape is None else unpack(codes, bits, math.prod(shape)).reshape(shape)
    _check_used(codes, fmt)
    scales = check_scale(scale, fmt, codes.shape, dtype)
    if bits <= TABLE_BITS:
        return _look_up(codes, fmt.table() - zero_point * fmt.step if zero_point else fmt.table(), scales, dtype)
    if isinstance(fmt, FloatFormat):
        values = _wide_float_values(codes, fmt).astype(dtype)
    else:
        steps = codes.astype(np.int64)
        if fmt.signed:
            steps = np.where(steps > fmt.code_max, steps - (1 << bits), steps)
        values = ((steps - zero_point) * fmt.step).astype(dtype)
    return values if scales is None else values * scales


def _fits_fp32(fmt: FloatFormat | IntFormat | FixedFormat | CodebookFormat) -> bool:
    if isinstance(fmt, FloatFormat) and (fmt.mantissa_bits > 23 or fmt.emax > 127):
        return False
    try:
        check_fits(fmt, 32)
    except InputError:
        return False
    return True


def _unsigned(codes: NDArray[Any], fmt: FloatFormat | IntFormat | FixedFormat | CodebookFormat) -> NDArray[Any]:
    """Codes held in the signed type of their width as unsigned ones, in two's complement; others as they are."""
    bits = _code_bits(fmt)
    plain = code_dtype(bits)
    if not (isinstance(fmt, IntFormat | FixedFormat) and fmt.signed and codes.dtype == np.dtype(f"i{plain.itemsize}")):
        return codes
    lowest = -(1 << (bits - 1))
    if codes.size and codes.min() < lowest:
        raise InputError(f"codes: expected {lowest} to {(1 << bits) - 1} ({bits} bits), got {codes.min()}")
    if bits == 8 * plain.itemsize:
        return codes.astype(plain)
    return np.where(codes < 0, codes & ((1 << bits) - 1), codes).astype(plain)


def _check_used(codes: NDArray[Any], fmt: FloatFormat | IntFormat | FixedFormat | CodebookFormat) -> None:
    """See that every code is one of the format's."""
    bits = _code_bits(fmt)
    check_codes(codes, bits)
    if isinstance(fmt, CodebookFormat) and codes.size and int(codes.max()) >= len(fmt.values):
        raise InputError(f"codes: {fmt.name!r} has {len(fmt.values)} values, got code {int(codes.max())}")
    if isinstance(fmt, IntFormat | FixedFormat) and fmt.symmetric and (codes == 1 << (bits - 1)).any():
        raise InputError(f"codes: {fmt.name!r} does not use code {1 << (bits - 1)} (its smallest value is {fmt.code_min})")


def _look_up(codes: NDArray[Any], table: NDArray[np.float64], scale: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of codes from a table of them, times a scale."""
    from numerics import _kernels as k
    from numerics._parallel import run_parts

    values = np.empty(codes.shape, dtype)
    flat, result, entries = np.ascontiguousarray(codes).reshape(-1), values.reshape(-1), table.astype(dtype)
    if scale is not None and not isinstance(scale, np.ndarray):
        entries *= scale
    run_parts(lambda start, stop: k.look_up(flat[start:stop], entries, result[start:stop]), flat.size)
    if isinstance(scale, np.ndarray):
        values *= scale
    return values


def _wide_float_values(codes: NDArray[Any], fmt: FloatFormat) -> NDArray[np.float64]:
    """Values of codes too wide for a table; float64."""
    m = fmt.mantissa_bits
    wide = codes.astype(np.uint64)
    fraction = (wide & np.uint64((1 << m) - 1)).astype(np.float64)
    field = ((wide >> np.uint64(m)) & np.uint64((1 << fmt.exponent_bits) - 1)).astype(np.int64)
    normal = field > 0 if fmt.zero else np.ones(field.shape, bool)
    significand = fraction + normal * 2.0**m
    if not fmt.subnormals:
        significand[~normal] = 0.0
    with np.errstate(over="ignore"):  # of the exponents of Inf and NaN
        values = np.ldexp(significand, np.where(normal, field - int(fmt.zero), 0) + fmt.emin - m)
    top = (1 << fmt.exponent_bits) - 1
    if fmt.specials == "ieee":
        values = np.where(field == top, np.where(fraction > 0, np.nan, np.inf), values)
    elif fmt.specials == "max_is_nan":
        values = np.where((field == top) & (fraction == 2.0**m - 1), np.nan, values)
    if fmt.signed:
        negative = (wide >> np.uint64(fmt.exponent_bits + m)) > 0
        values = np.where(negative, -values, values)
        if fmt.specials == "negative_zero_is_nan":
            values = np.where(negative & (field == 0) & (fraction == 0), np.nan, values)
    return values


def _decode_blocks(codes: BlockCodes, dtype: np.dtype[Any]) -> NDArray[Any]:
    from numerics import _kernels as k
    from numerics._parallel import SMALLEST_PART, run_parts

    fmt = codes.format
    element, size = fmt.element, fmt.block_size
    moved_shape = (*codes.shape[: codes.axis], *codes.shape[codes.axis + 1 :], codes.shape[codes.axis])
    scales = _decode(np.asarray(codes.scales), fmt.scale, None, 0, None, np.dtype(np.float64))
    factors = (scales * codes.tensor_scale).astype(np.float32).astype(np.float64).reshape(-1)
    bits = _code_bits(element)
    given = np.asarray(codes.codes)
    moved = unpack(given, bits, math.prod(moved_shape)) if codes.packed else np.moveaxis(given, codes.axis, -1)
    rows = np.ascontiguousarray(moved).reshape(-1, size)
    values = np.empty(moved_shape, dtype)
    results = values.reshape(-1, size)
    if bits > TABLE_BITS:
        np.multiply(
            _decode(rows, element, None, 0, None, np.dtype(np.float64)), factors[:, None], out=results, casting="same_kind"
        )
        return np.ascontiguousarray(np.moveaxis(values, -1, codes.axis))
    _check_used(rows, element)
    table = element.table()

    def work(start: int, stop: int) -> None:
        k.look_up_blocks(rows[start:stop], table, factors[start:stop], results[start:stop])

    run_parts(work, len(rows), smallest=max(1, SMALLEST_PART // size))
    return np.ascontiguousarray(np.moveaxis(values, -1, codes.axis))
