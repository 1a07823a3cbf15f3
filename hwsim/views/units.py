"""Numbers as people read them: three significant digits and a decimal prefix."""

from __future__ import annotations

import math

_PREFIXES = dict(zip(range(-18, 21, 3), ["a", "f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E"], strict=True))


def _exponent(value: float, digits: int) -> int:
    """Exponent of the prefix under which ``value``, rounded to ``digits`` digits, lies in [1, 1000)."""
    _, power = f"{abs(value):.{digits - 1}e}".split("e")
    return min(max(int(power) // 3 * 3, min(_PREFIXES)), max(_PREFIXES))


def si(value: float | None, unit: str = "", *, digits: int = 3) -> str:
    """``value`` with a decimal prefix, such as ``1.23 ms``, ``4.1 GMAC`` or ``25.6 MB`` (1 MB is 10⁶ B); None is unknown."""
    if value is None:
        return "unknown"
    if not math.isfinite(value):
        text = "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
        return f"{text} {unit}".rstrip()
    if value == 0:
        return f"0 {unit}".rstrip()
    exponent = _exponent(value, digits)
    scaled = float(f"{value:.{digits - 1}e}") / 10.0**exponent
    # Past the last prefix (or before the first) the number itself goes into scientific notation.
    text = f"{scaled:.{digits}g}" if 1e-3 <= abs(scaled) < 1e3 else f"{scaled:.{digits - 1}e}"
    return f"{text} {_PREFIXES[exponent]}{unit}".rstrip()


def axis_scale(largest: float, unit: str) -> tuple[float, str]:
    """What to multiply the values of an axis by, and their unit, for ``largest`` to read from 1 to 1000."""
    if not math.isfinite(largest) or largest <= 0:
        return 1.0, unit
    exponent = _exponent(largest, 3)
    return 10.0**-exponent, _PREFIXES[exponent] + unit


def percent(fraction: float) -> str:
    """A fraction as ``12.3 %``; what rounds to zero but is not reads ``<0.1 %``."""
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    return f"{100 * fraction:.1f} %"


def shorten(text: str, width: int) -> str:
    """``text`` on one line of at most ``width`` characters; the middle goes, for names differ at the ends."""
    text = "".join(c if c.isprintable() else "�" for c in text)
    if len(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    tail = width // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def counted(number: int, singular: str) -> str:
    """``1 operator``, ``3 operators``."""
    return f"{number} {singular}" if number == 1 else f"{number} {singular}s"
