"""Area of a multiply-accumulate in a pair of formats, relative to the RTL's ``mac_int8`` (int8 × int8 onto int32).

Integers: a multiplier m·(a·b/64)^e and an adder s·w/32, for operands of a and b bits and sums of w; m, s and e from synthesised
multipliers of 8 and 32 bits and an adder of 32 (``area_figures.csv``). Floats: the straight line through the RTL's ``fp_mac`` in
E4M3 and BF16 over the product of the significands' widths; what does not grow with it goes with the width of the sums. Both are
least areas, without a clock to reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from hwsim.area.process import figures
from hwsim.rtl_ratios import ratio
from numerics.errors import InputError
from numerics.format_kinds import BlockFormat, CodebookFormat, FixedFormat, FloatFormat, IntFormat
from numerics.formats import get_format

SUM_BITS = 32
_E4M3, _BF16 = 4 * 4, 8 * 8  # products of significands' widths


@cache
def _integer() -> tuple[float, float, float]:
    """(multiplier of 8 bits, adder of 32 bits, exponent of the product of widths)."""
    narrow, wide, adder = (figures()[name].value for name in ("multiply_int8_um2", "multiply_int32_um2", "add_int32_um2"))
    return narrow / (narrow + adder), adder / (narrow + adder), math.log(wide / narrow) / math.log(32 * 32 / (8 * 8))


@cache
def _floating() -> tuple[float, float]:
    """(what does not grow with the significands, per bit of their product)."""
    e4m3, bf16 = ratio("area", "fp_mac", "e4m3"), ratio("area", "fp_mac", "bf16")
    slope = (bf16 - e4m3) / (_BF16 - _E4M3)
    return e4m3 - slope * _E4M3, slope


def _width(name: str) -> tuple[int, bool] | None:
    """(bits that a multiplier takes of an operand, whether it is a float); None for codes of a table, which say nothing of it."""
    form: Any = get_format(name)
    if isinstance(form, BlockFormat):
        form = form.element
    if isinstance(form, FloatFormat):
        return form.mantissa_bits + 1, True
    if isinstance(form, IntFormat | FixedFormat):
        return int(form.bits), False
    if isinstance(form, CodebookFormat) and form.bits == 1:
        return 1, False
    return None


@cache
def mac_area(a: str, b: str, accumulator: str = "") -> float | None:
    """Area of a multiply-accumulate, relative to ``mac_int8``; None for operands whose multiplier nobody says.

    Args:
        a, b: formats of the operands.
        accumulator: format of the sums; 32 bits by default.

    Raises:
        InputError: an unknown format.
    """
    first, second = _width(a), _width(b)
    if first is None or second is None:
        return None
    (a_bits, a_floats), (b_bits, b_floats) = first, second
    sum_bits = float(get_format(accumulator).bits) if accumulator else SUM_BITS
    if a_floats or b_floats:
        fixed, slope = _floating()
        return fixed * sum_bits / SUM_BITS + slope * a_bits * b_bits
    multiplier, adder, exponent = _integer()
    return multiplier * (a_bits * b_bits / 64) ** exponent + adder * sum_bits / SUM_BITS


def lane_area() -> float:
    """Area of a lane of a vector unit: a multiply-add in fp32 (guess)."""
    area = mac_area("fp32", "fp32")
    assert area is not None
    return area


def element_area(mac_formats: Mapping[str, float] | Iterable[str], accumulator: str = "") -> float | None:
    """Area of the datapath of a processing element, relative to ``mac_int8``: that of its largest format, which the others share.

    Args:
        mac_formats: ``"int8"`` or ``"bf16*int8"`` → multiply-accumulates a cycle (1 where none are given).
        accumulator: format of the sums; 32 bits by default.

    Returns:
        None where a format's multiplier is not known.

    Raises:
        InputError: no formats, an unknown one.
    """
    rates = mac_formats if isinstance(mac_formats, Mapping) else dict.fromkeys(mac_formats, 1.0)
    if not rates:
        raise InputError("mac_formats: expected at least one pair of formats, got none")
    found = []
    for key, rate in rates.items():
        first, _, second = key.partition("*")
        area = mac_area(first, second or first, accumulator)
        if area is None:
            return None
        found.append(rate * area)
    return max(found)
