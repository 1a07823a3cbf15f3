"""Integer codes of 1 to 16 bits, densely packed into bytes: the first code in the lowest bits (as ml_dtypes and OCP MX do)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._fields import check_integer
from numerics.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_CHUNK = 1 << 16
"""Codes at a time, a multiple of 8 so that each chunk fills whole bytes: what is unpacked to single bits stays in the cache."""


def code_dtype(bits: int) -> np.dtype[Any]:
    """The narrowest unsigned type that has ``bits`` bits."""
    return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32 if bits <= 32 else np.uint64)


def check_codes(codes: NDArray[Any], bits: int) -> None:
    """See that every code fits ``bits`` bits.

    Raises:
        InputError: not integers, or one out of range.
    """
    if codes.dtype.kind not in "iu":
        raise InputError(f"codes: expected integers, got {codes.dtype}")
    if codes.dtype.kind == "u" and 8 * codes.dtype.itemsize <= bits:
        return
    if codes.size and (int(codes.min()) < 0 or int(codes.max()) >> bits):
        worst = int(codes.min()) if codes.min() < 0 else int(codes.max())
        raise InputError(f"codes: expected 0 to {(1 << bits) - 1} ({bits} bits), got {worst}")


def _check_bits(bits: Any) -> int:
    bits = check_integer("bits", bits)
    if not 1 <= bits <= 16:
        raise InputError(f"bits: expected 1 to 16, got {bits}")
    return bits


def pack(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Codes into bytes.

    Args:
        codes: unsigned integers below 2^bits, any shape; taken in C order.
        bits: 1 to 16.

    Returns:
        ⌈codes · bits / 8⌉ bytes; unused bits of the last are 0.

    Raises:
        InputError: a code out of range, or bits no integer or outside 1 … 16.
    """
    bits = _check_bits(bits)
    codes = np.asarray(codes)
    check_codes(codes, bits)
    flat = codes.reshape(-1)
    if bits == 8:
        return flat.astype(np.uint8)
    if bits == 16:
        return flat.astype("<u2").view(np.uint8)
    if bits in (1, 2, 4):
        each = 8 // bits
        small = flat.astype(np.uint8, copy=False)
        packed = np.zeros(-(-flat.size // each), np.uint8)
        for place in range(each):
            part = small[place::each]
            packed[: part.size] |= part << np.uint8(place * bits)
        return packed
    packed = np.empty(-(-flat.size * bits // 8), np.uint8)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype("<u2").view(np.uint8).reshape(-1, 2)
        filled = np.packbits(np.unpackbits(part, axis=1, count=bits, bitorder="little").reshape(-1), bitorder="little")
        packed[start * bits // 8 :][: filled.size] = filled
    return packed


def unpack(packed: NDArray[Any], bits: int, count: int) -> NDArray[Any]:
    """The ``count`` codes in ``packed``, in the narrowest unsigned type.

    Raises:
        InputError: not ⌈count · bits / 8⌉ bytes, a count that is no integer ≥ 0, or bits no integer or outside 1 … 16.
    """
    bits, count = _check_bits(bits), check_integer("count", count, least=0)
    packed = np.asarray(packed)
    if packed.dtype != np.uint8:
        raise InputError(f"packed: expected bytes (uint8), got {packed.dtype}")
    flat = packed.reshape(-1)
    if flat.size != -(-count * bits // 8):
        raise InputError(f"packed: {count} codes of {bits} bits take {-(-count * bits // 8)} bytes, got {flat.size}")
    if bits == 8:
        return flat.copy()
    if bits == 16:
        return flat.view("<u2").astype(np.uint16)
    if bits in (1, 2, 4):
        each = 8 // bits
        codes = np.empty(flat.size * each, np.uint8)
        for place in range(each):
            codes[place::each] = (flat >> np.uint8(place * bits)) & np.uint8((1 << bits) - 1)
        return codes[:count]
    codes = np.empty(count, code_dtype(bits))
    for start in range(0, count, _CHUNK):
        part = codes[start : start + _CHUNK]
        wide = np.zeros((part.size, 16), np.uint8)
        wide[:, :bits] = np.unpackbits(flat[start * bits // 8 :], count=part.size * bits, bitorder="little").reshape(-1, bits)
        part[:] = np.packbits(wide, axis=1, bitorder="little").view("<u2").reshape(-1)
    return codes
