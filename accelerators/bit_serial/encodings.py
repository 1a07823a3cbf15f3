"""How an integer is written as digits that a multiplier takes one at a time: value = Σ digit[i] · radix^i."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from accelerators.bit_serial.booth import check_fits
from hwsim.views.display import displayed
from numerics import booth_digits
from numerics.errors import unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

EncodingName = Literal["booth", "naf", "sign_magnitude"]
ENCODINGS: tuple[EncodingName, ...] = ("booth", "naf", "sign_magnitude")
"""Radix-4 Booth digits of −2 … 2 (MacSorley, Proc. IRE 49, 1961); the non-adjacent form, also called canonical signed digits, −1,
0 and 1, no two neighbours of them non-zero (Reitwiesner, Advances in Computers 1, 1960); and the bits of the magnitude with the
sign of the number."""


@displayed
@dataclass(frozen=True)
class Encoding:
    """One way to write integers of ``bits`` bits.

    Attributes:
        name: of ``ENCODINGS``.
        bits: two's complement, 2 to 16.
        places: digits of a number.
        shift: log2 of the radix, the distance of two neighbouring weights.
    """

    name: EncodingName
    bits: int
    places: int
    shift: int

    def digits(self, codes: Any) -> NDArray[np.int8]:
        """Digits of integers, shape (\\*codes.shape, places), the digit of weight 1 first.

        Raises:
            InputError: not integers, or one that ``bits`` do not hold.
        """
        values = np.asarray(codes)
        if self.name == "booth":
            return booth_digits(values, self.bits)
        check_fits("codes", values, self.bits)
        wide, places = values.astype(np.int64)[..., None], np.arange(self.places)
        if self.name == "sign_magnitude":
            return (((np.abs(wide) >> places) & 1) * np.sign(wide)).astype(np.int8)
        # 3x − x = 2x: bits that are set in 3x alone are digits 1, bits set in x alone are digits −1, of twice the weight.
        triple = (3 * wide) >> (places + 1) & 1
        once = wide >> (places + 1) & 1
        return (triple - once).astype(np.int8)


@cache
def encoding(name: str, bits: int = 8) -> Encoding:
    """The encoding of that name for integers of ``bits`` bits.

    Raises:
        InputError: an unknown name.
    """
    if name not in ENCODINGS:
        raise unknown_name("encoding", name, ENCODINGS)
    return Encoding(name, bits, *((-(-bits // 2), 2) if name == "booth" else (bits, 1)))
