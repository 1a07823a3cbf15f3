"""``quantize``: real numbers to those that a format has, for numpy arrays and torch tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.errors import InputError
from numerics.formats import BlockFormat, CodebookFormat, FixedFormat, FloatFormat, Format, IntFormat, get_format
from numerics.rounding import (
    OVERFLOWS,
    RANDOM_BITS,
    check_rounding,
    holds,
    overflow_policy,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class Draw:
    """Where the random bits of stochastic rounding come from.

    Attributes:
        key: start of the stream that an integer seed gives; 0 where there is none.
        kept: mask of the bits that count, aligned to the top of 32 bits.
        words: one word an element, aligned in the same way, if they were given.
    """

    key: int = 0
    kept: int = 0
    words: Any = None


def stream_key(seed: int) -> int:
    """The start of a seed's random stream: SplitMix64's first output, so that neighbouring seeds share nothing."""
    z = (seed + 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


def make_draw(rounding: str, seed: Any, random_bits: int, shape: tuple[int, ...]) -> Draw:
    """Check ``seed`` and ``random_bits`` against the rounding mode.

    Raises:
        InputError: a seed missing, not needed, negative or of another shape; random words beyond ``random_bits``.
    """
    if not isinstance(random_bits, int | np.integer) or not 1 <= random_bits <= RANDOM_BITS:
        raise InputError(f"random_bits: expected an integer from 1 to {RANDOM_BITS}, got {random_bits!r}")
    if rounding != "stochastic":
        if seed is not None:
            raise InputError(f"seed: rounding {rounding!r} draws no random bits; leave seed out or give rounding='stochastic'")
        if random_bits != RANDOM_BITS:
            raise InputError(
                f"random_bits: rounding {rounding!r} draws none; leave random_bits out or give rounding='stochastic'"
            )
        return Draw()
    if seed is None:
        raise InputError(
            "seed: stochastic rounding needs one: an integer, or an array of random words of random_bits bits, of the shape of x"
        )
    kept = ((1 << random_bits) - 1) << (32 - random_bits)
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        if not 0 <= seed < 1 << 64:
            raise InputError(f"seed: expected an integer from 0 to 2^64 − 1, got {seed}")
        return Draw(stream_key(int(seed)), kept)
    words = seed.detach().cpu().numpy() if hasattr(seed, "detach") else np.asarray(seed)
    if words.dtype.kind not in "iu":
        raise InputError(f"seed: expected an integer or an array of integers, got {words.dtype}")
    if words.shape != shape:
        raise InputError(f"seed: expected random words of shape {shape}, got {words.shape}")
    if words.size and (words.min() < 0 or int(words.max()) >= 1 << random_bits):
        worst = int(words.min()) if words.min() < 0 else int(words.max())
        raise InputError(f"seed: random words must lie in 0 … 2^{random_bits} − 1 (random_bits={random_bits}), got {worst}")
    aligned = np.ascontiguousarray(words).astype(np.uint32) << np.uint32(32 - random_bits)
    return Draw(0, kept, aligned.ravel())


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a torch tensor, without importing torch."""
    return type(x).__module__.partition(".")[0] == "torch" or any(c.__module__ == "torch" for c in type(x).__mro__)


def quantize(
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
    out: Any = None,
) -> Any:
    """The nearest values of ``x`` that a format has, as floats of the type of ``x``.

    Every input is rounded once, directly from its own type. With a scale, ``x / scale`` is rounded and multiplied by the scale
    again; both operations round as the type of ``x`` does.

    Args:
        x: numpy array or torch tensor (any device) of 16-, 32- or 64-bit floats, any shape; or a number.
        fmt: a format or its name.
        rounding: see ``numerics.rounding.Rounding``.
        overflow: see ``numerics.rounding.Overflow``; ``ieee`` where the format has Inf, else ``saturate``.
        scale: positive number, or an array that broadcasts to the shape of x. For a block format with a scale for the tensor
            (NVFP4) it is that scale, otherwise found from x; other block formats find their scales themselves.
        zero_point: integer code that stands for 0, for integer formats.
        axis: for a block format, along which its blocks run; its length must be a multiple of the block size. Other formats look
            at each element alone, whatever the axis.
        seed: for ``stochastic``, an integer, or an array of integers of ``random_bits`` bits with the shape of x. The same seed
            gives the same bits on any number of threads and on any device.
        random_bits: how many random bits are compared with the discarded part, for ``stochastic``.
        out: array or tensor that takes the result; a new one otherwise.

    Returns:
        An array (tensor, on the same device) of the shape and type of x; ``out`` if given. Gradients pass straight through
        where x requires one.

    Raises:
        InputError: an unknown name, a scale that is not positive and finite, a NaN in x where the format has none, a missing
            seed, a block that does not divide, a type that cannot hold the result.
    """
    request = Request.check(fmt, rounding, overflow, zero_point)
    if is_tensor(x):
        from numerics import _tensors

        return _tensors.quantize(x, request, scale, axis, seed, random_bits, out)
    from numerics import _arrays

    array, dtype = as_floats(x)
    check_axis(request.fmt, array.shape, axis)
    target = _target(out, array.shape, request.fmt, dtype)
    if out is not None and request.lacks_nan and array.size and np.isnan(array.min()):
        raise _arrays.nan_error(request.fmt)  # before anything is overwritten
    draw = make_draw(rounding, seed, random_bits, array.shape)
    shifted = np.may_share_memory(array, target) and array.ctypes.data != target.ctypes.data
    direct = target.dtype == array.dtype and target.flags.c_contiguous and not shifted
    result = target if direct else np.empty(array.shape, array.dtype)
    scales = check_scale(scale, request.fmt, array.shape, array.dtype)
    _arrays.convert(array, result, request, scales, axis, draw)
    if result is not target:
        with np.errstate(over="ignore"):
            narrow = result.astype(target.dtype)
        if not np.array_equal(narrow, result, equal_nan=True):
            raise cannot_hold(str(target.dtype), request.fmt, given=out is not None)
        target[...] = narrow
    if out is None and np.isscalar(x):
        return target[()]
    return target if out is None else out


@dataclass(frozen=True)
class Request:
    """A checked conversion: the format, the rounding mode and its number, the overflow policy's name, the zero point."""

    fmt: Format
    rounding: str
    mode: int
    overflow: str | None
    zero_point: int

    @property
    def lacks_nan(self) -> bool:
        """Whether a NaN has no place in the result."""
        if isinstance(self.fmt, FloatFormat):
            return overflow_policy(self.fmt, self.overflow).nan is None
        return not isinstance(self.fmt, BlockFormat)

    @classmethod
    def check(cls, fmt: str | Format, rounding: str, overflow: str | None, zero_point: int = 0) -> Request:
        """Check what does not depend on the values."""
        found = get_format(fmt)
        if found.name in ("bool", "complex64", "complex128"):
            raise InputError(f"fmt: {found.name!r} is there for its bytes only; expected a format of real numbers")
        mode = check_rounding(rounding)
        if isinstance(found, BlockFormat):
            if overflow not in (None, "saturate"):
                raise InputError(f"overflow: elements of a block saturate; expected 'saturate', got {overflow!r}")
        elif isinstance(found, FloatFormat):
            overflow_policy(found, overflow)
        elif overflow not in (None, *OVERFLOWS):
            overflow_policy(_NAMED_FLOAT, overflow)
        elif overflow == "ieee":
            raise InputError(f"overflow: 'ieee' needs an Inf or a NaN, and {found.name!r} has neither; expected 'saturate'")
        if isinstance(found, CodebookFormat) and rounding not in ("nearest_even", "nearest_away", "up", "down", "toward_zero"):
            raise InputError(
                f"rounding: a codebook has no {rounding!r}; expected nearest_even, nearest_away, toward_zero, up or down"
            )
        if not isinstance(zero_point, int | np.integer) or isinstance(zero_point, bool):
            raise InputError(f"zero_point: expected an integer, got {zero_point!r}")
        if zero_point:
            if not isinstance(found, IntFormat):
                raise InputError(f"zero_point: only integer formats have one, {found.name!r} has not; expected 0")
            if not found.code_min <= zero_point <= found.code_max:
                raise InputError(f"zero_point: expected {found.code_min} to {found.code_max} ({found.name}), got {zero_point}")
        return cls(found, rounding, mode, overflow, int(zero_point))


_NAMED_FLOAT = FloatFormat("fp32", 8, 23)


def cannot_hold(dtype: str, fmt: Format, *, given: bool = True) -> InputError:
    """The error for a type that is too narrow for a result: that of ``out``, or of x where no ``out`` was given."""
    if given:
        return InputError(f"out: {dtype} cannot hold the result in {fmt.name!r}; expected a type with more bits")
    return InputError(f"x: {dtype} cannot hold the result in {fmt.name!r}; expected float32 or float64, or an out of such a type")


def check_axis(fmt: Format, shape: tuple[int, ...], axis: Any) -> None:
    """See that ``axis`` is one of x, and that blocks can run along it."""
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool):
        raise InputError(f"axis: expected an integer, got {axis!r}")
    if isinstance(fmt, BlockFormat):
        from numerics._blocks import check_axis as check_blocks

        check_blocks(shape, int(axis), fmt)
    elif shape and not -len(shape) <= axis < len(shape):
        raise InputError(f"axis: expected {-len(shape)} to {len(shape) - 1} (x has {len(shape)} dimensions), got {axis}")


def as_floats(x: Any) -> tuple[NDArray[Any], np.dtype[Any]]:
    """``x`` as a contiguous array of 32- or 64-bit floats, and its own type."""
    array = np.asarray(x)
    if isinstance(x, int | list | tuple) and array.dtype.kind in "iu":
        array = array.astype(np.float64)
    dtype = array.dtype
    if dtype in (np.float32, np.float64):
        return np.ascontiguousarray(array).reshape(array.shape), dtype
    if dtype == np.float16 or str(dtype) == "bfloat16":
        return np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape), dtype
    raise InputError(f"x: expected 16-, 32- or 64-bit floats, got {dtype}")


def _target(out: Any, shape: tuple[int, ...], fmt: Format, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array that takes the result."""
    if out is not None:
        if not isinstance(out, np.ndarray):
            raise InputError(f"out: expected a numpy array, got {type(out).__name__}")
        if out.shape != shape:
            raise InputError(f"out: expected shape {shape}, got {out.shape}")
        if not out.flags.writeable:
            raise InputError("out: the array is read-only")
        dtype = out.dtype
    if dtype not in (np.float16, np.float32, np.float64) and str(dtype) != "bfloat16":
        raise InputError(f"out: expected floats, got {dtype}")
    check_fits(fmt, 64 if dtype == np.float64 else 32)
    return np.empty(shape, dtype) if out is None else out


def check_fits(fmt: Format, bits: int) -> None:
    """See that floats of 32 or 64 bits have every value of the format; a format finer than them quantises to the float itself.

    Raises:
        InputError: they cannot hold the result.
    """
    mantissa, emin, emax = (23, -126, 127) if bits == 32 else (52, -1022, 1023)
    if isinstance(fmt, FloatFormat):
        if fmt.mantissa_bits > mantissa or fmt.emax > emax or holds(fmt, mantissa, emin, emax):
            return
        raise cannot_hold(f"float{bits}", fmt)
    if isinstance(fmt, IntFormat | FixedFormat) and fmt.bits - int(fmt.signed) > mantissa + 1:
        raise cannot_hold(f"float{bits}", fmt)


def check_scale(scale: Any, fmt: Format, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """The scale as a number or an array of the type of x; None if there is none.

    Raises:
        InputError: not positive and finite, or not of a shape that broadcasts to that of x.
    """
    if scale is None:
        return None
    if isinstance(fmt, BlockFormat) and not fmt.tensor_scale:
        raise InputError(f"scale: {fmt.name!r} finds its blocks' scales itself; leave scale out")
    values = scale.detach().cpu().numpy() if hasattr(scale, "detach") else np.asarray(scale)
    if values.dtype.kind not in "fiu" and str(values.dtype) != "bfloat16":
        raise InputError(f"scale: expected a number or an array of numbers, got {scale!r}")
    values = values.astype(dtype)
    good = np.isfinite(values) & (values > 0)
    if not good.all():
        bad = values[~good].flat[0] if values.ndim else values
        raise InputError(f"scale: expected positive, finite numbers, got {bad}")
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())[()]
    if isinstance(fmt, BlockFormat):
        raise InputError(f"scale: {fmt.name!r} takes one number for the tensor, got an array of shape {values.shape}")
    try:
        np.broadcast_to(values, shape)
    except ValueError:
        raise InputError(f"scale: expected a shape that broadcasts to {shape}, got {values.shape}") from None
    return values
