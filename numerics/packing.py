"""Integer codes of 1 to 16 bits, densely packed into bytes: the first code in the lowest bits (as ml_dtypes and OCP MX do)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def pack(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Codes into bytes.

    Args:
        codes: unsigned integers below 2^bits, any shape; taken in C order.
        bits: 1 to 16.

    Returns:
        ⌈codes · bits / 8⌉ bytes; unused bits of the last are 0.

    Raises:
        InputError: a code out of range, or bits outside 1 … 16.
    """
    if not 1 <= bits <= 16:
        raise InputError(f"bits: expected 1 to 16, got {bits}")
    codes = np.asarray(codes)
    check_codes(codes, bits)
    flat = codes.reshape(-1)
    if bits == 8:
        return flat.astype(np.uint8)
    if bits == 16:
        return flat.astype("<u2").view(np.uint8)
    if bits in (1, 2, 4):
        each = 8 // bits
        padded = np.zeros(-(-flat.size // each) * each, np.uint8)
        padded[: flat.size] = flat
        packed = padded[0::each].copy()
        for place in range(1, each):
            packed |= padded[place::each] << np.uint8(place * bits)
        return packed
    binary = np.unpackbits(flat.astype("<u2").view(np.uint8).reshape(-1, 2), axis=1, count=bits, bitorder="little")
    return np.packbits(binary.reshape(-1), bitorder="little")


def unpack(packed: NDArray[Any], bits: int, count: int) -> NDArray[Any]:
    """The ``count`` codes in ``packed``, in the narrowest unsigned type.

    Raises:
        InputError: not ⌈count · bits / 8⌉ bytes, or bits outside 1 … 16.
    """
    if not 1 <= bits <= 16:
        raise InputError(f"bits: expected 1 to 16, got {bits}")
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
    binary = np.unpackbits(flat, count=count * bits, bitorder="little").reshape(count, bits)
    wide = np.zeros((count, 16), np.uint8)
    wide[:, :bits] = binary
    return np.packbits(wide, axis=1, bitorder="little").view("<u2").reshape(count).astype(code_dtype(bits))
