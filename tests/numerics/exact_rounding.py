"""Rounding by exact rational arithmetic, from the fields that define a format: nothing is shared with the package but those."""

import math
from fractions import Fraction


def power(exponent):
    """2^exponent, exactly."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def bias_of(fmt):
    return (1 << (fmt.exponent_bits - 1)) - 1 if fmt.bias is None else fmt.bias


def code_value(code, fmt):
    """What a code of a float format means: a ``Fraction``, or ±Inf or NaN."""
    m, e = fmt.mantissa_bits, fmt.exponent_bits
    field, fraction, negative = (code >> m) & ((1 << e) - 1), code & ((1 << m) - 1), fmt.signed and code >> (e + m)
    top = field == (1 << e) - 1
    if fmt.specials == "ieee" and top:
        return math.nan if fraction else -math.inf if negative else math.inf
    if fmt.specials == "max_is_nan" and top and fraction == (1 << m) - 1:
        return math.nan
    if fmt.specials == "negative_zero_is_nan" and negative and not field and not fraction:
        return math.nan
    if field or not fmt.zero:
        value = (1 + Fraction(fraction, 1 << m)) * power(field - bias_of(fmt))
    else:
        value = Fraction(fraction, 1 << m) * power(1 - bias_of(fmt)) if fmt.subnormals else Fraction(0)
    return -value if negative else value


def largest_value(fmt):
    """The largest finite value."""
    code = (1 << (fmt.exponent_bits + fmt.mantissa_bits)) - 1
    while not isinstance(code_value(code, fmt), Fraction):
        code -= 1 << fmt.mantissa_bits if fmt.specials == "ieee" else 1
    return code_value(code | ((1 << fmt.mantissa_bits) - 1 if fmt.specials == "ieee" else 0), fmt)


def floor_log2(x):
    """⌊log2 x⌋ of a positive ``Fraction``."""
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent - (x < power(exponent))


def goes_away(rest, odd, negative, mode, chance):
    """Whether a magnitude that lies ``rest`` steps (0 ≤ rest < 1) above a multiple goes to the next one."""
    return (
        rest > 0
        and {
            "nearest_even": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and odd),
            "nearest_away": rest >= Fraction(1, 2),
            "toward_zero": False,
            "up": not negative,
            "down": negative,
            "to_odd": not odd,
            "stochastic": chance is not None and rest + chance >= 1,
        }[mode]
    )


def round_to_step(x, step, mode, chance=None):
    """A ``Fraction`` to a multiple of ``step``."""
    quotient, rest = divmod(abs(x) / step, 1)
    magnitude = (quotient + goes_away(rest, quotient % 2, x < 0, mode, chance)) * step
    return -magnitude if x < 0 else magnitude


def rounded(x, fmt, mode, overflow, chance=None):
    """A float in a float format that has a zero, as a float. ``overflow``: ``saturate`` or ``ieee``; ``chance``: of
    ``stochastic``, a ``Fraction`` in [0, 1)."""
    if math.isnan(x):
        return math.nan
    largest = largest_value(fmt)
    beyond = math.inf if fmt.specials == "ieee" else math.nan
    negative = math.copysign(1, x) < 0
    if negative and not fmt.signed:
        return 0.0 if x == 0 or overflow == "saturate" else math.nan
    if math.isinf(x):
        magnitude = float(largest) if overflow == "saturate" else beyond
    elif x == 0:
        magnitude = 0.0
    else:
        emin, exponent = 1 - bias_of(fmt), floor_log2(abs(Fraction(x)))
        step = power((max(exponent, emin) if fmt.subnormals else exponent) - fmt.mantissa_bits)
        exact = abs(round_to_step(Fraction(x), step, mode, chance))
        if not fmt.subnormals and exact < power(emin):
            exact = Fraction(0)
        if exact > largest:
            inward = mode in ("toward_zero", "to_odd") or (mode == "up" and negative) or (mode == "down" and not negative)
            magnitude = float(largest) if overflow == "saturate" or inward else beyond
        else:
            magnitude = float(exact)
    keeps_sign = magnitude != 0 or fmt.specials != "negative_zero_is_nan"
    return -magnitude if negative and keeps_sign else magnitude
