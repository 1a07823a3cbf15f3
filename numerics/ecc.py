"""Error-correcting codes of memories: Hsiao's codes, which correct one wrong bit of a word and detect two (SECDED).

A word of d data bits is stored with r check bits: 5, 6, 7 and 8 for 8, 16, 32 and 64. A code is its parity-check matrix H of r
rows and d + r columns; the syndrome of a received word is the sum modulo 2 of the columns at its wrong bits. M. Y. Hsiao ("A
class of optimal minimum odd-weight-column SEC-DED codes", IBM J. Research and Development 14(4), 1970) takes distinct columns
of odd weight: one wrong bit gives its own column, two give an even syndrome that is not zero and so is never taken for one. The
fewer ones H has and the more evenly its rows hold them, the fewer and the shallower are the gates.

Which columns stand where is free, and chips differ. Here a column is a number whose bit i is its row i, and:

1. The columns of the check bits have one 1: check bit i is the parity of row i.
2. Data bits take the columns of weight 3 in increasing order, bit 0 the smallest; then, where more are needed, those of weight 5.
3. A weight of which not all columns are needed gives them one at a time: the one whose rows hold the fewest ones so far, added
   up, and among equals the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._display import displayed, displaying
from numerics.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHECK_BITS = {8: 5, 16: 6, 32: 7, 64: 8}

NO_BIT = -1
"""Position of a syndrome that points at no bit: there is no error, or more than one."""


@displayed
@dataclass(frozen=True)
class Decoded:
    """What a decoder says of each word; arrays of the shape of the words.

    Attributes:
        data: the data bits, corrected; as received where the errors cannot be corrected.
        check: the check bits, likewise.
        syndrome: 0 where the word is a code word.
        position: of the bit that was flipped back: data bits from 0, then check bits; ``NO_BIT`` where none was.
        single_error: a bit was flipped back.
        double_error: errors were found that cannot be corrected: two, or any other number whose syndrome is no column.
    """

    data: NDArray[np.uint64]
    check: NDArray[np.uint8]
    syndrome: NDArray[np.uint8]
    position: NDArray[np.int8]
    single_error: NDArray[np.bool_]
    double_error: NDArray[np.bool_]


@displayed
@dataclass(frozen=True)
class Outcomes:
    """Share of the patterns of some number of wrong bits that end in each way; they add up to 1.

    Attributes:
        corrected: the word is right again (one error only).
        detected: reported as not correctable.
        miscorrected: taken for a single error, and one more bit is wrong.
        undetected: the word looks right.
    """

    corrected: float
    detected: float
    miscorrected: float
    undetected: float


@displaying("check_bits", "code_bits")
@dataclass(frozen=True)
class Secded:
    """Hsiao's code for words of ``data_bits``.

    Attributes:
        data_bits: 8, 16, 32 or 64; the codes are (13,8), (22,16), (39,32) and (72,64).

    Raises:
        InputError: another number of bits.
    """

    data_bits: int = 64

    def __post_init__(self) -> None:
        if self.data_bits not in _CHECK_BITS or isinstance(self.data_bits, bool):
            raise InputError(f"data_bits: expected 8, 16, 32 or 64, got {self.data_bits!r}")

    @property
    def check_bits(self) -> int:
        """Check bits of a word."""
        return _CHECK_BITS[self.data_bits]

    @property
    def code_bits(self) -> int:
        """Bits of a stored word."""
        return self.data_bits + self.check_bits

    @cached_property
    def columns(self) -> NDArray[np.uint8]:
        """The columns of H, shape (code_bits,): those of the data bits, then those of the check bits."""
        rows, weight = self.check_bits, 3
        columns: list[int] = []
        ones = [0] * rows  # of each row, so far
        while len(columns) < self.data_bits:
            unused = {sum(1 << row for row in chosen): chosen for chosen in combinations(range(rows), weight)}
            missing = self.data_bits - len(columns)
            if len(unused) <= missing:
                columns += sorted(unused)
                ones = [sum(column >> row & 1 for column in columns) for row in range(rows)]
            else:
                for _ in range(missing):
                    _, best = min((sum(ones[row] for row in chosen), column) for column, chosen in unused.items())
                    columns.append(best)
                    for row in unused.pop(best):
                        ones[row] += 1
            weight += 2
        return np.array(columns + [1 << row for row in range(rows)], np.uint8)

    @cached_property
    def _byte_parity(self) -> NDArray[np.uint8]:
        """Check bits of each value of each byte of the data, the rest being 0: (bytes, 256)."""
        bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
        parts = self.columns[: self.data_bits].reshape(-1, 8)
        return np.bitwise_xor.reduce(np.where(bits, parts[:, None, :], 0), axis=2).astype(np.uint8)

    @cached_property
    def _position(self) -> NDArray[np.int8]:
        """Bit that each syndrome points at."""
        table = np.full(1 << self.check_bits, NO_BIT, np.int8)
        table[self.columns] = np.arange(self.code_bits)
        return table

    def encode(self, data: Any) -> NDArray[np.uint8]:
        """Check bits of words.

        Args:
            data: integers ≥ 0 of ``data_bits`` bits, any shape.

        Returns:
            uint8 of the same shape; bit i is the parity of row i.

        Raises:
            InputError: not integers, or one that does not fit.
        """
        return self._parity(_unsigned("data", data, self.data_bits))

    def _parity(self, words: NDArray[np.uint64]) -> NDArray[np.uint8]:
        check = np.zeros(words.shape, np.uint8)
        for index, table in enumerate(self._byte_parity):
            check ^= table[(words >> np.uint64(8 * index)) & np.uint64(255)]
        return check

    def decode(self, data: Any, check: Any) -> Decoded:
        """Correct one wrong bit of each word, and say where there are more.

        Args:
            data: the data bits as received, integers ≥ 0 of any shape.
            check: the check bits as received, of the same shape.

        Raises:
            InputError: shapes that differ, not integers, or one that does not fit.
        """
        words, checks = _unsigned("data", data, self.data_bits), _unsigned("check", check, self.check_bits).astype(np.uint8)
        if words.shape != checks.shape:
            raise InputError(f"check: expected shape {words.shape}, that of data, got {checks.shape}")
        syndrome = self._parity(words) ^ checks
        position = self._position[syndrome]
        single = position != NO_BIT
        in_data = single & (position < self.data_bits)
        # A shift by a position that is no data bit would be undefined; it is 0 there and its result is not used.
        flip = np.uint64(1) << np.where(in_data, position, 0).astype(np.uint64)
        return Decoded(
            words ^ np.where(in_data, flip, np.uint64(0)),
            np.where(single & ~in_data, checks ^ syndrome, checks),
            syndrome,
            position,
            single,
            (syndrome != 0) & ~single,
        )

    def outcomes(self, errors: int) -> Outcomes:
        """What becomes of all patterns of ``errors`` wrong bits, exactly: the code is linear, so the data do not matter.

        A pattern counts as miscorrected when a bit is flipped that was right, be it of the data or a check bit.

        Raises:
            InputError: a number of errors that is not from 1 to ``code_bits``.
        """
        if not isinstance(errors, int | np.integer) or isinstance(errors, bool) or not 1 <= errors <= self.code_bits:
            raise InputError(f"errors: expected an integer from 1 to {self.code_bits}, got {errors!r}")
        # Patterns of k wrong bits by their syndrome, one column after the other; Python integers, as there may be 10^20.
        patterns = np.zeros((errors + 1, 1 << self.check_bits), object)
        patterns[0, 0] = 1
        syndromes = np.arange(1 << self.check_bits)
        for column in self.columns:
            patterns[1:] = patterns[1:] + patterns[:-1, syndromes ^ column]
        found, total = patterns[errors], comb(self.code_bits, int(errors))
        pointed, silent = int(found[self._position != NO_BIT].sum()), int(found[0])
        return Outcomes(
            corrected=pointed / total if errors == 1 else 0.0,
            detected=(total - pointed - silent) / total,
            miscorrected=0.0 if errors == 1 else pointed / total,
            undetected=silent / total,
        )


def _unsigned(name: str, values: Any, bits: int) -> NDArray[np.uint64]:
    array = np.asarray(values)
    integers = array.dtype.kind in "iu"
    if not integers and not isinstance(values, np.ndarray):
        # Of Python's integers on both sides of 2^63 numpy makes floats; as objects they stay what they are.
        exact = np.asarray(values, object)
        integers = all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in exact.flat)
        array = exact if integers else array
    if not integers:
        raise InputError(f"{name}: expected integers, got {array.dtype}")
    if array.size and (int(array.min()) < 0 or int(array.max()) >> bits):
        worst = int(array.min()) if int(array.min()) < 0 else int(array.max())
        raise InputError(f"{name}: expected 0 to 2^{bits} - 1, got {worst}")
    return array.astype(np.uint64)
