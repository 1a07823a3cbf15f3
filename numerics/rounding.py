"""How a real number becomes one that a format has: rounding modes, overflow, and the parameters that kernels take."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from numerics.errors import InputError, unknown_name
from numerics.formats import FixedFormat, FloatFormat, IntFormat

Rounding = Literal["nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd", "stochastic"]
"""``nearest_even`` and ``nearest_away`` differ on ties only (the even significand; away from zero); ``toward_zero`` truncates;
``up`` and ``down`` go toward +∞ and −∞; ``to_odd`` takes an inexact value to the neighbour whose last bit is 1, so that a second,
shorter rounding is as good as one; ``stochastic`` goes away from zero with the probability of the discarded fraction."""

ROUNDINGS: Mapping[str, int] = {
    "nearest_even": 0,
    "nearest_away": 1,
    "toward_zero": 2,
    "up": 3,
    "down": 4,
    "to_odd": 5,
    "stochastic": 6,
}
"""Rounding mode → its number in the kernels."""

Overflow = Literal["saturate", "ieee", "torch", "ml_dtypes"]
"""What becomes of a value beyond the largest one.

- ``saturate``: the largest value of that sign, for Inf as well.
- ``ieee``: Inf, or NaN where the format has no Inf; the largest value where a directed rounding points inward. Inf stays Inf or
  becomes NaN.
- ``torch``: what PyTorch (2.12 and newer) does in ``Tensor.to``: E4M3FN saturates, Inf included; the others as ``ieee``.
- ``ml_dtypes``: what that package's casts do: as ``ieee``; a format without NaN saturates and turns NaN into zero of the other
  sign.
"""

OVERFLOWS = ("saturate", "ieee", "torch", "ml_dtypes")

RANDOM_BITS = 32
"""Most random bits that stochastic rounding uses."""


def check_rounding(rounding: str) -> int:
    """The number of a rounding mode.

    Raises:
        InputError: an unknown mode.
    """
    if rounding not in ROUNDINGS:
        raise unknown_name("rounding", str(rounding), ROUNDINGS)
    return ROUNDINGS[rounding]


def default_overflow(fmt: FloatFormat | IntFormat | FixedFormat) -> Overflow:
    """What a format does unless told otherwise: ``ieee`` where it has Inf, else ``saturate``."""
    return "ieee" if isinstance(fmt, FloatFormat) and fmt.has_inf else "saturate"


@dataclass(frozen=True)
class OverflowPolicy:
    """What replaces values that a float format cannot hold: ``"max"``, ``"inf"``, ``"nan"`` or, for NaN, ``"zero"``; None where
    there is no answer, so that such an input is an error.

    Attributes:
        finite: a finite value that rounds beyond the largest.
        infinite: ±Inf.
        nan: NaN.
        negative: a negative value where there is no sign bit: ``"nan"``, ``"min"`` or ``"magnitude"``.
        zero: a zero where there is none: ``"nan"`` or ``"min"``.
    """

    finite: str
    infinite: str
    nan: str | None
    negative: str | None = None
    zero: str | None = None


def overflow_policy(fmt: FloatFormat, overflow: str | None) -> OverflowPolicy:
    """The policy that a name stands for in a format.

    Raises:
        InputError: an unknown name, or ``ieee`` for a format with neither Inf nor NaN.
    """
    name = overflow or default_overflow(fmt)
    if name not in OVERFLOWS:
        raise unknown_name("overflow", str(name), OVERFLOWS)
    nan = "nan" if fmt.has_nan else None
    beyond = "inf" if fmt.has_inf else nan
    if name == "saturate":
        return OverflowPolicy("max", "max", nan, negative="min", zero="min")
    if name == "torch":
        if fmt.name == "e4m3fn":
            return OverflowPolicy("max", "max", nan)
        return OverflowPolicy(beyond or "max", beyond or "max", nan, negative="magnitude", zero="min")
    if name == "ml_dtypes":
        return OverflowPolicy(beyond or "max", beyond or "max", nan or "zero", negative="nan", zero="nan")
    if beyond is None:
        raise InputError(
            f"overflow: 'ieee' needs an Inf or a NaN, and {fmt.name!r} has neither; expected 'saturate', 'torch' or 'ml_dtypes'"
        )
    return OverflowPolicy(beyond, beyond, nan, negative="nan", zero="nan")


def float_bits(value: float, width: int) -> int:
    """The bits of a float of 32 or 64 bits."""
    if width == 32:
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def _replacement(what: str | None, fmt: FloatFormat, width: int) -> int:
    """Bits of what replaces a value; an input that has no answer is found by its NaN and never read."""
    if what == "max":
        return float_bits(fmt.max, width)
    if what == "inf":
        return float_bits(math.inf, width)
    return 0 if what == "zero" else float_bits(math.nan, width)


@lru_cache(maxsize=1024)
def float_parameters(fmt: FloatFormat, width: int, mode: str, overflow: str | None) -> tuple[int, ...]:
    """The parameters of ``numerics._kernels`` for a float format, rounded in floats of ``width`` bits."""
    mantissa, bias = (23, 127) if width == 32 else (52, 1023)
    policy = overflow_policy(fmt, overflow)
    m = fmt.mantissa_bits
    over = _replacement(policy.finite, fmt, width)
    largest = float_bits(fmt.max, width)
    # A directed rounding never takes a finite value to an infinity it points away from (IEEE 754-2019, section 7.4).
    inward = {"toward_zero": (True, True), "to_odd": (True, True), "up": (False, True), "down": (True, False)}
    positive, negative = inward.get(mode, (False, False))
    gradual = fmt.subnormals and fmt.zero
    top = 1 << (width - 1)
    everything = (1 << (fmt.exponent_bits + m)) - 1
    infinity = ((1 << fmt.exponent_bits) - 1) << m
    if fmt.specials == "ieee":
        nan_code = everything if overflow == "torch" and fmt.bits == 8 else infinity | (1 << max(m - 1, 0))
    else:
        nan_code = everything + 1 if fmt.specials == "negative_zero_is_nan" else everything
    return (
        mantissa - m,
        fmt.emin + bias if gradual else 0,
        float_bits(fmt.smallest_subnormal, width),
        largest,
        largest if positive else over,
        largest if negative else over,
        _replacement(policy.infinite, fmt, width),
        _replacement(policy.nan, fmt, width),
        top if policy.nan == "zero" else 0,
        top if fmt.has_negative_zero else 0,
        float_bits(fmt.smallest_normal, width) if not fmt.subnormals and fmt.zero else 0,
        float_bits(math.ldexp(1.0, fmt.emax + 1), width) if fmt.emax < bias else float_bits(math.inf, width) - 1,
        (fmt.emin + bias - int(fmt.zero)) << m,
        infinity,
        nan_code,
        fmt.exponent_bits + m,
        int(fmt.signed and fmt.specials != "negative_zero_is_nan"),
    )


@lru_cache(maxsize=1024)
def step_parameters(fmt: IntFormat | FixedFormat, width: int, *, clipped: bool = False) -> tuple[int, ...]:
    """The same for an integer or fixed-point format, of values (not codes).

    With ``clipped`` the kernel clips to the range itself, so that nothing overflows here.
    """
    mantissa, bias = (23, 127) if width == 32 else (52, 1023)
    infinity = float_bits(math.inf, width)
    largest = infinity if clipped else float_bits(fmt.max, width)
    lowest = infinity if clipped else float_bits(-fmt.min, width)
    parameters = [0] * 17
    parameters[1] = bias + mantissa - fmt.fraction_bits
    parameters[2] = float_bits(fmt.step, width)
    parameters[3:8] = [largest, largest, lowest, largest, float_bits(math.nan, width)]
    parameters[11] = float_bits(2.0 * fmt.max, width)
    return tuple(parameters)


def fits_lane(fmt: FloatFormat, width: int) -> bool:
    """Whether every value of the format, and its rounding, can be had in floats of ``width`` bits."""
    mantissa, bias = (23, 127) if width == 32 else (52, 1023)
    if width == 64:
        return True
    gradual = fmt.subnormals and fmt.zero
    return fmt.mantissa_bits < mantissa and fmt.emax <= bias and fmt.emin >= 1 - bias + int(not gradual)


def holds(fmt: FloatFormat, mantissa_bits: int, emin: int, emax: int) -> bool:
    """Whether a float type with these properties has every finite value of the format."""
    return fmt.mantissa_bits <= mantissa_bits and fmt.emax <= emax and fmt.emin - fmt.mantissa_bits >= emin - mantissa_bits
