"""Integers cut into slices of few bits, as converters and weights hold them.

The highest slice is in two's complement and has a sign, those below have none: v = Σ digit · 2^shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class Slice:
    """Some bits of an operand.

    Attributes:
        bits: how many.
        shift: of its lowest bit.
        signed: whether it is the highest one.
    """

    bits: int
    shift: int
    signed: bool

    @property
    def full(self) -> int:
        """The digit that full scale stands for: digits over it are in −1 to below 1, or 0 to below 1 without a sign."""
        return int(2 ** (self.bits - 1 if self.signed else self.bits))

    @property
    def weight(self) -> int:
        """What a digit of full scale is worth."""
        return self.full << self.shift

    def digits(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Digits over ``full``, in the shape of the codes."""
        part = codes >> self.shift
        if not self.signed:
            part = part & (2**self.bits - 1)
        return part.astype(np.float64) / self.full


def slices(bits: int, most: int) -> tuple[Slice, ...]:
    """An operand of so many bits in as few slices of at most ``most`` bits as there can be, as even as they can be, low first."""
    count = -(-bits // most)
    each = -(-bits // count)
    widths = [min(each, bits - i * each) for i in range(count)]
    return tuple(Slice(width, i * each, i == count - 1) for i, width in enumerate(widths))


def bits_needed(codes: npt.NDArray[Any], bits: int) -> int:
    """Bits of two's complement for codes of a format of ``bits``: one more where they come without a zero point."""
    if not codes.size:
        return bits
    low, high = int(codes.min()), int(codes.max())
    while low < -(2 ** (bits - 1)) or high >= 2 ** (bits - 1):
        bits += 1
    return bits
