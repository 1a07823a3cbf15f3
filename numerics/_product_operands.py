"""What sums of products need to know of their operands: values as floats, significant bits, exponents, scales."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.accumulator import Accumulator
from numerics.encoding import BlockCodes, decode
from numerics.errors import InputError
from numerics.formats import FloatFormat, get_format
from numerics.packing import unpack
from numerics.quantizer import is_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Operand:
    """One operand of a sum of products.

    Attributes:
        values: floats of 32 bits, or of 64 where 32 cannot hold them; any shape. Without their scales where there are some.
        format: the format they are in; None where the accumulator takes any.
        scales: of blocks along K, as floats of 64 bits (the shape of the values with K divided by the block); None for none.
        tensor_scale: of the whole tensor, for NVFP4.
    """

    values: NDArray[Any]
    format: FloatFormat | None = None
    scales: NDArray[np.float64] | None = None
    tensor_scale: float = 1.0


@dataclass(frozen=True)
class Extent:
    """Bounds on finite values: all are zero, or multiples of 2^(low − bits + 1) from 2^low to below 2^(high + 1) in magnitude.

    Attributes:
        bits: significant bits; 0 where all are zero.
        low, high: exponents of the smallest and largest magnitude.
        finite: whether there is no Inf and no NaN.
    """

    bits: int
    low: int
    high: int
    finite: bool


def check_tensor(x: Any, field: str, function: str) -> None:
    """See that a tensor has values on its device, and no gradient that would be lost; anything else passes.

    Raises:
        InputError: it requires a gradient while those are recorded, is sparse, or lies on the meta device.
    """
    if not is_tensor(x):
        return
    import torch

    if x.requires_grad and torch.is_grad_enabled():
        raise InputError(
            f"{field}: requires a gradient, which {function} does not pass; expected detached tensors, or numerics.emulate"
        )
    if x.layout != torch.strided:
        raise InputError(f"{field}: expected a dense tensor, got layout {x.layout}")
    if x.device.type == "meta":
        raise InputError(f"{field}: expected a tensor with values, got one on the meta device")


def host(x: Any, field: str, function: str) -> Any:
    """A tensor as an array, and ``BlockCodes`` of tensors as those of arrays; anything else as it is.

    Raises:
        InputError: as ``check_tensor``.
    """
    if isinstance(x, BlockCodes):
        return replace(x, codes=host(x.codes, field, function), scales=host(x.scales, field, function))
    if not is_tensor(x):
        return x
    import torch

    check_tensor(x, field, function)
    values = x.detach().cpu().resolve_conj().resolve_neg()
    # numpy has neither bfloat16 nor floats of 8 bits.
    foreign = values.is_floating_point() and values.dtype not in (torch.float16, torch.float32, torch.float64)
    return (values.float() if foreign else values).numpy()


def as_array(x: Any, field: str, function: str) -> NDArray[Any]:
    """An array of whatever type; tensors by way of ``host``.

    Raises:
        InputError: as ``check_tensor``; lists of rows of different lengths, and the like.
    """
    try:
        return np.asarray(host(x, field, function))
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{field}: expected an array of real numbers, rows of one length, got a {type(x).__name__}") from None


def as_values(x: Any, field: str) -> NDArray[Any]:
    """Numbers as 32-bit floats where those hold them exactly, else as 64-bit floats.

    Raises:
        InputError: not real numbers, or integers beyond 64-bit floats.
    """
    array = as_array(x, field, "a numpy array")
    if array.dtype == np.float32:
        return array
    if array.dtype == np.float16 or str(array.dtype) in ("bfloat16", "float8_e4m3fn", "float8_e5m2") or array.dtype == np.bool_:
        return array.astype(np.float32)
    if array.dtype.kind in "iu":
        if array.dtype.itemsize <= 2:
            return array.astype(np.float32)
        wide = array.astype(np.float64)
        if array.dtype.itemsize == 8 and not np.array_equal(wide.astype(array.dtype), array):
            raise InputError(f"{field}: holds integers that 64-bit floats do not; expected magnitudes of at most 2^53")
    elif array.dtype == np.float64:
        wide = array
    else:
        raise InputError(f"{field}: expected an array of real numbers, got {array.dtype}")
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return narrow if np.array_equal(narrow, wide, equal_nan=True) else wide


def extent(values: NDArray[Any]) -> Extent:
    """Bounds on the values; subnormal floats are counted at their smallest."""
    unsigned: Any
    mantissa, bias, unsigned = (23, 127, np.uint32) if values.dtype == np.float32 else (52, 1023, np.uint64)
    bits = np.ascontiguousarray(values).reshape(-1).view(unsigned) & unsigned(
        (1 << (mantissa + (8 if mantissa == 23 else 11))) - 1
    )
    infinity = unsigned((255 if mantissa == 23 else 2047) << mantissa)
    finite = not bits.size or bool(bits.max() < infinity)
    if not finite:
        bits = bits[bits < infinity]
    largest = int(bits.max()) if bits.size else 0
    if largest == 0:
        return Extent(0, 0, 0, finite)
    smallest = int((bits - unsigned(1)).min()) + 1  # zero wraps to the largest integer
    low, high = (smallest >> mantissa) - bias, (largest >> mantissa) - bias
    together = int(np.bitwise_or.reduce(bits)) & ((1 << mantissa) - 1)
    trailing = (together & -together).bit_length() - 1 if together else mantissa
    if smallest >> mantissa == 0:
        low = 1 - bias - mantissa
        return Extent(mantissa + 1, low, max(high, 1 - bias), finite)
    return Extent(mantissa + 1 - trailing, low, high, finite)


def truncate_tf32(values: NDArray[Any]) -> NDArray[Any]:
    """The leading 10 bits of the mantissa of 32-bit floats, as the tensor core reads them."""
    return (np.ascontiguousarray(values).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def in_format(values: NDArray[Any], fmt: FloatFormat) -> bool:
    """Whether the format has every value (NaN and Inf included)."""
    from numerics.quantizer import quantize

    if not fmt.has_nan and np.isnan(values).any():
        return False
    fp32 = fmt.mantissa_bits == 23 and fmt.exponent_bits == 8
    if fp32 and values.dtype == np.float32:
        return True
    return bool(np.array_equal(quantize(values, fmt), values, equal_nan=True))


def block_codes(x: BlockCodes, accumulator: Accumulator, field: str, axis: int) -> Operand:
    """An operand given as codes of elements and scales.

    Raises:
        InputError: another scale format, block size or axis than the accumulator's.
    """
    fmt = x.format
    if accumulator.scale is None:
        raise InputError(f"{field}: the accumulator takes no block scales; expected values, numerics.decode(...) gives them")
    if get_format(accumulator.scale) != fmt.scale or fmt.block_size != accumulator.scale_block:
        raise InputError(
            f"{field}: expected blocks of {accumulator.scale_block} with scales in {accumulator.scale!r}, "
            f"got {fmt.name!r} (blocks of {fmt.block_size}, scales in {fmt.scale.name!r})"
        )
    if len(x.shape) < 2 or x.axis % len(x.shape) != axis % len(x.shape):
        raise InputError(f"{field}: blocks must run along K (axis {axis} of a matrix), got axis {x.axis} of shape {x.shape}")
    if not isinstance(fmt.element, FloatFormat):
        raise InputError(f"{field}: expected floating-point elements, got {fmt.element.name!r}")
    codes = x.codes
    if x.packed:
        count = int(np.prod(x.shape, dtype=np.int64))
        moved = np.moveaxis(np.empty(x.shape, np.bool_), x.axis, -1).shape
        codes = np.moveaxis(unpack(codes, fmt.element.bits, count).reshape(moved), -1, x.axis)
    values = decode(np.ascontiguousarray(codes), fmt.element)
    found = decode(np.ascontiguousarray(x.scales), fmt.scale, dtype=np.float64)
    return Operand(values, fmt.element, np.moveaxis(found, -1, x.axis), float(x.tensor_scale))


def given_operand(x: Any, scales: Any, formats: tuple[str, ...], accumulator: Accumulator, field: str, axis: int) -> Operand:
    """An operand given as values, with their scales beside them where the accumulator takes scales.

    Raises:
        InputError: values that the accumulator's formats lack, or scales missing or not taken.
    """
    if isinstance(x, BlockCodes):
        if scales is not None:
            raise InputError(f"{field}_scales: BlockCodes bring their scales; leave it out")
        operand = block_codes(x, accumulator, field, axis)
        allowed = [get_format(name) for name in formats]
        if operand.format not in allowed:
            assert operand.format is not None
            raise InputError(f"{field}: expected elements in {' or '.join(formats)}, got {operand.format.name!r}")
        return operand
    values = as_values(x, field)
    fmt = None
    if formats:
        if len(formats) > 1:
            raise InputError(
                f"{field}: values do not tell which of {', '.join(formats)} they are in; expected BlockCodes (numerics.encode), "
                "or an accumulator that names the format, such as 'blackwell.tcgen05.k32.mxf8f6f4.e4m3.f32'"
            )
        found = get_format(formats[0])
        assert isinstance(found, FloatFormat)
        fmt = found
        if fmt.name == "tf32" and values.dtype == np.float32:
            values = truncate_tf32(values)
        elif not in_format(values, fmt):
            raise InputError(f"{field}: holds values that {fmt.name!r} does not have; expected values quantised to it")
    if accumulator.scale is None:
        if scales is not None:
            raise InputError(f"{field}_scales: the accumulator takes no block scales; leave it out")
        return Operand(values, fmt)
    if scales is None:
        raise InputError(
            f"{field}_scales: the accumulator is block-scaled; expected scales, or BlockCodes (numerics.encode) as {field}"
        )
    return Operand(values, fmt, _scales(scales, accumulator, values.shape, field, axis))


def _scales(scales: Any, accumulator: Accumulator, shape: tuple[int, ...], field: str, axis: int) -> NDArray[np.float64]:
    assert accumulator.scale is not None
    assert accumulator.scale_block is not None
    found = as_values(scales, f"{field}_scales").astype(np.float64)
    block = accumulator.scale_block
    if len(shape) < 2 or shape[axis] % block:
        raise InputError(f"{field}: expected a K that blocks of {block} divide, got shape {shape}")
    expected = list(shape)
    expected[axis] //= block
    if list(found.shape) != expected:
        raise InputError(
            f"{field}_scales: expected shape {tuple(expected)} (one for each block of {block} along K), got {found.shape}"
        )
    fmt = get_format(accumulator.scale)
    assert isinstance(fmt, FloatFormat)
    if fmt.name == "e4m3fn":
        found = np.abs(found)  # UE4M3: the sign bit is not read
    if not in_format(found, fmt):
        raise InputError(f"{field}_scales: holds values that {fmt.name!r} does not have; expected scales in that format")
    return found


def exponents(values: NDArray[Any], emin: int, nothing: int) -> NDArray[np.int32]:
    """Exponent of each value, at least ``emin``; ``nothing`` for zeros, Inf and NaN."""
    unsigned: Any
    mantissa, unsigned, ones, bias = (23, np.uint32, 255, 127) if values.dtype == np.float32 else (52, np.uint64, 2047, 1023)
    field = (np.ascontiguousarray(values).view(unsigned) >> unsigned(mantissa)).astype(np.int32) & np.int32(ones)
    found = np.maximum(field - np.int32(bias), np.int32(emin))
    found[(values == 0) | (field == ones)] = nothing
    return found
