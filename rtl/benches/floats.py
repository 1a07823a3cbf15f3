"""What the benches of floating-point units share: formats by parameters, special numbers, registers that show a result later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from numerics import FloatFormat, decode

Bits = npt.NDArray[np.uint32]
Codes = npt.NDArray[np.int64]

FP32_SPECIALS: Bits = np.array(
    [sign | bits for sign in (0, 1 << 31) for bits in (
        0, 1, 2, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x7F7FFFFE, 0x7F7FFFFF, 0x7F800000,
        0x7F800001, 0x7FBFFFFF, 0x7FC00000, 0x7FFFFFFF,
    )],
    np.uint32,
)  # fmt: skip
"""Zeros, ends of the subnormal and normal numbers and of binades, Inf, NaN, of both signs."""


def small_format(parameters: Mapping[str, int]) -> FloatFormat:
    """The format of a unit with parameters ``ExponentBits``, ``MantissaBits``, ``HasInf`` and perhaps ``HasNan``."""
    exponent, mantissa = parameters["ExponentBits"], parameters["MantissaBits"]
    if parameters["HasInf"]:
        return FloatFormat(f"e{exponent}m{mantissa}", exponent, mantissa)
    specials: Literal["max_is_nan", "none"] = "max_is_nan" if parameters.get("HasNan", 1) else "none"
    return FloatFormat(f"e{exponent}m{mantissa}fn", exponent, mantissa, specials=specials)


def special_codes(fmt: FloatFormat) -> Codes:
    """Of both signs: 0, the ends of the subnormal and normal numbers, 1 and its neighbours, Inf, and the ends of the NaN."""
    m, e = fmt.mantissa_bits, fmt.exponent_bits
    one, normal, top = ((1 << (e - 1)) - 1) << m, 1 << m, ((1 << e) - 1) << m
    last = top + (1 << m) - 1
    codes = [0, 1, normal - 1, normal, normal + 1, one - 1, one, one + 1, top - 2, top - 1, top, top + 1, last - 1, last]
    return np.unique([code | sign << (e + m) for code in codes for sign in (0, 1)])


def as_float32(bits: Any) -> npt.NDArray[np.float32]:
    """The FP32 numbers that bits stand for."""
    return np.ascontiguousarray(bits, np.uint32).view(np.float32)


def as_bits(values: Any) -> Bits:
    """The bits of numbers, each rounded to FP32."""
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(values, np.float32).view(np.uint32)


def neighbours(bits: Bits, rng: np.random.Generator, reach: int = 1) -> Bits:
    """Numbers at most ``reach`` units in the last place from the given ones, in either direction."""
    return (bits + rng.integers(-reach, reach + 1, bits.shape)).astype(np.uint32)


def values_of(codes: Codes, fmt: FloatFormat) -> npt.NDArray[np.float32]:
    """The numbers that codes stand for."""
    found: npt.NDArray[np.float32] = decode(codes.astype(np.uint32), fmt)
    return found


def shown_later(results: npt.NDArray[Any], written: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """What a register that is 0 at first shows in each cycle, where cycle t writes ``results[t]`` if ``written[t]``."""
    last = np.maximum.accumulate(np.where(written, np.arange(written.size), -1))
    held = np.where(last >= 0, results[last], 0)
    return np.concatenate([np.zeros_like(held[:1]), held[:-1]])
