"""Number formats by name: those there are, those that a name spells out, and the types of numpy, torch and ml_dtypes.

The values of NF4: Dettmers et al., arXiv 2305.14314, appendix E. Sources of the others: ``numerics.format_kinds``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from numerics.errors import InputError, unknown_name
from numerics.format_kinds import (
    TABLE_BITS,
    BlockFormat,
    CodebookFormat,
    FixedFormat,
    FloatFormat,
    Format,
    IntFormat,
    dynamic_format,
)

__all__ = [
    "TABLE_BITS",
    "BlockFormat",
    "CodebookFormat",
    "FixedFormat",
    "FloatFormat",
    "Format",
    "IntFormat",
    "dynamic_format",
    "format_names",
    "formats_text",
    "get_format",
    "is_float",
    "register_format",
]

_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

_PLAIN: list[Format] = [
    FloatFormat("fp64", 11, 52),
    FloatFormat("fp32", 8, 23),
    FloatFormat("tf32", 8, 10, storage_bits=32),
    FloatFormat("bf16", 8, 7),
    FloatFormat("fp16", 5, 10),
    FloatFormat("e5m2", 5, 2),
    FloatFormat("e5m2fnuz", 5, 2, bias=16, specials="negative_zero_is_nan"),
    FloatFormat("e4m3", 4, 3),
    FloatFormat("e4m3fn", 4, 3, specials="max_is_nan"),
    FloatFormat("e4m3fnuz", 4, 3, bias=8, specials="negative_zero_is_nan"),
    FloatFormat("e4m3b11fnuz", 4, 3, bias=11, specials="negative_zero_is_nan"),
    FloatFormat("e3m4", 3, 4),
    FloatFormat("e3m2fn", 3, 2, specials="none"),
    FloatFormat("e2m3fn", 2, 3, specials="none"),
    FloatFormat("e2m1fn", 2, 1, specials="none"),
    FloatFormat("e8m0fnu", 8, 0, specials="max_is_nan", signed=False, zero=False),
    FloatFormat("e8m13", 8, 13),  # what FP8 tensor cores keep of a sum
    *(IntFormat(f"int{b}", b) for b in (*range(2, 17), 32, 64)),
    *(IntFormat(f"int{b}_symmetric", b, symmetric=True) for b in range(2, 17)),
    *(IntFormat(f"uint{b}", b, signed=False) for b in (*range(1, 17), 32, 64)),
    CodebookFormat("binary", (-1.0, 1.0)),
    CodebookFormat("ternary", (-1.0, 0.0, 1.0)),
    CodebookFormat("nf4", _NF4),
    dynamic_format(),
    dynamic_format(signed=False),
]
_BY_NAME: dict[str, Format] = {f.name: f for f in _PLAIN}
_BY_NAME["bool"] = IntFormat("bool", 8, signed=False)
# A complex number is carried for its bytes: two floats.
_BY_NAME["complex64"] = FloatFormat("complex64", 8, 23, storage_bits=64)
_BY_NAME["complex128"] = FloatFormat("complex128", 11, 52, storage_bits=128)


def _block(name: str, element: str | FixedFormat, block_size: int, scale: str, **more: Any) -> None:
    found: Any = _BY_NAME[element] if isinstance(element, str) else element
    scale_format: Any = _BY_NAME[scale]
    _BY_NAME[name] = BlockFormat(name, found, block_size, scale_format, **more)


_block("mxfp8_e4m3", "e4m3fn", 32, "e8m0fnu")
_block("mxfp8_e5m2", "e5m2", 32, "e8m0fnu")
_block("mxfp6_e2m3", "e2m3fn", 32, "e8m0fnu")
_block("mxfp6_e3m2", "e3m2fn", 32, "e8m0fnu")
_block("mxfp4", "e2m1fn", 32, "e8m0fnu")
_block("mxint8", FixedFormat("q2.6_symmetric", 2, 6, symmetric=True), 32, "e8m0fnu")
_block("nvfp4", "e2m1fn", 16, "e4m3fn", scale_rounding="nearest", tensor_scale=True)

_FIXED_POINT = re.compile(r"^(u?)q(\d{1,2})\.(\d{1,2})$")
_ANY_FLOAT = re.compile(r"^e(\d{1,2})m(\d{1,2})$")
_ANY_INTEGER = re.compile(r"^u?int\d+$")
_SIZED_FLOAT = re.compile(r"^float(\d)_(e\dm\d\w*)$")

_OTHER_NAMES = {
    "float64": "fp64", "double": "fp64", "float32": "fp32", "float": "fp32", "tfloat32": "tf32", "bfloat16": "bf16",
    "float16": "fp16", "half": "fp16", "bool_": "bool",
}  # fmt: skip
"""What C, numpy and torch call formats ("float" as in C and torch, of 32 bits)."""


def format_names() -> list[str]:
    """Names of every format there is by name (``q4.12``, ``uq4.12`` and any IEEE-like ``e6m9`` are understood besides)."""
    return sorted(_BY_NAME)


def register_format(new: Format) -> Format:
    """Make a format of your own known by its name, so that recipes and workloads can use it.

    Raises:
        InputError: no format, or its name belongs to another one.
    """
    if not isinstance(new, Format):
        raise InputError(f"format: expected a format such as IntFormat('mine', 5), got {new!r}")
    try:
        known = get_format(new.name)
    except InputError:
        _BY_NAME[new.name] = new
        return new
    if known != new:
        raise InputError(f"format: the name {new.name!r} belongs to {known!r}; give yours another")
    return new


def get_format(name: str | Format | Any) -> Format:
    """The format called ``name`` (a format is returned as it is).

    Besides the listed names: fixed point ``q4.12`` (signed, 4 bits before the point, the sign among them, 12 after) and
    ``uq4.12``; ``e6m9``, an IEEE-like float with 6 exponent and 9 mantissa bits; what dtypes are called (``bfloat16``, ``half``,
    ``float8_e4m3fn``), and the dtypes of numpy, ml_dtypes and torch themselves; capitals, save where prose and code mean
    different formats by the same letters (``E4M3``).

    Raises:
        InputError: no such format; the message lists the nearest names.
    """
    if isinstance(name, Format):
        return name
    text = name if isinstance(name, str) else _dtype_name(name)
    if text is None:
        raise InputError(f"format: expected a name such as 'bf16', got {name!r}")
    found = _BY_NAME.get(text)
    if found is not None:
        return found
    plain = text.lower()
    if text != plain and f"{plain}fn" in _BY_NAME:
        raise InputError(f"format: unknown name {text!r}; did you mean '{plain}fn' (OCP) or {plain!r} (IEEE-like)?")
    return _understood(plain, text)


def _dtype_name(dtype: Any) -> str | None:
    """What numpy, ml_dtypes or torch calls a dtype; None for anything else."""
    if isinstance(dtype, type):
        return dtype.__name__ if dtype.__module__ in ("numpy", "ml_dtypes") else None
    kind = type(dtype)
    if (kind.__module__, kind.__name__) == ("torch", "dtype"):
        return str(dtype).removeprefix("torch.")
    import numpy as np

    return dtype.name if isinstance(dtype, np.dtype) else None


def _understood(plain: str, given: str) -> Format:
    """The format of a name in small letters that may follow a rule."""
    sized = _SIZED_FLOAT.match(plain)
    known = _BY_NAME.get(sized[2] if sized else _OTHER_NAMES.get(plain, plain))
    if known is not None and (not sized or known.bits == int(sized[1])):
        return known
    hint = None
    if fixed := _FIXED_POINT.match(plain):
        whole, fraction = int(fixed[2]), int(fixed[3])
        if 1 <= whole + fraction <= 64:
            return FixedFormat(plain, whole, fraction, signed=not fixed[1])
        hint = f"fixed point has 1 to 64 bits, this {whole + fraction}"
    elif own := _ANY_FLOAT.match(plain):
        exponent, mantissa = int(own[1]), int(own[2])
        if 1 <= exponent <= 11 and 1 <= mantissa <= 52:
            return FloatFormat(plain, exponent, mantissa)
        hint = f"a float has 1 to 11 exponent and 1 to 52 mantissa bits, this {exponent} and {mantissa}"
    elif _ANY_INTEGER.match(plain):
        hint = f"integers of up to 16, of 32 and of 64 bits have names; others are made, as IntFormat({plain!r}, bits) is"
    raise InputError(f"format: unknown name {given!r}; {hint}") if hint else unknown_name("format", given, _BY_NAME)


def formats_text(operands: Iterable[str], result: str) -> str:
    """How an operator's formats are written: ``"int8→int32"``, ``"bf16×e4m3fn→fp32"``, ``"fp32"`` where all are one."""
    distinct = list(dict.fromkeys(operands))
    return "×".join(distinct) + (f"→{result}" if result not in distinct else "")


def is_float(name: str) -> bool:
    """Whether tensors in this format hold real values that a recipe may re-format (integers, booleans are left)."""
    return isinstance(get_format(name), FloatFormat | BlockFormat) and not name.startswith("complex")
