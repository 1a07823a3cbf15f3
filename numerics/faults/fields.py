"""The bits of a format's codes, and what each of them means."""

from __future__ import annotations

from collections.abc import Sequence

from numerics.errors import InputError, unknown_name
from numerics.formats import BlockFormat, CodebookFormat, FloatFormat, Format, get_format

SCALE = "scale"
"""Not a field of a code: the bits of the scale that elements share."""


def element_format(fmt: str | Format) -> Format:
    """The format of single elements: that of a block format's elements, else the format itself."""
    found = get_format(fmt)
    return found.element if isinstance(found, BlockFormat) else found


def code_bits(fmt: str | Format) -> int:
    """Bits of an element's code, as ``numerics.encode`` gives it."""
    found = element_format(fmt)
    assert not isinstance(found, BlockFormat)
    return found.code_bits if isinstance(found, FloatFormat) else found.bits


def bit_fields(fmt: str | Format) -> dict[str, tuple[int, ...]]:
    """Fields of a code → their bits, the lowest first; bit 0 is the code's lowest.

    Floats have ``mantissa``, ``exponent`` and ``sign``; integers and fixed-point numbers ``magnitude`` and ``sign``, the highest
    bit of two's complement; codebooks ``index``. A block format has those of its elements.
    """
    found, bits = element_format(fmt), code_bits(fmt)
    if isinstance(found, CodebookFormat):
        return {"index": tuple(range(bits))}
    signed = bool(found.signed)  # type: ignore[union-attr]
    split = found.mantissa_bits if isinstance(found, FloatFormat) else bits - signed
    fields = {"mantissa" if isinstance(found, FloatFormat) else "magnitude": tuple(range(split))}
    if isinstance(found, FloatFormat):
        fields["exponent"] = tuple(range(split, bits - signed))
    if signed:
        fields["sign"] = (bits - 1,)
    return {name: positions for name, positions in fields.items() if positions}


def bit_positions(fmt: str | Format, bits: str | Sequence[int] | None) -> tuple[int, ...]:
    """The bits that are meant: all of a code for None, those of a field, or the positions given.

    Raises:
        InputError: a field that the format lacks, or a position beyond its codes.
    """
    width = code_bits(fmt)
    if bits is None:
        return tuple(range(width))
    if isinstance(bits, str):
        fields = bit_fields(fmt)
        if bits not in fields:
            raise unknown_name(f"bits ({get_format(fmt).name})", bits, fields)
        return fields[bits]
    positions = tuple(sorted({int(bit) for bit in bits}))
    if not positions or positions[0] < 0 or positions[-1] >= width:
        raise InputError(f"bits: {get_format(fmt).name!r} has bits 0 to {width - 1}, got {', '.join(map(str, bits))}")
    return positions
