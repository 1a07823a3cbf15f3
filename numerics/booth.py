"""Radix-4 Booth digits of integers, and what a multiplier gains by skipping the zeros among them.

A modified Booth encoder (MacSorley, Proc. IRE 49, 1961) reads a b-bit two's-complement number three bits at a time and writes it
as ⌈b/2⌉ digits of −2 … 2: value = Σ digit[i] · 4^i with digit[i] = −2·bit[2i+1] + bit[2i] + bit[2i−1]. Each digit costs a
multiplier one partial product, and a bit-serial one a cycle, unless it is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def booth_digits(codes: Any, bits: int) -> NDArray[np.int8]:
    """Radix-4 Booth digits.

    Args:
        codes: signed integers (values, not bit patterns) from −2^(bits − 1) to 2^(bits − 1) − 1, any shape.
        bits: width of the two's-complement number, 1 to 62.

    Returns:
        int8 of shape (\\*codes.shape, ⌈bits / 2⌉), −2 … 2, the digit of weight 1 first.

    Raises:
        InputError: not integers, or one that ``bits`` do not hold.
    """
    if not isinstance(bits, int | np.integer) or isinstance(bits, bool) or not 1 <= bits <= 62:
        raise InputError(f"bits: expected an integer from 1 to 62, got {bits!r}")
    values = np.asarray(codes)
    if values.dtype.kind not in "iu":
        raise InputError(f"codes: expected integers, got {values.dtype}")
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if values.size and (int(values.min()) < low or int(values.max()) > high):
        worst = int(values.min()) if int(values.min()) < low else int(values.max())
        raise InputError(f"codes: expected {low} to {high} ({bits} bits, signed), got {worst}")
    # With a zero below the lowest bit; the arithmetic shift repeats the sign above the highest.
    doubled = values.astype(np.int64) << 1
    windows = doubled[..., None] >> (2 * np.arange(-(-bits // 2)))
    return (((windows >> 1) & 1) + (windows & 1) - 2 * ((windows >> 2) & 1)).astype(np.int8)


def nonzero_digits(codes: Any, bits: int) -> NDArray[np.int64]:
    """How many Booth digits of each integer are not 0: the partial products, or cycles, that it costs; the shape of ``codes``.

    Raises:
        InputError: as ``booth_digits``.
    """
    return np.count_nonzero(booth_digits(codes, bits), axis=-1)


def lockstep_cycles(costs: Any, *, lanes: int) -> float:
    """Mean cycles of a step of ``lanes`` units that wait for the slowest among them.

    Args:
        costs: cycles of each operand in the order they arrive, any shape, taken flat; lane i of step s gets operand s·lanes + i.
        lanes: units that start together; 1 gives the mean of the costs.

    Raises:
        InputError: fewer than one lane, or a number of operands that they do not divide.
    """
    flat = np.asarray(costs).reshape(-1)
    if not isinstance(lanes, int | np.integer) or isinstance(lanes, bool) or lanes < 1:
        raise InputError(f"lanes: expected an integer ≥ 1, got {lanes!r}")
    if flat.size == 0 or flat.size % lanes:
        raise InputError(f"costs: expected a multiple of {lanes} operands, one for each lane, got {flat.size}")
    return float(flat.reshape(-1, lanes).max(axis=1).mean())


def bit_weight_matmul(a: Any, b: Any, *, bits: int = 8) -> NDArray[np.int64]:
    """``a @ b`` with the loop over the bit weights of ``a`` outermost: Σ_w 4^w · (digits of weight w of a) @ b.

    The reordering of "Exploring the Performance Improvement of Tensor Processing Engines through Transformation in the
    Bit-weight Dimension of MACs": every pass multiplies by −2 … 2 only, and one shift a pass serves the whole product.

    Args:
        a: integers of ``bits`` bits, shape (m, k).
        b: integers, shape (k, n).
        bits: width of ``a``.

    Returns:
        int64, shape (m, n), exact.

    Raises:
        InputError: shapes that do not match, as ``booth_digits``, or a product that may not fit 64 bits.
    """
    left, right = np.asarray(a), np.asarray(b)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise InputError(f"a, b: expected shapes (m, k) and (k, n), got {left.shape} and {right.shape}")
    if right.dtype.kind not in "iu":
        raise InputError(f"b: expected integers, got {right.dtype}")
    digits = booth_digits(left, bits)
    widest = max((abs(int(v)) for v in (right.min(), right.max())), default=0) if right.size else 0
    if (widest * left.shape[1]) << bits >= 1 << 63:
        raise InputError(f"b: a product of {bits}-bit numbers with {widest}, {left.shape[1]} of them added, may pass 64 bits")
    result = np.zeros((left.shape[0], right.shape[1]), np.int64)
    for weight in range(digits.shape[-1]):
        result += (digits[..., weight].astype(np.int64) @ right.astype(np.int64)) << (2 * weight)
    return result
